package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/admin"
	"penstock/config"
	"penstock/provider"
	"penstock/provider/openai"
)

// command runs penstock with arguments and variables, and returns its exit code and
// what it printed.
func command(t *testing.T, env map[string]string, args ...string) (code int, printed string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var out lockedBuffer
	getenv := func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
	code = run(ctx, args, getenv, strings.NewReader(""), &out, &out)
	if ctx.Err() != nil {
		t.Fatalf("penstock %v did not end by itself:\n%s", args, &out)
	}
	return code, out.String()
}

// write puts a text into a file of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// covers LIFE-05: a bad configuration does not start. The exit code is 1, the line
// or path of the fault is told, a secret is not; check and serve say the same.
func TestBadConfigurationDoesNotStart(t *testing.T) {
	const secret = "sk-a-secret-0123456789"
	up := "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", api_key: \"${KEY}\"}\n"
	env := map[string]string{"KEY": secret}
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", up + "models: {m: up}\nretries: 5\n", ":4"},
		{"unknown nested field", "upstreams:\n  up:\n    base_url: https://api.example.com/v1\n    api_kye: ${KEY}\n", ":4"},
		{"name given twice", up + "  up: {base_url: \"https://api.example.org/v1\"}\n", ":3"},
		{"negative limit", "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", limits: {requests: -5/min}}\n", ":2"},
		{"negative concurrency", "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", limits: {concurrency: -1}}\n", ":2"},
		{"missing variable", "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", api_key: \"${NO_SUCH}\"}\n", "NO_SUCH"},
		{"missing secret file", "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", api_key: \"file:/no/such/file\"}\n", "/no/such/file"},
		{"no URL", "upstreams:\n  up: {base_url: \"https://exa mple\"}\n", ":2"},
		{"URL with a password", "upstreams:\n  up: {base_url: \"https://user:" + secret + "@example.com\"}\n", ":2"},
		{"unknown upstream", up + "models: {m: upp}\n", ":3"},
		{"open to the world without keys", "listen: 0.0.0.0:0\n" + up, ":1"},
		{"no YAML", "upstreams: [\n", ":"},
		{"a secret in place of a mapping", secret + "\n", ":1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, c.text)
			code, serve := command(t, env, "serve", "--config", file)
			checked, check := command(t, env, "check", file)
			if code != 1 || checked != 1 || serve != check {
				t.Errorf("serve: exit %d, %s\ncheck: exit %d, %s", code, serve, checked, check)
			}
			if !strings.Contains(serve, filepath.Base(file)) || !strings.Contains(serve, c.want) || strings.Contains(serve, secret) {
				t.Errorf("printed %q, want %q in it", serve, c.want)
			}
		})
	}
	for name, file := range map[string]string{"no file": filepath.Join(t.TempDir(), "none.yaml"), "a directory": t.TempDir()} {
		if code, printed := command(t, env, "serve", "--config", file); code != 1 || !strings.Contains(printed, file) {
			t.Errorf("%s: exit %d, %s", name, code, printed)
		}
	}
	if code, printed := command(t, env, "serve", "--no-such-flag"); code != 2 || !strings.Contains(printed, "no-such-flag") {
		t.Errorf("a wrong flag: exit %d, %s", code, printed)
	}
}

// covers LIFE-05, SEC-03: check prints what is in force, secrets masked, and serves
// nothing.
func TestCheckMasksSecrets(t *testing.T) {
	const secret = "sk-a-secret-0123456789"
	file := write(t, "upstreams:\n  up: {base_url: \"https://api.example.com/v1\", api_key: \"${KEY}\", headers: {X-Key: \"${KEY}\"}}\nadmin: {token: \"${KEY}\"}\nteams: {t: {keys: [{name: k, key: \"${KEY}\"}]}}\n")
	code, printed := command(t, map[string]string{"KEY": secret}, "check", file)
	if code != 0 || strings.Contains(printed, secret) || strings.Contains(printed, secret[:12]) || !strings.Contains(printed, "max_attempts: 3") {
		t.Errorf("exit %d:\n%s", code, printed)
	}
}

func TestBusyPortIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const up = "upstreams: {up: {base_url: \"https://api.example.com/v1\"}}\n"
	for key, text := range map[string]string{"listen": "listen: " + l.Addr().String() + "\nadmin: {listen: off}\n", "admin.listen": "listen: 127.0.0.1:0\nadmin: {listen: " + l.Addr().String() + "}\n"} {
		code, printed := command(t, nil, "serve", "--config", write(t, text+up))
		if code != 1 || !strings.Contains(printed, key+": ") || !strings.Contains(printed, l.Addr().String()) {
			t.Errorf("%s: exit %d, %s", key, code, printed)
		}
	}
}

