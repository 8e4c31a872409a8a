// Package breaker keeps requests from upstreams that are broken: one circuit
// breaker for each upstream × model, on gobreaker's two-step form.
package breaker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Config says when a breaker opens and for how long. The zero Config is not
// usable.
type Config struct {
	Disabled    bool
	Consecutive int64         // failures in a row that open it
	Ratio       int64         // percent of failures within Window that open it
	MinRequests int64         // requests within Window below which Ratio says nothing
	Window      time.Duration // of Ratio
	Open        time.Duration // first time it stays open; doubles with each failed probe
	MaxOpen     time.Duration // longest time it stays open
	Probes      int64         // requests let through at once in half-open
}

// Outcome is how an attempt ended, in the eyes of a breaker.
type Outcome int

// The outcomes.
const (
	Success Outcome = iota
	Failure         // the upstream is at fault: connect error, reset, timeout, 5xx
	Neither         // cancelled, refused for other reasons: says nothing of its health
)

// OpenError refuses an attempt. After is the time left until a probe may go.
type OpenError struct{ After time.Duration }

// Error describes the refusal.
func (e *OpenError) Error() string {
	return fmt.Sprintf("circuit breaker is open for another %v", e.After)
}

// State is where a breaker stands.
type State int

// The states, as they stand in metrics.
const (
	Closed State = iota
	HalfOpen
	Open
)

var stateNames = [...]string{"closed", "half-open", "open"}

// String returns the state's usual name.
func (s State) String() string { return stateNames[s] }

var (
	errFailure = errors.New("failure")
	errNeither = errors.New("neither")
)

// A Breaker guards one upstream × model. It is safe for concurrent use.
type Breaker struct {
	cfg Config
	cb  *gobreaker.TwoStepCircuitBreaker[struct{}]
	// changed hears of transitions; it must not call the breaker.
	changed func(to State)

	mu    sync.Mutex
	until time.Time // open until then
	opens int       // times opened since it was last closed
}

// probeBusy is the Retry-After while a probe is under way.
const probeBusy = time.Second

func newBreaker(cfg Config, changed func(State)) *Breaker {
	b := &Breaker{cfg: cfg, changed: changed}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(cfg.Probes),
		Interval:     cfg.Window,
		BucketPeriod: max(cfg.Window/10, time.Millisecond),
		// The breaker itself opens for the shortest time that jitter can give;
		// until tells the rest.
		Timeout: cfg.Open * 9 / 10,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return int64(c.ConsecutiveFailures) >= cfg.Consecutive ||
				int64(c.Requests) >= cfg.MinRequests && int64(c.TotalFailures)*100 >= int64(c.Requests)*cfg.Ratio
		},
		IsExcluded:    func(err error) bool { return errors.Is(err, errNeither) },
		OnStateChange: func(_ string, _, to gobreaker.State) { b.transition(to) },
	})
	return b
}

// transition runs under gobreaker's lock.
func (b *Breaker) transition(to gobreaker.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch to {
	case gobreaker.StateOpen:
		open := b.cfg.Open << min(b.opens, 20)
		if open > b.cfg.MaxOpen || open <= 0 {
			open = max(b.cfg.MaxOpen, b.cfg.Open)
		}
		jitter := time.Duration((rand.Float64() - 0.5) / 5 * float64(open))
		b.until = time.Now().Add(open + jitter)
		b.opens++
		b.tell(Open)
	case gobreaker.StateHalfOpen:
		b.tell(HalfOpen)
	case gobreaker.StateClosed:
		b.opens = 0
		b.tell(Closed)
	}
}

func (b *Breaker) tell(s State) {
	if b.changed != nil {
		b.changed(s)
	}
}

func (b *Breaker) left() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, time.Until(b.until))
}

// A Pass lets an attempt go. Done must be called when its outcome is known. It is for
// one goroutine.
type Pass struct {
	b     *Breaker        // nil for none
	probe func(err error) // ends a probe; nil for an attempt while the breaker is closed
	done  bool
}

// Done tells the outcome. Calls after the first do nothing.
func (p *Pass) Done(o Outcome) {
	if p.done || p.b == nil {
		return
	}
	if p.done = true; p.probe != nil {
		p.probe(o.err())
		return
	}
	p.b.report(o)
}

