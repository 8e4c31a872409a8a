// Package proxy tells the life of one request: identify, receive, route, admit,
// attempt, commit, relay, settle, record. Start reading at serve.go.
package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"penstock/auth"
	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
	"penstock/route"
	"penstock/telemetry"
	"penstock/tokens"
	"penstock/usage"
)

// A Snapshot is one configuration, ready for use. It is immutable: a request reads
// one at its start and keeps it.
type Snapshot struct {
	Keys      *auth.Keys
	Teams     map[string]*Team
	Routes    *route.Table
	Upstreams map[string]*Upstream
	Gateway   []*limits.Limit // limits of the whole process, which wait
	Prices    *usage.Prices   // nil knows no price
	Settings  Settings
}

// A Team is what the configuration says of a team.
type Team struct {
	Name   string
	Weight int
	Class  limits.Class
	Models []string // patterns of models it may use; nil for all
	Strict bool     // reserve the request's own maximum output
	Limits []*limits.Limit
	Keys   map[string][]*limits.Limit // limits of a key, by its name
	// Unpriced is UnpricedAllow, UnpricedRefuse, or empty to refuse what a budget
	// could not count.
	Unpriced string
}

// An Upstream is what the configuration says of an upstream.
type Upstream struct {
	Name      string
	Adapter   provider.Adapter
	Transport http.RoundTripper
	Timeouts  Timeouts
	Limits    []*limits.Limit            // of the upstream
	Models    map[string][]*limits.Limit // of its models, by the name it knows them by
	Learn     bool
	Output    OutputCount
	// CachedFree says that the provider does not count cached input.
	CachedFree bool
}

// An OutputCount is what a provider counts for output against its limits.
type OutputCount string

// The ways of counting.
const (
	CountActual    OutputCount = "actual"     // what was written
	CountMaxTokens OutputCount = "max_tokens" // the request's own maximum
	CountReserved  OutputCount = "reserved"   // that maximum until the answer has ended, then what was written
	CountAuto      OutputCount = "auto"       // actual, until a target is seen to count the maximum
)

// atStart reports whether a target's provider counts a request's own maximum when
// the request arrives.
func (u *Upstream) atStart(t *limits.Target) bool {
	return u.Output == CountMaxTokens || u.Output == CountReserved || u.Output == CountAuto && t.CountsMaximum()
}

// kept reports whether the provider counted that of a request, and goes on to when its
// answer has ended.
func (u *Upstream) kept(g *limits.Grant) bool {
	return u.Output == CountMaxTokens || u.Output == CountAuto && g.CountedMaximum()
}

// Timeouts are the time limits of an attempt; 0 is none.
type Timeouts struct {
	Headers, FirstToken, Idle time.Duration
	Total, Attempts           time.Duration // from the arrival of the request
	Session                   time.Duration // of a WebSocket, from its opening
}

// Settings are the plain values of a configuration.
type Settings struct {
	MaxBody, MaxUpload, MaxReplay int64 // bytes
	MaxMemory                     int64 // bytes of bodies held at once
	ReadTimeout, WriteTimeout     time.Duration
	Bounds                        openai.Bounds

	MaxAttempts         int
	BaseDelay, MaxDelay time.Duration
	MaxRetryAfter       time.Duration
	Budget, BudgetFloor int64 // percent, attempts

	WaitForProbe bool          // wait for an open breaker's probe instead of refusing
	Keepalive    time.Duration // 0 for none
	Drain        time.Duration // read on this long for a client that left; 0 cancels
	FirstOutput  int64
	Timeouts     Timeouts // of requests before they have an upstream
	AccessLog    bool

	ExplainRequests int  // finished requests that are remembered, plain and notable ones each
	ExplainHeader   bool // explain a request to its client where it asks for that
}

// A Proxy serves the data listener. It is safe for concurrent use.
type Proxy struct {
	snapshot atomic.Pointer[Snapshot]

	store     limits.Store
	queue     *limits.Queue
	breakers  *breaker.Set
	estimator *tokens.Estimator
	metrics   *telemetry.Metrics
	log       *slog.Logger
	ledger    Ledger

	memory   memory
	parking  parking
	recent   recent
	budgets  budgets
	unpriced mentions
	leaving  atomic.Bool
	draining atomic.Bool
	inFlight atomic.Int64
	sessions sync.WaitGroup  // open WebSockets, which net/http does not wait for
	sockets  atomic.Int64    // their number
	life     context.Context // ends when the drain limit has passed
	end      context.CancelCauseFunc

	mu      sync.Mutex
	targets map[string]*limits.Target // by provider.Target.State; outlives reloads
}

