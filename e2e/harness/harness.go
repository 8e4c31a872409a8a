// Package harness starts the real binary and simulated providers for end-to-end
// tests. A missing part fails the test.
package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/freeport"
)

var build struct {
	once sync.Once
	path string
	err  error
}

// Root is the top of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Binary builds penstock once per test process and returns its path. With
// PENSTOCK_RACE=1 it is built with the race detector.
func Binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() { build.path, build.err = compile() })
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// compile puts the binary where the next test process replaces it.
func compile() (string, error) {
	path := filepath.Join(Root(), ".cache", "e2e", "penstock")
	// The profile of default.pgo changes the cost and not what is done, and has
	// everything compiled once more.
	args, cgo := []string{"build", "-pgo=off"}, "CGO_ENABLED=0"
	if os.Getenv("PENSTOCK_RACE") == "1" {
		args, cgo, path = append(args, "-race"), "CGO_ENABLED=1", path+"-race"
	}
	own := fmt.Sprintf("%s-%d", path, os.Getpid()) // another process may be running what is there
	cmd := exec.Command("go", append(args, "-o", own, "./cmd/penstock")...)
	cmd.Dir, cmd.Env = Root(), append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	return path, os.Rename(own, path)
}

// A Gateway is a running penstock process.
type Gateway struct {
	URL   string // of the data listener, without /v1
	Admin string // of the admin listener
	Cmd   *exec.Cmd
	File  string // its configuration file

	logs lockedBuffer
	done chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// FreeAddress returns a loopback address that nobody listens on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	addr, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Start runs penstock with a configuration; listen and admin.listen are added to
// it, so the text must not have them. Environment entries are KEY=value. The
// process is stopped when the test ends.
func Start(t testing.TB, yaml string, env ...string) *Gateway {
	t.Helper()
	return StartUnder(t, "", yaml, env...)
}

// StartUnder is Start after a command of the shell, such as ulimit -n 256.
func StartUnder(t testing.TB, shell, yaml string, env ...string) *Gateway {
	t.Helper()
	data, adm := FreeAddress(t), FreeAddress(t)
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	text := fmt.Sprintf("listen: %s\nadmin: {listen: %q, pprof: true}\n%s", data, adm, yaml)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &Gateway{URL: "http://" + data, Admin: "http://" + adm, File: file, done: make(chan error, 1)}
	g.Cmd = exec.Command(Binary(t), "serve", "--config", file)
	if shell != "" {
		g.Cmd = exec.Command("/bin/sh", "-c", shell+` && exec "$0" "$@"`, Binary(t), "serve", "--config", file)
	}
	g.Cmd.Env = append(os.Environ(), env...)
	g.run(t)
	t.Cleanup(func() {
		_ = g.Cmd.Process.Signal(syscall.SIGKILL)
		<-g.done
		if t.Failed() {
			t.Logf("log of penstock:\n%s", tail(g.Logs(), 8000))
		}
	})
	g.await(t)
	return g
}

// EndsWithTest has a command killed that outlives the process of the test, however
// that ends. Call it before the command is started.
func EndsWithTest(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// run starts the command.
func (g *Gateway) run(t testing.TB) {
	t.Helper()
	g.Cmd.Stdout, g.Cmd.Stderr = &g.logs, &g.logs
	EndsWithTest(g.Cmd)
	if err := g.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := g.Cmd
	go func() { g.done <- cmd.Wait() }()
}

func (g *Gateway) await(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		select {
		case err := <-g.done:
			g.done <- err
			t.Fatalf("penstock ended at once: %v\n%s", err, g.Logs())
		default:
		}
		resp, err := http.Get(g.Admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("penstock is not ready: %v\n%s", err, g.Logs())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Logs is what the process has written so far.
func (g *Gateway) Logs() string {
	g.logs.mu.Lock()
	defer g.logs.mu.Unlock()
	return g.logs.b.String()
}

// Stop sends SIGTERM and returns how the process ended.
func (g *Gateway) Stop(t testing.TB, within time.Duration) error {
	t.Helper()
	_ = g.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-g.done:
		g.done <- err
		return err
	case <-time.After(within):
		t.Fatalf("penstock still runs %v after SIGTERM", within)
		return nil
	}
}

// Rewrite replaces the configuration file by other text, with the same listeners.
func (g *Gateway) Rewrite(t testing.TB, yaml string) {
	t.Helper()
	text := fmt.Sprintf("listen: %s\nadmin: {listen: %q, pprof: true}\n%s", strings.TrimPrefix(g.URL, "http://"), strings.TrimPrefix(g.Admin, "http://"), yaml)
	if err := os.WriteFile(g.File+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.File+".new", g.File); err != nil {
		t.Fatal(err)
	}
}

// Metrics returns the text of /metrics.
func (g *Gateway) Metrics(t testing.TB) string {
	t.Helper()
	resp, err := http.Get(g.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Metric adds up the samples of a metric whose labels contain all of the texts,
// such as `outcome="ok"`.
func (g *Gateway) Metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	sum := 0.0
	for line := range strings.SplitSeq(g.Metrics(t), "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		all := true
		for _, l := range labels {
			all = all && strings.Contains(rest, l)
		}
		if all {
			var v float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err == nil {
				sum += v
			}
		}
	}
	return sum
}

// Goroutines is the number of goroutines of the process.
func (g *Gateway) Goroutines(t testing.TB) int { return int(g.Metric(t, "go_goroutines")) }

// Descriptors is the number of file descriptors that the process has open.
func (g *Gateway) Descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Serve runs a handler, such as a simulated provider, on a loopback port and
// returns its URL.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// Eventually fails the test unless ok becomes true in time. A time that is promised is
// better waited for by Round.Within.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what)
		case <-time.After(look):
		}
	}
}

// look is how often it is looked whether something has come true.
const look = 20 * time.Millisecond

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}
