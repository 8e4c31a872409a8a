package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"time"

	"penstock/breaker"
	"penstock/config"
	"penstock/limits"
	"penstock/plainhttp"
	"penstock/provider"
	"penstock/provider/openai"
	"penstock/proxy"
	"penstock/route"
	"penstock/tokens"
)

// A builder turns configurations into snapshots. It keeps what outlives a reload:
// connections, the models that were seen, and the settings that were read.
type builder struct {
	transports map[transportKey]transport
	gate       dialGate
	seen       *route.Seen
	reader     reader
}

// A transport sends requests and keeps connections.
type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

type transportKey struct {
	scheme  string
	connect time.Duration
}

func newBuilder() *builder {
	return &builder{
		transports: make(map[transportKey]transport), gate: newDialGate(descriptors()), seen: route.NewSeen(),
		reader: reader{teams: make(map[string]readTeam), keys: make(map[string]readKey)},
	}
}

func (b *builder) snapshot(c *config.Config, who *callers) (*proxy.Snapshot, error) {
	s := &proxy.Snapshot{
		Keys: who.keys, Teams: who.teams, Upstreams: make(map[string]*proxy.Upstream, len(c.Upstreams)),
		Settings: buildSettings(c), Prices: buildPrices(c),
	}
	if n := c.Gateway.Concurrency; n > 0 {
		s.Gateway = []*limits.Limit{{ID: "gateway/concurrency", Scope: limits.ScopeGateway, Owner: "gateway", Dimension: limits.Concurrency, Amount: n, Burst: n, Wait: true}}
	}
	targets := make(map[string]provider.Target, len(c.Upstreams))
	for name, up := range c.Upstreams {
		t, err := b.target(c, name, up, who.open)
		if err != nil {
			return nil, err
		}
		targets[name] = t
		s.Upstreams[name] = b.upstream(name, up, t.BaseURL.Scheme)
	}
	s.Routes = b.routes(c, targets)
	return s, nil
}

// buildLimits names each limit by its owner, dimension and window, so that a
// reload that changes an amount keeps the level.
func buildLimits(prefix string, scope limits.Scope, owner string, c config.Limits) []*limits.Limit {
	var out []*limits.Limit
	upstream := scope == limits.ScopeUpstream || scope == limits.ScopeModel
	if s := c.Concurrency; s != nil {
		out = append(out, &limits.Limit{
			ID: prefix + "/concurrency", Scope: scope, Owner: owner, Dimension: limits.Concurrency,
			Amount: s.Limit, Burst: s.Limit, Wait: upstream || s.OnLimit != "refuse", Shadow: s.Mode == "shadow",
			OnLoss: limits.ParseOnLoss(s.OnStoreLoss),
		})
	}
	for _, d := range [...]struct {
		dimension limits.Dimension
		rates     config.Rates
	}{{limits.Requests, c.Requests}, {limits.Tokens, c.Tokens}, {limits.InputTokens, c.InputTokens}, {limits.OutputTokens, c.OutputTokens}} {
		for i, r := range d.rates {
			window := time.Duration(r.Per)
			id := fmt.Sprintf("%s/%s/%s", prefix, d.dimension, window)
			if slices.ContainsFunc(out, func(l *limits.Limit) bool { return l.ID == id }) {
				id = fmt.Sprintf("%s#%d", id, i)
			}
			out = append(out, &limits.Limit{
				ID: id, Scope: scope, Owner: owner, Dimension: d.dimension, Amount: int64(r.Limit), Window: window,
				Burst: int64(r.Burst), Wait: upstream || r.OnLimit == "wait", Shadow: r.Mode == "shadow",
				OnLoss: limits.ParseOnLoss(r.OnStoreLoss),
			})
		}
	}
	return append(out, buildBudgets(prefix, scope, owner, c.Budget)...)
}