// Allow asks for an attempt, or reports *OpenError.
//
// gobreaker drops the outcome of an attempt that takes longer than its window
// (sony/gobreaker#122), and a slow answer is what a breaker must not miss. So
// while it is closed an attempt is reported in one piece when it ends; only probes
// hold a place from beginning to end.
func (b *Breaker) Allow() (Pass, error) {
	if left := b.left(); left > 0 {
		return Pass{}, &OpenError{After: left}
	}
	if b.cb.State() == gobreaker.StateClosed {
		return Pass{b: b}, nil
	}
	probe, err := b.cb.Allow()
	if err != nil {
		return Pass{}, &OpenError{After: max(b.left(), probeBusy)}
	}
	return Pass{b: b, probe: probe}, nil
}

func (b *Breaker) report(o Outcome) {
	if b.cb.State() != gobreaker.StateClosed {
		return // opened meanwhile: only probes may close it
	}
	if done, err := b.cb.Allow(); err == nil {
		done(o.err())
	}
}

func (o Outcome) err() error {
	switch o {
	case Failure:
		return errFailure
	case Neither:
		return errNeither
	}
	return nil
}

// State is the breaker's state now, and the time left while it is open.
func (b *Breaker) State() (State, time.Duration) {
	if left := b.left(); left > 0 {
		return Open, left
	}
	switch b.cb.State() {
	case gobreaker.StateClosed:
		return Closed, 0
	case gobreaker.StateHalfOpen:
		return HalfOpen, 0
	}
	return Open, 0
}

// A Set holds the breakers of all targets by name. It outlives reloads and is safe
// for concurrent use. Names may come from clients: of more than maxBreakers, the one
// that was not asked for the longest is forgotten, and would begin closed.
type Set struct {
	mu      sync.Mutex
	cfg     Config
	all     map[string]*member
	asked   int64 // how often any was asked for
	changed func(name string, to State)
}

type member struct {
	*Breaker
	asked int64 // of the set, when this one was asked for last
}

const maxBreakers = 1024

// NewSet returns a set without breakers; changed, if not nil, hears of every
// transition and must return at once.
func NewSet(cfg Config, changed func(name string, to State)) *Set {
	return &Set{cfg: cfg, all: make(map[string]*member), changed: changed}
}

// Configure applies a new configuration. Breakers keep their state unless it
// differs.
func (s *Set) Configure(cfg Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg != s.cfg {
		s.cfg, s.all = cfg, make(map[string]*member)
	}
}

// Get returns the breaker of that name, or nil when breakers are switched off.
func (s *Set) Get(name string) *Breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Disabled {
		return nil
	}
	m := s.all[name]
	if m == nil {
		if len(s.all) >= maxBreakers {
			s.forget()
		}
		m = &member{Breaker: newBreaker(s.cfg, func(to State) {
			if s.changed != nil {
				s.changed(name, to)
			}
		})}
		s.all[name] = m
	}
	s.asked++
	m.asked = s.asked
	return m.Breaker
}

// forget drops the eighth that was not asked for the longest.
func (s *Set) forget() {
	asked := make([]int64, 0, len(s.all))
	for _, m := range s.all {
		asked = append(asked, m.asked)
	}
	slices.Sort(asked)
	for name, m := range s.all {
		if m.asked <= asked[len(asked)/8] {
			delete(s.all, name)
		}
	}
}

// Allow asks the breaker of that name; with breakers switched off everything is
// allowed.
func (s *Set) Allow(name string) (Pass, error) {
	if b := s.Get(name); b != nil {
		return b.Allow()
	}
	return Pass{}, nil
}

// Report counts the outcome of something that was allowed earlier and reported as
// begun well, such as a stream that broke later.
func (s *Set) Report(name string, o Outcome) {
	if b := s.Get(name); b != nil {
		b.report(o)
	}
}

// Left is how long the breaker of that name stays open, 0 when a request may try.
func (s *Set) Left(name string) time.Duration {
	if b := s.Get(name); b != nil {
		return b.left()
	}
	return 0
}

// Each calls f for every breaker.
func (s *Set) Each(f func(name string, state State)) {
	s.mu.Lock()
	all := make(map[string]*Breaker, len(s.all))
	for name, m := range s.all {
		all[name] = m.Breaker
	}
	s.mu.Unlock()
	for name, b := range all {
		state, _ := b.State()
		f(name, state)
	}
}
