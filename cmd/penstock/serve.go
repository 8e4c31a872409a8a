package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"penstock/admin"
	"penstock/config"
)

type serveCommand struct {
	Config string `placeholder:"FILE" short:"c" env:"PENSTOCK_CONFIG" help:"Configuration file; zero configuration from the environment when absent." type:"path"`
}

// Run serves until the context ends, then drains.
func (c *serveCommand) Run(env *environment) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anything that takes time: until then it would end the process
	defer signal.Stop(hup)
	cfg, err := loadConfig(c.Config, env)
	if err != nil {
		return err
	}
	g, err := newGateway(cfg, env)
	if err != nil {
		return err
	}
	if c.Config != "" {
		g.reloads(c.Config, env, hup)
	} else {
		g.worker("signals", func() { g.nothingToReload(hup) })
		if hint := config.EnvironmentHint(env.getenv); hint != "" {
			g.log.Warn(hint)
		}
	}
	return g.serve(env.ctx)
}

// A gateway is the running process: its parts, listeners and background work.
type gateway struct {
	*parts
	cfg  *config.Config
	data *http.Server
	adm  *http.Server // nil when switched off
	lis  net.Listener
	alis net.Listener

	work   sync.WaitGroup // background goroutines, which end with life
	life   context.Context
	finish context.CancelFunc
}

// newGateway builds everything and binds the listeners.
func newGateway(cfg *config.Config, env *environment) (*gateway, error) {
	tuneRuntime(env.getenv)
	p, err := buildParts(cfg, env)
	if err != nil {
		return nil, err
	}
	g := &gateway{parts: p, cfg: cfg}
	g.life, g.finish = context.WithCancel(context.Background())
	if g.lis, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w; give another address by listen in the file, by PENSTOCK_LISTEN without one, or by --listen for the demo", err), p.close())
	}
	g.lis = boundListener(g.lis, connections(cfg))
	g.data = &http.Server{
		Handler: dataHandler(p.proxy, g.ready), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second,
		MaxHeaderBytes: maxHeader, BaseContext: func(net.Listener) context.Context { return p.proxy.Context() }, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	if cfg.Admin.Listen == "off" {
		return g, nil
	}
	if g.alis, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		g.lis.Close()
		return nil, errors.Join(fmt.Errorf("admin.listen: %w; give another address, or off, by admin.listen in the file, by PENSTOCK_ADMIN_LISTEN without one, or by --admin for the demo", err), p.close())
	}
	g.adm = &http.Server{Handler: admin.Handler(p.adminConfig(cfg, g.ready)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: g.data.IdleTimeout, ErrorLog: g.data.ErrorLog}
	return g, nil
}

// maxHeader bounds what a connection can hold before anybody knows who it is, in
// bytes.
const maxHeader = 32 << 10

// ready reports whether load balancers should send requests.
func (g *gateway) ready() bool { return g.life.Err() == nil && !g.proxy.Leaving() }

// serve runs until ctx ends or a listener fails, then drains.
func (g *gateway) serve(ctx context.Context) error {
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may leave; requests go on
	g.worker("teams", func() { g.teams.Run(g.life) })
	if g.ledger != nil {
		g.worker("budgets", func() { g.watchBudgets(g.life) })
	}
	failed := make(chan error, 2)
	g.start(g.data, g.lis, failed)
	if g.adm != nil {
		g.start(g.adm, g.alis, failed)
	}
	g.announce()
	select {
	case <-ctx.Done():
		g.drain()
		return g.close()
	case err := <-failed:
		g.stop()
		return errors.Join(err, g.close())
	}
}