func (b *builder) target(c *config.Config, name string, up config.Upstream, open bool) (provider.Target, error) {
	base, err := url.Parse(up.BaseURL)
	if err != nil {
		return provider.Target{}, fmt.Errorf("upstreams.%s.base_url: %w", name, err)
	}
	for len(base.Path) > 0 && base.Path[len(base.Path)-1] == '/' {
		base.Path = base.Path[:len(base.Path)-1]
	}
	t := provider.Target{
		Upstream: name, State: name + "/" + route.Any, Label: route.Other, Weight: 1, BaseURL: base,
		Credential: string(up.APIKey), Forward: open && up.APIKey == "",
		StreamUsage: up.StreamUsage == nil || *up.StreamUsage, MaxAnswer: int(c.Relay.MaxAnswer),
	}
	if len(up.Headers) > 0 {
		t.Headers = make(http.Header, len(up.Headers))
		for k, v := range up.Headers {
			t.Headers.Set(k, string(v))
		}
	}
	t.Secrets = openai.SecretsOf(&t)
	return t, nil
}

func (b *builder) upstream(name string, up config.Upstream, scheme string) *proxy.Upstream {
	t := up.Timeouts
	out := &proxy.Upstream{
		Name: name, Adapter: openai.Adapter{}, Transport: b.transport(scheme, duration(t.Connect)), Timeouts: buildTimeouts(t),
		Limits: buildLimits("upstream/"+name, limits.ScopeUpstream, name, up.Limits),
		Models: make(map[string][]*limits.Limit, len(up.Models)), Learn: up.Learn == nil || *up.Learn,
		Output: proxy.OutputCount(up.Accounting.Output), CachedFree: up.Accounting.CachedInput == "free",
	}
	for model, m := range up.Models {
		b.seen.Know(name, model)
		out.Models[model] = buildLimits("upstream/"+name+"/model/"+model, limits.ScopeModel, name+"/"+model, m.Limits)
	}
	return out
}

// routes are those of the configuration or, without any, one for each model that
// an upstream lists, and one to the default upstream for every other.
func (b *builder) routes(c *config.Config, targets map[string]provider.Target) *route.Table {
	table := &route.Table{Routes: make(map[string]route.Route), Default: targets[c.DefaultUpstream], Upstreams: targets, Seen: b.seen}
	if len(c.Models) == 0 {
		for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
			for model := range c.Upstreams[name].Models {
				r := table.Routes[model]
				r.Strategy = route.Ordered
				r.Targets = append(r.Targets, named(targets[name], model, "", 1))
				table.Routes[model] = r
			}
		}
		table.Routes[route.Any] = route.Route{Strategy: route.Ordered, Targets: []provider.Target{table.Default}}
		return table
	}
	for model, r := range c.Models {
		out := route.Route{Strategy: route.Strategy(r.Strategy)}
		for _, t := range r.Targets {
			if model == route.Any {
				target := targets[t.Upstream]
				target.Model, target.Weight = t.Model, max(1, t.Weight)
				out.Targets = append(out.Targets, target)
				continue
			}
			out.Targets = append(out.Targets, named(targets[t.Upstream], model, t.Model, t.Weight))
		}
		table.Routes[model] = out
	}
	return table
}

// named is an upstream as the target of a configured model.
func named(t provider.Target, model, sent string, weight int) provider.Target {
	t.Model, t.Label, t.Weight = sent, model, max(1, weight)
	if sent == "" {
		sent = model
	}
	t.State = t.Upstream + "/" + sent
	return t
}

// transport is shared by upstreams with the same settings. Real providers speak
// HTTP/2; local ones are reached by HTTP/1.1.
func (b *builder) transport(scheme string, connect time.Duration) transport {
	key := transportKey{scheme, connect}
	if t := b.transports[key]; t != nil {
		return t
	}
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second}
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: b.gate.dial(connect, dialer.DialContext), TLSHandshakeTimeout: connect,
		MaxIdleConns: idleConnections(), MaxIdleConnsPerHost: 4096, IdleConnTimeout: 60 * time.Second,
		ForceAttemptHTTP2: scheme == "https", DisableCompression: true,
		MaxResponseHeaderBytes: 256 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	var t transport = base
	if scheme == "http" { // uploads are left to base, of which there are few
		base.MaxIdleConns = max(2, idleConnections()/8)
		t = plainhttp.New(base, idleConnections()-base.MaxIdleConns)
	}
	b.transports[key] = t
	return t
}

