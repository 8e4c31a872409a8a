package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/auth"
	"penstock/config"
	"penstock/freeport"
	"penstock/teams"
)

// A lockedBuffer is a buffer that a gateway writes its log to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A testGateway is a whole gateway within the test's process, before an upstream
// that remembers the last request it got.
type testGateway struct {
	*gateway
	t    *testing.T
	log  *lockedBuffer
	seen chan http.Header
}

func freeAddress(t *testing.T) string {
	t.Helper()
	addr, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func startGateway(t *testing.T, text string) *testGateway {
	t.Helper()
	g := &testGateway{t: t, log: &lockedBuffer{}, seen: make(chan http.Header, 100)}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Header.Set("Query", r.URL.RawQuery)
		g.seen <- r.Header
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`)
	}))
	t.Cleanup(up.Close)
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	text = "listen: " + freeAddress(t) + "\nadmin: {listen: " + freeAddress(t) + "}\nlog: {level: error, access: false}\nupstreams: {up: {base_url: " + up.URL + "/v1}}\n" + text
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if g.gateway, err = newGateway(cfg, g.environment()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g
}

func (g *testGateway) environment() *environment {
	return &environment{ctx: context.Background(), getenv: func(string) (string, bool) { return "", false }, stdout: g.log, stderr: g.log}
}

// logged waits until the log, which is written with a delay, holds a text.
func (g *testGateway) logged(text string) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(g.log.String(), text); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("the log has no %q:\n%s", text, g.log)
		}
	}
}

// cli runs a command that speaks to the gateway, and returns what it prints.
func (g *testGateway) cli(want int, args ...string) string {
	g.t.Helper()
	var out bytes.Buffer
	getenv := func(name string) (string, bool) { return "", false }
	args = append(args, "--admin", "http://"+g.alis.Addr().String())
	if code := run(context.Background(), args, getenv, strings.NewReader(""), &out, &out); code != want {
		g.t.Fatalf("penstock %s: exit %d, want %d\n%s", strings.Join(args, " "), code, want, &out)
	}
	return out.String()
}

// newKey makes a key by the command and returns it.
func (g *testGateway) newKey(team, name string, more ...string) (key, id string) {
	g.t.Helper()
	var k keyView
	if err := json.Unmarshal([]byte(g.cli(0, append([]string{"keys", "create", team, name, "--json"}, more...)...)), &k); err != nil {
		g.t.Fatal(err)
	}
	return k.Key, k.ID
}

// request is a chat completion, with headers in pairs.
func (g *testGateway) request(headers ...string) *http.Request {
	g.t.Helper()
	r, err := http.NewRequest("POST", "http://"+g.lis.Addr().String()+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[]}`))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// chat sends a request and returns the status.
func (g *testGateway) chat(headers ...string) int {
	g.t.Helper()
	resp, err := http.DefaultClient.Do(g.request(headers...))
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// remembers waits until a request whose answer has arrived has ended.
func (g *testGateway) remembers(id string) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if _, ok := g.proxy.Explain(id); ok {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("request %s is not remembered", id)
		}
	}
}

func (g *testGateway) bearer(key string) int { return g.chat("Authorization", "Bearer "+key) }

// covers SEC-01, SEC-08: from the first key on a key is needed, and it is no longer
// forwarded; it is taken from every header that clients use, and reaches no
// upstream by any.
func TestFirstKeyClosesTheGateway(t *testing.T) {
	g := startGateway(t, "database: {url: "+filepath.Join(t.TempDir(), "penstock.db")+"}\n")
	if code := g.bearer("sk-the-clients-own"); code != 200 {
		t.Fatalf("before any key: %d", code)
	}
	if h := <-g.seen; h.Get("Authorization") != "Bearer sk-the-clients-own" {
		t.Errorf("sidecar mode does not forward: %v", h)
	}
	g.cli(0, "teams", "create", "search", "--weight", "2", "--set", "limits.requests=[\"50/s\",\"1000/min\"]")
	if code := g.bearer("sk-the-clients-own"); code != 401 {
		t.Errorf("with a team and no key: %d", code)
	}
	key, id := g.newKey("search", "prod")
	for _, name := range auth.Headers {
		value := key
		if name == "Authorization" {
			value = "Bearer " + key
		}
		if code := g.chat(name, value); code != 200 {
			t.Errorf("key in %s: %d", name, code)
			continue
		}
		for header, values := range <-g.seen {
			if strings.Contains(strings.Join(values, " "), key) {
				t.Errorf("the key in %s reaches the upstream in %s", name, header)
			}
		}
	}
	if code := g.chat("Authorization", "Bearer "+key, "X-Api-Key", key, "Api-Key", key, "X-Goog-Api-Key", key, "Cookie", "key="+key); code != 200 {
		t.Errorf("key everywhere: %d", code)
	} else if h := <-g.seen; strings.Contains(strings.Join(flat(h), " "), key) {
		t.Errorf("the key reaches the upstream: %v", h)
	}
	g.cli(0, "keys", "revoke", id)
	if code := g.bearer(key); code != 401 {
		t.Errorf("a revoked key: %d", code)
	}
	g.cli(0, "teams", "delete", "search")
	if code := g.bearer("sk-the-clients-own"); code != 401 {
		t.Errorf("when every team is gone again: %d", code)
	}
}

