package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"penstock/admin"
	"penstock/config"
)

// covers SEC-04: every route of the admin listener, by who may use it. One that is
// not listed here fails, and is denied to everybody but admins meanwhile.
func TestEveryAdminRouteHasARole(t *testing.T) {
	g := startGateway(t, "database: {url: "+filepath.Join(t.TempDir(), "penstock.db")+"}\nteams: {search: {}}\n")
	key, id := g.newKey("search", "prod")
	for _, open := range []bool{false, true} {
		roles := map[string]string{
			"GET /healthz": "all", "GET /readyz": "all", "GET /metrics": "admin",
			"GET /debug/pprof/": "admin", "GET /debug/pprof/profile": "admin", "GET /debug/pprof/trace": "admin", "GET /debug/pprof/symbol": "admin",
			"GET /admin/teams": "admin", "POST /admin/teams": "admin",
			"GET /admin/teams/{name}": "admin", "PATCH /admin/teams/{name}": "admin", "DELETE /admin/teams/{name}": "admin",
			"GET /admin/keys": "admin", "POST /admin/keys": "admin", "GET /admin/keys/{id}": "admin", "PATCH /admin/keys/{id}": "admin",
			"POST /admin/keys/{id}/rotate": "admin", "POST /admin/keys/{id}/revoke": "admin",
			"GET /admin/explain/{id}": "admin", "GET /admin/limits": "admin",
			"GET /admin/usage": "admin", "GET /admin/usage/export": "admin",
		}
		if open {
			roles["GET /metrics"] = "all"
		}
		cfg := *g.cfg
		cfg.Admin = config.Admin{Token: "the-token-of-the-admin", Tokens: []config.AdminToken{{Name: "ci", Token: "the-token-of-the-ci"}}, Pprof: true, OpenMetrics: open}
		c := g.adminConfig(&cfg, g.ready)
		h := admin.Handler(c)
		ask := func(pattern, token string) int {
			method, path, _ := strings.Cut(pattern, " ")
			path = strings.NewReplacer("{name}", "search", "{id}", id).Replace(path)
			r := httptest.NewRequest(method, path, strings.NewReader("[]")) // no change: it is no object
			r.Header.Set("Content-Type", "application/json")
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		for _, route := range admin.Routes(c) {
			role := roles[route.Pattern]
			delete(roles, route.Pattern)
			if role == "" {
				t.Errorf("%s has no role in this table", route.Pattern)
				continue
			}
			for token, who := range map[string]string{"": "all", key: "key", "the-token-of-the-admi": "all", "the-token-of-the-admin": "admin", "the-token-of-the-ci": "admin"} {
				if who == "admin" && regexp.MustCompile("profile|trace|DELETE|revoke").MatchString(route.Pattern) {
					continue // would run for seconds, or change something
				}
				may := role == "all" || who == "admin"
				if code := ask(route.Pattern, token); (code != http.StatusUnauthorized) != may {
					t.Errorf("%s as %s: %d", route.Pattern, who, code)
				}
			}
		}
		for pattern := range roles {
			t.Errorf("%s is in this table, but not served", pattern)
		}
		for token, want := range map[string]int{"": 401, key: 401, "the-token-of-the-admin": 404} {
			if code := ask("GET /admin/anything", token); code != want {
				t.Errorf("an unlisted path: %d, want %d", code, want)
			}
		}
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0.000 s", 0.0123: "0.012 s", 59.9994: "59.999 s", 59.9996: "1m", 60: "1m", 61.4: "1m1s", 3600: "1h", 7265: "2h1m5s", 86_400: "1d",
		489_600: "5d16h", 489_922.259: "5d16h5m",
	} {
		if got := seconds(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
}

func TestExplainAndLimitsByCommand(t *testing.T) {
	g := startGateway(t, `
database: {url: `+filepath.Join(t.TempDir(), "penstock.db")+`}
explain: {header: true}
teams: {search: {limits: {requests: 1/min}}}
`)
	key, _ := g.newKey("search", "prod")
	ask := func() (id, header string) {
		r := g.request("Authorization", "Bearer "+key, "X-Penstock-Explain", "1")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("X-Penstock-Request-Id"), resp.Header.Get("X-Penstock-Explain")
	}
	id, header := ask()
	if !strings.Contains(header, `"limit":"team/search/requests/1m0s"`) {
		t.Errorf("header %s", header)
	}
	g.remembers(id)
	out := g.cli(0, "explain", id)
	for _, want := range []string{id + ": status 200, ok", "team search, key prod, class default, chat of model other", "used 5 input and 7 output tokens, as counted by the provider", "target up/*: chosen", "caller  team/search/requests/1m0s  1         0     1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	id, _ = ask()
	g.remembers(id)
	if out = g.cli(0, "explain", id); !strings.Contains(out, "refused: limit team/search/requests/1m0s, would fit after") || !strings.Contains(out, "status 429, refused (rate_limit_exceeded)") {
		t.Errorf("a refusal:\n%s", out)
	}
	if out = g.cli(1, "explain", "req_0"); !strings.Contains(out, "remembers no finished request") {
		t.Errorf("an unknown one:\n%s", out)
	}
	for flag, want := range map[string]string{"--team": "no team of that name", "--upstream": "no upstream of that name"} {
		if out = g.cli(1, "limits", flag, "nobody"); !strings.Contains(out, want) {
			t.Errorf("limits %s nobody:\n%s", flag, out)
		}
	}
	out = g.cli(0, "limits")
	for _, want := range []string{"team/search/requests/1m0s  0     1", "refuse", "up/*    0          1.00   breaker closed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