func duration(d *config.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}

func buildTimeouts(t config.Timeouts) proxy.Timeouts {
	return proxy.Timeouts{
		Headers: duration(t.Headers), FirstToken: duration(t.FirstToken), Idle: duration(t.Idle),
		Total: duration(t.Total), Attempts: duration(t.Attempts), Session: duration(t.Session),
	}
}

func buildSettings(c *config.Config) proxy.Settings {
	memory := maxMemory(c)
	s := proxy.Settings{
		MaxBody: min(int64(c.Gateway.MaxBody), memory), MaxUpload: int64(c.Gateway.MaxUpload), MaxReplay: min(int64(c.Gateway.MaxReplayBytes), memory),
		MaxMemory: memory, ReadTimeout: time.Duration(c.Gateway.ReadTimeout), WriteTimeout: time.Duration(c.Relay.WriteTimeout),
		Bounds: openai.Bounds{
			MaxOutput: int64(c.Gateway.MaxOutput), MaxChoices: c.Gateway.MaxChoices,
			Image: c.Tokens.Image, Audio: c.Tokens.Audio, File: c.Tokens.File,
		},
		MaxAttempts: c.Retry.MaxAttempts, BaseDelay: time.Duration(c.Retry.BaseDelay), MaxDelay: time.Duration(c.Retry.MaxDelay),
		MaxRetryAfter: time.Duration(c.Retry.MaxRetryAfter), Budget: c.Retry.Budget, BudgetFloor: c.Retry.BudgetFloor,
		WaitForProbe: c.Breaker.OnOpen == "wait", Keepalive: duration(c.Queue.Keepalive), Timeouts: buildTimeouts(c.Timeouts),
		AccessLog:       c.Log.Access == nil || *c.Log.Access,
		ExplainRequests: int(c.Explain.Requests), ExplainHeader: c.Explain.Header,
	}
	if c.Relay.OnDisconnect == "drain" {
		s.Drain = time.Duration(c.Relay.DrainFor)
	}
	return s
}

// maxMemory is what bodies may hold: as configured, and at most three eighths of what
// the process may use, because as much again is garbage between two collections.
func maxMemory(c *config.Config) int64 {
	return min(int64(c.Gateway.MaxMemory), debug.SetMemoryLimit(-1)/8*3)
}

func queueConfig(c *config.Config) limits.QueueConfig {
	q := c.Queue
	out := limits.QueueConfig{PerTeam: q.MaxPerTeam, Total: q.MaxTotal, TeamSize: int64(q.MaxTeamBytes), Size: int64(q.MaxBytes)}
	out.MaxWait[limits.Interactive] = time.Duration(q.MaxWait.Interactive)
	out.MaxWait[limits.Default] = time.Duration(q.MaxWait.Default)
	out.MaxWait[limits.Batch] = time.Duration(q.MaxWait.Batch)
	out.Ceiling[limits.Interactive] = q.Ceiling.Interactive
	out.Ceiling[limits.Default] = q.Ceiling.Default
	out.Ceiling[limits.Batch] = q.Ceiling.Batch
	return out
}

func breakerConfig(c *config.Config) breaker.Config {
	b := c.Breaker
	return breaker.Config{
		Disabled: b.Disabled, Consecutive: b.Consecutive, Ratio: b.Ratio, MinRequests: b.MinRequests,
		Window: time.Duration(b.Window), Open: time.Duration(b.Open), MaxOpen: time.Duration(b.MaxOpen), Probes: b.Probes,
	}
}

func tokensConfig(c *config.Config) tokens.Config {
	return tokens.Config{BytesPerToken: c.Tokens.BytesPerToken, FirstOutput: c.Tokens.FirstOutput}
}