func flat(h http.Header) (all []string) {
	for name, values := range h {
		all = append(all, name+": "+strings.Join(values, " "))
	}
	return all
}

// covers SEC-08
func TestKeysByCommand(t *testing.T) {
	g := startGateway(t, `
models: {m: up}
database: {url: `+filepath.Join(t.TempDir(), "penstock.db")+`}
teams:
  search: {keys: [{name: prod, key: psk_of-the-file-0123456789}]}
`)
	if code := g.bearer("psk_of-the-file-0123456789"); code != 200 {
		t.Fatalf("the file's key: %d", code)
	}
	dev, _ := g.newKey("search", "dev", "--expires", "90d", "--set", "limits.requests=2/day")
	for i, want := range []int{200, 429} { // a day's burst is an hour's worth, at least one
		if code := g.bearer(dev); code != want {
			t.Errorf("request %d with dev: %d, want %d", i, code, want)
		}
	}
	g.cli(0, "keys", "update", "search/dev", "--set", "limits.requests=100/min")
	if code := g.bearer(dev); code != 200 {
		t.Errorf("with a higher limit: %d", code)
	}
	g.cli(0, "keys", "update", "search/dev", "--set", "limits.budget=[$5/day, $50/30d]", "--set", "limits.tokens={limit: 2M, per: 1m, mode: shadow}")
	if list := g.cli(0, "limits", "--team", "search"); !strings.Contains(list, "key/search/dev/budget/30d") || !strings.Contains(list, "key/search/dev/tokens/1m0s") {
		t.Errorf("limits in the file's forms:\n%s", list)
	}
	g.cli(0, "keys", "update", "search/dev", "--disable")
	if code := g.bearer(dev); code != 401 {
		t.Errorf("disabled: %d", code)
	}
	g.cli(0, "keys", "update", "search/dev", "--enable", "--unset", "limits")
	if code := g.bearer(dev); code != 200 {
		t.Errorf("enabled: %d", code)
	}
	var rotated keyView
	if err := json.Unmarshal([]byte(g.cli(0, "keys", "rotate", "search/dev", "--grace", "1h", "--json")), &rotated); err != nil {
		t.Fatal(err)
	}
	if a, b := g.bearer(dev), g.bearer(rotated.Key); a != 200 || b != 200 {
		t.Errorf("within the grace period: former %d, new %d", a, b)
	}
	second := g.cli(0, "keys", "rotate", "search/dev", "--grace", "0s")
	if a, b := g.bearer(dev), g.bearer(rotated.Key); a != 401 || b != 401 {
		t.Errorf("rotated without grace: %d, %d", a, b)
	}
	if !strings.HasPrefix(second, "key:  psk_") || !strings.Contains(second, "shown this once") {
		t.Errorf("rotate prints\n%s", second)
	}
	g.cli(0, "keys", "update", "search/dev", "--set", "expires=2020-01-01")
	list := g.cli(0, "keys", "list")
	for _, want := range []string{"TEAM", "search  dev", "expired", "file:search:prod", "active"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list has no %q:\n%s", want, list)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"keys", "revoke", "file:search:prod"}, "stands in the configuration file"},
		{[]string{"keys", "revoke", "search/nobody"}, "has no key nobody"},
		{[]string{"keys", "revoke", dev}, "does not belong on a command line"},
		{[]string{"keys", "create", "search", "x", "--set", "limits.requests=fast"}, "limits.requests: expected a rate"},
		{[]string{"teams", "create", "reports", "--models", "gpt-9"}, "a name under models"},
		{[]string{"teams", "update", "search", "--weight", "9"}, "stands in the configuration file"},
		{[]string{"teams", "create", "reports", "--weight", "0"}, "from 1 to 10000"},
		{[]string{"teams", "create", "reports", "--set", "limits.budget=[$5/day, $50/weak]"}, "expected month, week, day"},
	} {
		if out := g.cli(1, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("penstock %s: %s", strings.Join(c.args, " "), out)
		}
	}
	g.logged(`\"expires\":\"2020-01-01\"}"`)
	if log := g.log.String(); strings.Contains(log, dev) || strings.Contains(log, rotated.Key) || !strings.Contains(log, `"action":"keys.rotate"`) {
		t.Errorf("the log holds a key, or no audit:\n%s", log)
	}
}

