// Package admin serves the admin listener: metrics, health, readiness and
// profiles. Nothing of it but health and readiness is ever served to clients.
package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says who may see what.
type Config struct {
	Token       string // bearer token; empty asks for none
	OpenMetrics bool   // metrics without the token
	Pprof       bool
	Ready       func() bool
	Gatherer    prometheus.Gatherer
}

// A Route is one path of the listener and who may use it.
type Route struct {
	Pattern string
	Open    bool // without the token
	handler http.Handler
}

// Routes lists everything that the listener serves. What is not in it is 404.
func Routes(c Config) []Route {
	routes := []Route{
		{"GET /healthz", true, http.HandlerFunc(Healthz)},
		{"GET /readyz", true, Readyz(c.Ready)},
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
	return routes
}

// Handler serves the routes.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	for _, r := range Routes(c) {
		h := r.handler
		if !r.Open && c.Token != "" {
			h = guard(c.Token, h)
		}
		mux.Handle(r.Pattern, h)
	}
	return mux
}

// guard asks for the bearer token. Hashes are compared, so that the time taken
// tells nothing of the token or its length.
func guard(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(given))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "admin token required: send Authorization: Bearer <admin.token>", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Healthz says that the process is alive.
func Healthz(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// Readyz says whether requests are accepted. It depends on no upstream.
func Readyz(ready func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	}
}
