package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// covers SEC-04: every route is listed here with who may use it; a new one without
// a row fails.
func TestEveryRouteHasARole(t *testing.T) {
	open := map[string]bool{
		"GET /healthz": true, "GET /readyz": true, "GET /metrics": false,
		"GET /debug/pprof/": false, "POST /admin/test": false, "GET /debug/pprof/trace": false, "GET /debug/pprof/symbol": false, "GET /debug/pprof/profile": false,
	}
	c := Config{Tokens: []Token{{"ci", "another-admin-token"}, {"admin", "secret-admin-token"}}, Pprof: true, Ready: func() bool { return true }, Gatherer: prometheus.NewRegistry(),
		API: []Route{{"POST /admin/test", false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reply(w, 200, Actor(r)) })}}}
	h := Handler(c)
	for _, r := range Routes(c) {
		isOpen, listed := open[r.Pattern]
		if !listed {
			t.Errorf("%s has no row in this table", r.Pattern)
			continue
		}
		for token, may := range map[string]bool{"": isOpen, "Bearer wrong": isOpen, "Basic secret-admin-token": isOpen, "Bearer secret-admin-token": true} {
			if may && strings.Contains(r.Pattern, "profile") || may && strings.Contains(r.Pattern, "trace") {
				continue // would run for seconds
			}
			method, path, _ := strings.Cut(r.Pattern, " ")
			req := httptest.NewRequest(method, path, nil)
			req.Header.Set("Authorization", token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if (w.Code != http.StatusUnauthorized) != may {
				t.Errorf("%s with %q: %d", r.Pattern, token, w.Code)
			}
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/chat/completions", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("an unlisted path answered %d", w.Code)
	}
}

func TestReadiness(t *testing.T) {
	ready := true
	h := Handler(Config{Ready: func() bool { return ready }, Gatherer: prometheus.NewRegistry()})
	get := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code
	}
	if get() != 200 {
		t.Error("not ready")
	}
	ready = false
	if get() != 503 {
		t.Error("still ready")
	}
}