// Parts are what a Proxy is built of. They outlive reloads.
type Parts struct {
	Store     limits.Store
	Queue     *limits.Queue
	Breakers  *breaker.Set
	Estimator *tokens.Estimator
	Metrics   *telemetry.Metrics
	Log       *slog.Logger
	Ledger    Ledger // nil for none
}

// A Ledger keeps a row for each finished request. Record never waits.
type Ledger interface{ Record(r *usage.Row) }

// New returns a proxy that serves a snapshot.
func New(parts Parts, s *Snapshot) *Proxy {
	p := &Proxy{
		store: parts.Store, queue: parts.Queue, breakers: parts.Breakers, estimator: parts.Estimator,
		metrics: parts.Metrics, log: parts.Log, ledger: parts.Ledger, targets: make(map[string]*limits.Target),
		budgets: budgets{start: time.Now()},
	}
	p.life, p.end = context.WithCancelCause(context.Background())
	p.Swap(s)
	return p
}

// Swap puts another snapshot in force for the requests that come from now on.
// Levels, breakers and what was learned stay.
func (p *Proxy) Swap(s *Snapshot) {
	p.mu.Lock() // no target is made by the old snapshot meanwhile
	old := p.snapshot.Swap(s)
	for _, t := range p.targets {
		p.configure(s, t)
	}
	p.mu.Unlock()
	if old != nil {
		p.parking.clear() // its keys may be new
	}
	p.queue.Kick()
}

// SwapCallers puts other keys and teams in force and leaves the rest of the
// snapshot. Calls of it and of Swap must not overlap.
func (p *Proxy) SwapCallers(keys *auth.Keys, teams map[string]*Team) {
	s := *p.snapshot.Load()
	s.Keys, s.Teams = keys, teams
	p.snapshot.Store(&s)
	p.queue.Kick()
}

// Teams are the teams in force. They must not be changed.
func (p *Proxy) Teams() map[string]*Team { return p.snapshot.Load().Teams }

// target returns the live state of a target, which all requests for the same
// upstream × model share. A request that is older than the snapshot in force may be
// the first to need it, and it gets the limits in force, as long as they know the
// upstream.
func (p *Proxy) target(s *Snapshot, t *provider.Target) *limits.Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := p.targets[t.State]
	if live == nil {
		live = limits.NewTarget(t.State, t.Upstream, p.store)
		if now := p.snapshot.Load(); now.Upstreams[t.Upstream] != nil {
			s = now
		}
		p.configure(s, live)
		p.targets[t.State] = live
	}
	return live
}

func (p *Proxy) configure(s *Snapshot, t *limits.Target) {
	up := s.Upstreams[t.Upstream]
	if up == nil {
		return // the upstream is gone; requests that know it finish as they began
	}
	model := t.Name[len(t.Upstream)+1:]
	all := append([]*limits.Limit(nil), up.Models[model]...)
	t.Configure(append(all, up.Limits...), up.Learn)
}

// load is how busy a target is.
func (p *Proxy) load(state string) float64 {
	p.mu.Lock()
	t := p.targets[state]
	p.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.Load()
}

// Context is what the contexts of requests have to be made of, as the BaseContext of
// the server that hands them over. It ends when Cut is called.
func (p *Proxy) Context() context.Context { return p.life }

// Leave announces that the process is about to stop: it is not ready any more, and
// answers ask clients to use another connection. Requests are still served.
func (p *Proxy) Leave() { p.leaving.Store(true) }

// Leaving reports whether Leave or Drain was called.
func (p *Proxy) Leaving() bool { return p.leaving.Load() || p.draining.Load() }

// Drain stops admission: requests that come from now on get 503. Those under way
// go on.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Cut ends what is still under way, telling each client so in its stream, and
// returns how many that were.
func (p *Proxy) Cut() int64 {
	n := p.inFlight.Load()
	p.end(errCut)
	return n
}

// InFlight is the number of requests being served.
func (p *Proxy) InFlight() int64 { return p.inFlight.Load() }