// A reload that takes a name of the database is refused, and what the file says of a
// team leaves its keys of the database alone.
func TestReloadBesideTheDatabase(t *testing.T) {
	g := startGateway(t, "database: {url: "+filepath.Join(t.TempDir(), "penstock.db")+"}\nteams: {search: {weight: 2}}\n")
	g.cli(0, "teams", "create", "reports")
	key, _ := g.newKey("search", "dev")
	other, _ := g.newKey("reports", "dev")
	reload := func(text string) error {
		cfg := *g.cfg
		cfg.Teams = nil
		file := filepath.Join(t.TempDir(), "teams.yaml")
		if err := os.WriteFile(file, []byte("upstreams: {up: {base_url: 'http://127.0.0.1:1'}}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := config.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Teams = read.Teams
		return g.apply(&cfg)
	}
	if err := reload("teams: {search: {}, reports: {}}"); err == nil || !strings.Contains(err.Error(), "penstock teams delete reports") {
		t.Errorf("a team of the database in the file: %v", err)
	}
	if err := reload("teams: {search: {weight: 5}}"); err != nil || g.bearer(key) != 200 {
		t.Errorf("another weight: %v, then %d", err, g.bearer(key))
	}
	// Its team is gone: the key is refused, and the gateway stays closed.
	if err := reload(""); err != nil || g.bearer(key) != 401 || g.bearer(other) != 200 || g.chat() != 401 {
		t.Errorf("without the team: %v, %d, %d, %d", err, g.bearer(key), g.bearer(other), g.chat())
	}
	g.logged("key dev of team search: there is no such team")
}

// covers DB-05: a database that cannot be used stops the start, with what and why.
func TestStartNeedsItsDatabase(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "notes.db")
	if err := os.WriteFile(foreign, []byte(strings.Repeat("no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		foreign: foreign,
		"postgres://penstock:hunter2@127.0.0.1:1/penstock": "127.0.0.1",
	} {
		cfg := config.Default()
		cfg.Listen, cfg.Admin.Listen, cfg.Database.URL = "127.0.0.1:0", "off", config.Secret(url)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		env := &environment{ctx: ctx, getenv: func(string) (string, bool) { return "", false }, stderr: io.Discard}
		_, err := newGateway(&cfg, env)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want %s named", err, want)
		}
	}
}

// What a newer gateway has written on the same database leaves a team as it was; a
// key whose settings cannot be read is refused.
func TestSettingsOfANewerGateway(t *testing.T) {
	b := newBuilder()
	cfg := config.Default()
	set := &teams.Set{Version: 1, Teams: []teams.Team{{Name: "search", Settings: []byte(`{"weight":3}`)}, {Name: "new", Settings: []byte(`{"magic":1}`)}},
		Keys: []teams.Key{
			{ID: "key_1", Team: "search", Name: "a", Settings: []byte(`{}`), Secrets: []teams.Secret{{Hash: auth.HashOf("a")}}},
			{ID: "key_2", Team: "search", Name: "b", Settings: []byte(`{"magic":1}`), Secrets: []teams.Secret{{Hash: auth.HashOf("b")}}},
			{ID: "key_3", Team: "new", Name: "c", Settings: []byte(`{}`), Secrets: []teams.Secret{{Hash: auth.HashOf("c")}}},
		}}
	check := func(what string, weight, problems int) {
		t.Helper()
		who := b.callers(&cfg, set)
		if who.teams["search"].Weight != weight || who.teams["new"] != nil || len(who.problems) != problems || who.open {
			t.Errorf("%s: weight %d, problems %v", what, who.teams["search"].Weight, who.problems)
		}
		for key, want := range map[string]bool{"a": true, "b": false, "c": false} {
			if _, err := who.keys.Identify(http.Header{"X-Api-Key": {key}}); (err == nil) != want {
				t.Errorf("%s: key %s: %v", what, key, err)
			}
		}
	}
	check("at first", 3, 3)
	set.Teams[0].Settings = []byte(`{"weight":5,"magic":1}`)
	check("changed by a newer one", 3, 4)
	set.Teams[0].Settings = []byte(`{"weight":5}`)
	check("put right", 5, 3)
	set.Teams, set.Keys = set.Teams[:1], set.Keys[:1]
	if b.callers(&cfg, set); len(b.reader.teams) != 1 || len(b.reader.keys) != 1 {
		t.Errorf("the reader keeps %d teams and %d keys", len(b.reader.teams), len(b.reader.keys))
	}
}
