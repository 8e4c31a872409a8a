// Package admin serves the admin listener: metrics, health, readiness, profiles
// and the admin API. Nothing of it but health and readiness is ever served to
// clients.
package admin

import (
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says who may see what.
type Config struct {
	Tokens      []Token // bearer tokens; none asks for none
	OpenMetrics bool    // metrics without a token
	Pprof       bool
	Ready       func() bool
	Detail      func() string // said beside it, but not a reason to be unready; nil for none
	Gatherer    prometheus.Gatherer
	API         []Route // the admin API; its paths begin with /admin/
}

// A Route is one path of the listener and who may use it.
type Route struct {
	Pattern string // as http.ServeMux takes it: method and path
	Open    bool   // without a token
	Handler http.Handler
}

// Routes lists everything that the listener serves. What is not in it is 404.
func Routes(c Config) []Route {
	routes := []Route{
		{"GET /healthz", true, http.HandlerFunc(Healthz)},
		{"GET /readyz", true, Readyz(c.Ready, c.Detail)},
		{"GET /metrics", c.OpenMetrics, promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true})},
	}
	if c.Pprof {
		routes = append(routes,
			Route{"GET /debug/pprof/", false, http.HandlerFunc(pprof.Index)},
			Route{"GET /debug/pprof/profile", false, http.HandlerFunc(pprof.Profile)},
			Route{"GET /debug/pprof/trace", false, http.HandlerFunc(pprof.Trace)},
			Route{"GET /debug/pprof/symbol", false, http.HandlerFunc(pprof.Symbol)},
		)
	}
	return append(routes, c.API...)
}

// Handler serves the routes.
func Handler(c Config) http.Handler {
	mux, g := http.NewServeMux(), newGuard(c.Tokens)
	for _, r := range Routes(c) {
		h := r.Handler
		if !r.Open {
			h = g.protect(h)
		}
		mux.Handle(r.Pattern, h)
	}
	for path, methods := range methods(c.API) {
		mux.Handle(path, g.protect(otherMethod(strings.Join(methods, ", "))))
	}
	mux.Handle("/admin/", g.protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fail(w, &Error{Status: http.StatusNotFound, Code: "unknown_path", Message: "the admin API has no such path; docs/keys.md, docs/usage.md and docs/explain.md list those it has"})
	})))
	return mux
}

// methods lists what the routes take, by their path.
func methods(routes []Route) map[string][]string {
	all := map[string][]string{}
	for _, r := range routes {
		method, path, _ := strings.Cut(r.Pattern, " ")
		all[path] = append(all[path], method)
	}
	return all
}

// otherMethod refuses what a path does not take.
func otherMethod(allow string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		fail(w, &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Message: "this path takes " + allow})
	})
}

// Healthz says that the process is alive.
func Healthz(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// Readyz says whether requests are accepted, and a detail beside it. It depends on
// no upstream and no store.
func Readyz(ready func() bool, detail func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
		if detail == nil {
			return
		}
		if text := detail(); text != "" {
			_, _ = w.Write([]byte(text + "\n"))
		}
	}
}