// get asks for a path of the data listener, with a key or without.
func (g *testGateway) get(path, key string) (status int, body string) {
	g.t.Helper()
	r, err := http.NewRequest("GET", "http://"+g.lis.Addr().String()+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// covers SEC-04: nothing of the admin listener but health is on the data listener,
// and nothing but health is there without a key.
func TestDataListenerServesNothingOfAdmin(t *testing.T) {
	const key = "psk_a-client-key-0123456789"
	g := startGateway(t, "teams: {t: {keys: [{name: k, hash: \""+hashOf(key)+"\"}]}}\n")
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := g.get(path, ""); status != 200 || len(body) > 10 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{
		"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/admin/", "/admin/teams", "/admin/keys", "/v1/admin/keys", "//metrics",
		"/%6detrics", "/healthz/../metrics", "/healthz/metrics", "/", "/v1", "/v1/models", "/v1/files",
	} {
		if status, body := g.get(path, ""); status != 401 || !strings.Contains(body, "invalid_api_key") {
			t.Errorf("%s without a key: %d %.100s", path, status, body)
		}
		status, body := g.get(path, key)
		upstreams := status == 200 && (strings.Contains(body, `"object":"chat.completion"`) || path == "/v1/models")
		if !upstreams && status != 404 {
			t.Errorf("%s with a key: %d %.100s", path, status, body)
		}
	}
	// With the admin listener's own paths the other way round.
	resp, err := http.Get("http://" + g.alis.Addr().String() + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("the admin listener serves the API: %d", resp.StatusCode)
	}
}

// covers SEC-04: no profile and no metric without the token, when there is one, and
// no profile at all unless it is switched on.
func TestProfilesNeedTheToken(t *testing.T) {
	for _, c := range []struct {
		config, token string
		metrics       int
		pprof         int
	}{
		{"admin: {token: adm-0123456789, pprof: true}", "", 401, 401},
		{"admin: {token: adm-0123456789, pprof: true}", "adm-012345678", 401, 401},
		{"admin: {token: adm-0123456789, pprof: true}", "adm-0123456789", 200, 200},
		{"admin: {token: adm-0123456789, pprof: true, open_metrics: true}", "", 200, 401},
		{"admin: {token: adm-0123456789}", "adm-0123456789", 200, 404},
		{"admin: {}", "", 200, 404},
	} {
		cfg, err := config.Load(write(t, c.config+"\nupstreams: {up: {base_url: \"https://api.example.com/v1\"}}\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := buildParts(cfg, &environment{ctx: t.Context(), getenv: func(string) (string, bool) { return "", false }, stderr: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		h := admin.Handler(p.adminConfig(cfg, func() bool { return true }))
		for path, want := range map[string]int{"/metrics": c.metrics, "/debug/pprof/": c.pprof, "/debug/pprof/goroutine": c.pprof, "/debug/pprof/cmdline": c.pprof, "/healthz": 200} {
			r := httptest.NewRequest("GET", "http://127.0.0.1"+path, nil)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if path == "/debug/pprof/cmdline" && want == 200 {
				want = 404 // what the command line holds is nobody's business
			}
			if w.Code != want {
				t.Errorf("%s, token %q, %s: %d, want %d", c.config, c.token, path, w.Code, want)
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
}

// A name that a web page has pointed at this machine is refused where no key is
// asked for.
func TestRebindingIsRefused(t *testing.T) {
	g := startGateway(t, "")
	for _, c := range []struct {
		host, site string
		want       int
	}{
		{"evil.example", "same-origin", 403}, {"evil.example:8080", "same-origin", 403}, {"localhost:8080", "same-origin", 200}, {"127.0.0.1", "same-origin", 200},
		{"[::1]:80", "same-origin", 200}, {"gateway.internal", "", 200}, {"localhost", "cross-site", 403},
	} {
		r, err := http.NewRequest("POST", "http://"+g.lis.Addr().String()+"/v1/chat/completions", strings.NewReader(`{"model":"m"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.host, c.site, resp.StatusCode, c.want)
		}
	}
}

// covers UP-07: the time limit on connecting holds for TCP and for TLS, and is told
// from the others.
func TestConnectTimeout(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // takes connections in and never says a word
	for scheme, address := range map[string]string{"https": silent.Addr().String(), "http": fullBacklog(t)} {
		transport := newBuilder().transport(scheme, 200*time.Millisecond)
		defer transport.CloseIdleConnections()
		r, err := http.NewRequest("GET", scheme+"://"+address+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = transport.RoundTrip(r) //nolint:bodyclose // it fails
		if err == nil {
			t.Fatalf("%s: an answer", scheme)
		}
		if e := openai.Broken(err, nil); e.Code != "connect_timeout" || e.Kind != provider.KindHealth || time.Since(begin) > 2*time.Second {
			t.Errorf("%s: %s (%v) after %v", scheme, e.Code, err, time.Since(begin))
		}
	}
}

// fullBacklog returns an address at which connections are neither taken nor
// refused: that of a socket whose backlog is full.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the backlog does not fill")
	return ""
}

// hashOf is the hash of a key as penstock keys hash prints it.
func hashOf(key string) string {
	var out bytes.Buffer
	run(context.Background(), []string{"keys", "hash"}, func(string) (string, bool) { return "", false }, strings.NewReader(key+"\n"), &out, &out)
	return strings.TrimSpace(out.String())
}

// covers LIFE-06: a panic in a worker ends neither the process nor the work, is
// counted, and does not put what it holds into the log.
func TestPanicInTheBackground(t *testing.T) {
	g := startGateway(t, "")
	again := make(chan int, 3)
	times := 0
	g.worker("test", func() {
		times++
		again <- times
		if times < 3 {
			panic("secret of a prompt")
		}
	})
	for want := range 3 {
		select {
		case got := <-again:
			if got != want+1 {
				t.Errorf("run %d, want %d", got, want+1)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it did not begin again")
		}
	}
	g.logged("panic in the background")
	if text := g.log.String(); strings.Contains(text, "secret") || !strings.Contains(text, "TestPanicInTheBackground") {
		t.Errorf("log: %s", text)
	}
	if status := g.chat(); status != 200 {
		t.Errorf("answered %d", status)
	}
}
