package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"penstock/admin"
	"penstock/breaker"
	"penstock/config"
	"penstock/database"
	"penstock/limits"
	"penstock/limits/redisstore"
	"penstock/proxy"
	"penstock/teams"
	"penstock/telemetry"
	"penstock/tokens"
	"penstock/usage/ledger"
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
	audit     *slog.Logger
	logLevel  *slog.LevelVar
	closeLog  func()

	store  limits.Store
	ledger *ledger.Ledger // nil without one
	db     *database.DB   // nil without one
	teams  *teams.Registry
	shared *redisstore.Store // nil without Redis

	mu     sync.Mutex // held while a snapshot is built and put in force
	config atomic.Pointer[config.Config]
	open   bool // whether the snapshot in force asks for no key
}

func buildParts(cfg *config.Config, env *environment) (*parts, error) {
	p := &parts{builder: newBuilder(), registry: prometheus.NewRegistry()}
	p.log, p.audit, p.logLevel, p.closeLog = newLogger(cfg.Log, env.stderr)
	p.config.Store(cfg)
	if err := p.openTeams(env.ctx, cfg); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.metrics = telemetry.New(p.registry)
	p.openLedger(cfg)
	var err error
	if p.store, err = p.openStore(cfg); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.queue = limits.NewQueue(p.store, queueConfig(cfg))
	p.breakers = breaker.NewSet(breakerConfig(cfg), func(name string, to breaker.State) {
		upstream, _, _ := strings.Cut(name, "/")
		p.metrics.BreakerChanged(upstream, to.String())
		switch to {
		case breaker.Open:
			p.log.Warn("the breaker is open: requests go to other upstreams or get 503 until a probe succeeds", "target", name)
		case breaker.Closed:
			p.log.Info("the breaker is closed again", "target", name)
		}
	})
	p.estimator = tokens.New(tokensConfig(cfg))
	s, open, err := p.snapshot(cfg)
	p.open = open
	if err == nil {
		err = p.restore(env.ctx, s.Teams)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.proxy = proxy.New(proxy.Parts{Store: p.store, Ledger: p.recorder(), Queue: p.queue, Breakers: p.breakers, Estimator: p.estimator, Metrics: p.metrics, Log: p.log}, s)
	p.registry.MustRegister(p.proxy.Gauges(version), p.teamGauges(), p.ledgerGauges(), p.storeGauges())
	if p.shared != nil {
		p.teams.Announce = p.shared
		p.shared.Run(p.queue.Kick)
	}
	return p, nil
}

// close closes what buildParts has opened.
func (p *parts) close() error {
	defer p.closeLog()
	errs := []error{p.closeLedger()}
	if p.queue != nil {
		p.queue.Close()
	}
	if p.shared != nil {
		errs = append(errs, p.shared.Close())
	}
	if p.db != nil {
		errs = append(errs, p.db.Close())
	}
	return errors.Join(errs...)
}

// snapshot builds the snapshot of a configuration, with the teams and keys that are
// in force. It reports whether no key is asked for.
func (p *parts) snapshot(cfg *config.Config) (s *proxy.Snapshot, open bool, err error) {
	who := p.builder.callers(cfg, p.teams.Set())
	p.complain(who)
	s, err = p.builder.snapshot(cfg, who)
	return s, who.open, err
}

// apply puts another configuration in force.
func (p *parts) apply(cfg *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	file, err := fileTeams(cfg)
	if err != nil {
		return err
	}
	s, open, err := p.snapshot(cfg)
	if err != nil {
		return err
	}
	if err := p.teams.SetFile(file); err != nil {
		return err
	}
	p.open = open
	p.config.Store(cfg)
	p.queue.Configure(queueConfig(cfg))
	p.breakers.Configure(breakerConfig(cfg))
	p.estimator.Configure(tokensConfig(cfg))
	p.logLevel.Set(logLevel(cfg.Log))
	if p.shared != nil && cfg.Redis != nil {
		p.shared.SetOnLoss(limits.ParseOnLoss(cfg.Redis.OnStoreLoss))
	}
	p.proxy.Swap(s)
	p.remember(s.Teams)
	return nil
}

// dataHandler is the edge that clients meet. Everything but health belongs to the
// proxy.
func dataHandler(p *proxy.Proxy, ready func() bool) http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	probes := []string{http.MethodGet, http.MethodHead}
	e.Match(probes, "/healthz", echo.WrapHandler(http.HandlerFunc(admin.Healthz)))
	e.Match(probes, "/readyz", echo.WrapHandler(admin.Readyz(ready, nil)))
	serve := func(c echo.Context) error {
		p.ServeHTTP(c.Response().Writer, c.Request())
		return nil
	}
	e.Any("/*", serve)
	e.HTTPErrorHandler = func(_ error, c echo.Context) { // the router knows no such method or path
		if c.Response().Committed {
			return
		}
		c.Response().Header().Del("Allow")
		_ = serve(c) // refuses it, under an id, and counts it
	}
	return e
}

// adminConfig is everything that the admin listener serves, and to whom.
func (p *parts) adminConfig(cfg *config.Config, ready func() bool) admin.Config {
	api := (&admin.TeamsAPI{Registry: p.teams, Log: p.log, Audit: p.audit}).Routes()
	use := &admin.UsageAPI{Log: p.log}
	if p.ledger != nil {
		use.DB, use.Ledger = p.db, p.ledger
	}
	api = append(api, use.Routes()...)
	explain := &admin.ExplainAPI{
		Explain: func(id string) (any, bool) { return p.proxy.Explain(id) },
		Limits: func(ctx context.Context, team, upstream string) (any, error) {
			live, err := p.proxy.Live(ctx, proxy.LiveFilter{Team: team, Upstream: upstream})
			switch {
			case errors.Is(err, proxy.ErrUnknownTeam):
				err = admin.UnknownTeam()
			case errors.Is(err, proxy.ErrUnknownUpstream):
				err = admin.UnknownUpstream()
			}
			return live, err
		},
	}
	api = append(api, explain.Routes()...)
	return admin.Config{
		Tokens: adminTokens(cfg.Admin), OpenMetrics: cfg.Admin.OpenMetrics, Pprof: cfg.Admin.Pprof, Ready: ready, Detail: p.storeDetail, Gatherer: p.registry,
		API: api,
	}
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

// newLogger returns the log, and the audit log: the same lines, whatever the level.
func newLogger(c config.Log, w io.Writer) (log, audit *slog.Logger, level *slog.LevelVar, closeLog func()) {
	level = &slog.LevelVar{}
	level.Set(logLevel(c))
	to := func(w io.Writer, l slog.Leveler) *slog.Logger {
		options := &slog.HandlerOptions{Level: l}
		if c.Format == "text" {
			return slog.New(slog.NewTextHandler(w, options))
		}
		return slog.New(slog.NewJSONHandler(w, options))
	}
	out := newLogWriter(w, func(lines int64) []byte {
		var b bytes.Buffer
		to(&b, slog.LevelWarn).Warn("lines of the log are missing here; it was not written as fast as they came", "lines", lines)
		return b.Bytes()
	})
	handler := func(l slog.Leveler) *slog.Logger { return to(out, l) }
	return handler(level), handler(slog.LevelInfo), level, out.close
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