// worker runs f in the background until the gateway ends. A panic in it ends neither
// the process nor the work: it is counted and logged, and f begins again.
func (g *gateway) worker(name string, f func()) {
	g.work.Go(func() {
		for g.panics(name, f) && g.life.Err() == nil {
			select {
			case <-g.life.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

func (g *gateway) panics(name string, f func()) (yes bool) {
	defer func() {
		if v := recover(); v != nil {
			yes = true
			g.metrics.Panicked()
			g.log.Error("panic in the background", "worker", name, "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
		}
	}()
	f()
	return false
}

func (g *gateway) start(s *http.Server, l net.Listener, failed chan<- error) {
	g.work.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
}

func (g *gateway) announce() {
	admin := "off"
	if g.alis != nil {
		admin = g.alis.Addr().String()
	}
	names := slices.Sorted(maps.Keys(g.cfg.Upstreams))
	g.log.Info("penstock is listening", "version", version, "listen", g.lis.Addr().String(), "admin", admin,
		"base_url", "http://"+g.lis.Addr().String()+"/v1", "upstreams", names)
}

// drain lets what is under way finish: readiness fails first, then, after the
// configured pause, nothing new is admitted; at the limit the rest is told and cut.
func (g *gateway) drain() {
	g.proxy.Leave()
	g.log.Info("draining", "in_flight", g.proxy.InFlight(), "delay", time.Duration(g.cfg.Drain.Delay).String(), "limit", time.Duration(g.cfg.Drain.Limit).String())
	time.Sleep(time.Duration(g.cfg.Drain.Delay)) //nolint:forbidigo // a second signal ends the process
	g.proxy.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(g.cfg.Drain.Limit))
	defer cancel()
	if err := g.quiet(ctx); err != nil {
		n := g.proxy.Cut()
		g.log.Warn("drain limit reached: the requests still under way are cut", "cut", n)
		last, done := context.WithTimeout(context.Background(), 2*time.Second)
		_ = g.quiet(last)
		done()
	}
	g.stop()
	g.log.Info("stopped")
}

// quiet waits until no request is under way and no WebSocket is open.
func (g *gateway) quiet(ctx context.Context) error {
	if err := g.data.Shutdown(ctx); err != nil {
		return err
	}
	return g.proxy.AwaitSessions(ctx)
}

// stop closes what is left and waits for every goroutine.
func (g *gateway) stop() {
	g.finish()
	g.proxy.Cut()
	_ = g.data.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = g.proxy.AwaitSessions(ctx)
	if g.adm != nil {
		_ = g.adm.Close()
	}
	g.work.Wait()
}

// reloads loads the configuration again on SIGHUP and when its files change. The
// watch waits for each, so that it sees the files that the new one names.
func (g *gateway) reloads(path string, env *environment, hup <-chan os.Signal) {
	var loading, naming sync.Mutex
	files := append([]string{path}, g.cfg.SecretFiles()...)
	reload := func() {
		loading.Lock()
		defer loading.Unlock()
		if cfg := g.reload(path, env); cfg != nil {
			naming.Lock()
			defer naming.Unlock()
			files = append([]string{path}, cfg.SecretFiles()...)
		}
	}
	g.worker("watch", func() {
		err := config.WatchFiles(g.life, func() []string {
			naming.Lock()
			defer naming.Unlock()
			return files
		}, reload)
		if err != nil {
			g.log.Error("the configuration is not watched any more; send SIGHUP after a change", "error", err.Error())
		}
	})
	g.worker("reload", func() {
		for {
			select {
			case <-g.life.Done():
				return
			case <-hup:
				reload()
			}
		}
	})
}

// nothingToReload answers SIGHUP where there is no file.
func (g *gateway) nothingToReload(hup <-chan os.Signal) {
	for {
		select {
		case <-g.life.Done():
			return
		case <-hup:
			g.log.Warn("SIGHUP: there is no configuration file to load again; the environment of a process changes only with a restart")
		}
	}
}

// reload loads, validates and swaps, or leaves everything as it is. It returns the
// new configuration, or nil.
func (g *gateway) reload(path string, env *environment) *config.Config {
	cfg, err := config.Reload(path, env.getenv)
	if err == nil {
		err = g.apply(cfg)
	}
	g.metrics.Reloaded(err)
	if err != nil {
		g.log.Error("the new configuration is refused; the old one stays in force", "error", err.Error())
		return nil
	}
	if cfg.Listen != g.cfg.Listen || !reflect.DeepEqual(cfg.Admin, g.cfg.Admin) {
		g.log.Warn("listen and admin take effect at the next start")
	}
	if cfg.Database != g.cfg.Database || cfg.Usage != g.cfg.Usage {
		g.log.Warn("database and usage take effect at the next start")
	}
	g.log.Info("configuration reloaded")
	return cfg
}
