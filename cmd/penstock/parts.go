package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"penstock/admin"
	"penstock/breaker"
	"penstock/config"
	"penstock/limits"
	"penstock/proxy"
	"penstock/telemetry"
	"penstock/tokens"
)

// parts are what the gateway consists of, wired.
type parts struct {
	builder   *builder
	proxy     *proxy.Proxy
	queue     *limits.Queue
	breakers  *breaker.Set
	estimator *tokens.Estimator
	metrics   *telemetry.Metrics
	registry  *prometheus.Registry
	log       *slog.Logger
	logLevel  *slog.LevelVar
	closeLog  func()
}

func buildParts(cfg *config.Config, env *environment) (*parts, error) {
	p := &parts{builder: newBuilder(), registry: prometheus.NewRegistry()}
	p.log, p.logLevel, p.closeLog = newLogger(cfg.Log, env.stderr)
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.metrics = telemetry.New(p.registry)
	store := limits.NewMemory()
	p.queue = limits.NewQueue(store, queueConfig(cfg))
	p.breakers = breaker.NewSet(breakerConfig(cfg), func(name string, to breaker.State) {
		upstream, _, _ := strings.Cut(name, "/")
		p.metrics.BreakerChanged(upstream, to.String())
	})
	p.estimator = tokens.New(tokensConfig(cfg))
	s, err := p.builder.snapshot(cfg)
	if err != nil {
		return nil, err
	}
	p.proxy = proxy.New(proxy.Parts{Store: store, Queue: p.queue, Breakers: p.breakers, Estimator: p.estimator, Metrics: p.metrics, Log: p.log}, s)
	p.registry.MustRegister(p.proxy.Gauges(version))
	return p, nil
}

// apply puts another configuration in force.
func (p *parts) apply(cfg *config.Config) error {
	s, err := p.builder.snapshot(cfg)
	if err != nil {
		return err
	}
	p.queue.Configure(queueConfig(cfg))
	p.breakers.Configure(breakerConfig(cfg))
	p.estimator.Configure(tokensConfig(cfg))
	p.logLevel.Set(logLevel(cfg.Log))
	p.proxy.Swap(s)
	return nil
}

// dataHandler is the edge that clients meet. Everything but health belongs to the
// proxy.
func dataHandler(p *proxy.Proxy, ready func() bool) http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if c.Response().Committed {
			return
		}
		_ = c.JSON(http.StatusNotFound, json.RawMessage(`{"error":{"message":"this path is not an API path; check the base URL, which usually ends in /v1","type":"invalid_request_error","param":null,"code":"unknown_path"}}`))
	}
	e.GET("/healthz", echo.WrapHandler(http.HandlerFunc(admin.Healthz)))
	e.GET("/readyz", echo.WrapHandler(admin.Readyz(ready)))
	serve := func(c echo.Context) error {
		p.ServeHTTP(c.Response().Writer, c.Request())
		return nil
	}
	e.Any("/*", serve)
	return e
}

func adminHandler(cfg *config.Config, g prometheus.Gatherer, ready func() bool) http.Handler {
	return admin.Handler(admin.Config{
		Tokens: adminTokens(cfg.Admin), OpenMetrics: cfg.Admin.OpenMetrics, Pprof: cfg.Admin.Pprof, Ready: ready, Gatherer: g,
	})
}

// adminTokens are the tokens by which the admin listener is used. The one that
// has no name in the configuration is called admin.
func adminTokens(c config.Admin) []admin.Token {
	var all []admin.Token
	if c.Token != "" {
		all = append(all, admin.Token{Name: "admin", Value: string(c.Token)})
	}
	for _, t := range c.Tokens {
		all = append(all, admin.Token{Name: t.Name, Value: string(t.Token)})
	}
	return all
}

// gcPercent trades memory, of which the gateway needs little, for less work.
const gcPercent = 400

func tuneRuntime(getenv func(string) (string, bool)) {
	if _, set := getenv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	if _, set := getenv("GOMEMLIMIT"); !set {
		if n := containerMemory(); n > 0 {
			debug.SetMemoryLimit(n / 10 * 9)
		}
	}
}

func newLogger(c config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar, func()) {
	level := &slog.LevelVar{}
	level.Set(logLevel(c))
	out := newLogWriter(w)
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(out, options)
	if c.Format == "text" {
		h = slog.NewTextHandler(out, options)
	}
	return slog.New(h), level, out.close
}

func logLevel(c config.Log) slog.Level {
	switch c.Level {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
