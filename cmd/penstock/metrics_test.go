package main

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/config"
	"penstock/simulate"
)

// docs/metrics.md lists every metric that a gateway shows, with its type and labels,
// and no others.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(penstock_[a-z_]+)` \\| ([a-z]+) \\| ([a-z_` ]*)\\|").FindAllStringSubmatch(string(text), -1) {
		names := strings.Fields(strings.ReplaceAll(row[3], "`", ""))
		slices.Sort(names)
		documented[row[1]] = row[2] + " " + strings.Join(names, " ")
	}
	shown := busyGateway(t)
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		if documented[name] != shown[name] {
			t.Errorf("docs/metrics.md: %s is %q, want %q", name, documented[name], shown[name])
		}
	}
	for name := range documented {
		if shown[name] == "" {
			t.Errorf("docs/metrics.md has %s, which a busy gateway does not show", name)
		}
	}
}

// busyGateway runs a gateway through everything that it counts and returns the
// types and sorted labels of its metrics.
func busyGateway(t *testing.T) map[string]string {
	t.Helper()
	up := httptest.NewServer(simulate.New(simulate.Config{TTFT: simulate.NoWait, TokenTime: time.Millisecond, OutputTokens: 4}))
	t.Cleanup(up.Close)
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	yaml := "listen: " + freeAddress(t) + "\nadmin: {listen: " + freeAddress(t) + "}\nlog: {level: warn, access: false}\n" +
		"database: {url: " + filepath.Join(t.TempDir(), "penstock.db") + "}\nretry: {max_attempts: 1}\n" + `
redis: {url: "redis://127.0.0.1:1"} # away
upstreams:
  up: {base_url: ` + up.URL + `/v1, limits: {concurrency: 10}, models: {a: {}, b: {}, c: {}, d: {}}}
prices: {a: 1}
teams:
  t:
    limits: {requests: [{limit: 100, per: 1h, burst: 5}, {limit: 1, per: 24h, mode: shadow}]}
    keys: [{name: k, key: a-key-for-the-test}]
`
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &testGateway{t: t, log: &lockedBuffer{}}
	if g.gateway, err = newGateway(cfg, g.environment()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := strings.Count(g.log.String(), "the breaker is open"); n != 1 {
			t.Errorf("the log says %d times that a breaker has opened, want 1: %s", n, g.log.String())
		}
	})
	g.reload(file, g.environment())
	g.ask("a", "cached=1;reasoning=1")
	g.ask("a", "no-usage")
	g.ask("a", "truncate-after=2")
	for range 6 {
		g.ask("b", "status=500") // opens the breaker
	}
	g.ask("c", "status=401")
	g.ask("d", "") // has no price
	for range 4 {
		g.ask("a", "") // the last ones are beyond the team's limit
	}
	return g.families()
}

func (g *testGateway) ask(model, directives string) {
	g.t.Helper()
	body := strings.NewReader(`{"model":"` + model + `","stream":true,"messages":[{"role":"user","content":"hello there"}]}`)
	r, err := http.NewRequest("POST", "http://"+g.lis.Addr().String()+"/v1/chat/completions", body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer a-key-for-the-test")
	r.Header.Set("X-Simulate", directives)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// families reads /metrics: "type label label" by name.
func (g *testGateway) families() map[string]string {
	g.t.Helper()
	resp, err := http.Get("http://" + g.alis.Addr().String() + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	all, label := map[string]string{}, regexp.MustCompile(`([a-z_]+)="`)
	name, kind := "", ""
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "# TYPE penstock_"); ok {
			name, kind, _ = strings.Cut("penstock_"+rest, " ")
			continue
		}
		if name == "" || !strings.HasPrefix(line, name) {
			continue
		}
		var names []string
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			if m[1] != "le" {
				names = append(names, m[1])
			}
		}
		slices.Sort(names)
		all[name] = kind + " " + strings.Join(names, " ")
	}
	return all
}
