package limits

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Class is a priority class. A lower number goes first.
type Class uint8

// The classes.
const (
	Interactive Class = iota
	Default
	Batch
	classes
)

var classNames = [...]string{"interactive", "default", "batch"}

// String returns the class's name in the configuration and in metrics.
func (c Class) String() string { return classNames[c] }

// ParseClass returns the class of that name.
func ParseClass(name string) (Class, bool) {
	for i, n := range classNames {
		if n == name {
			return Class(i), true
		}
	}
	return Default, false
}

// headroomFor is how long a class that was seen keeps its headroom from lower
// ones.
const headroomFor = 10 * time.Second

// QueueConfig bounds the queue of each upstream.
type QueueConfig struct {
	MaxWait  [classes]time.Duration
	Ceiling  [classes]int64 // percent of an upstream that a class may fill while a higher one uses it
	PerTeam  int64          // requests of a team
	Total    int64          // requests
	TeamSize int64          // bytes of bodies of a team
	Size     int64          // bytes of bodies
}

// A Request asks to be admitted to the first of Targets that can start it.
type Request struct {
	Team    string
	Weight  int    // the team's share, at least 1
	Key     string // whose turn it is within the team
	Class   Class
	Cost    Cost
	Bytes   int64         // memory held while it waits
	MaxWait time.Duration // bound besides the class's; 0 for none
	Owner   []*Limit      // limits of the key and the team that wait, narrowest first
	Gateway []*Limit      // limits of the gateway
	Targets []*Target     // in order of preference
	// CostAt is what is known by now of the request's cost, which may be less or
	// more than was thought when it came: for a target, whose provider may count in
	// its own way, or for nil in general. A nil CostAt stands for Cost.
	CostAt func(*Target) Cost
}

func (r *Request) costAt(t *Target) Cost {
	if r.CostAt == nil {
		return r.Cost
	}
	return r.CostAt(t)
}

// A Queue shares the capacity of upstreams fairly. A request that cannot start at
// once waits, in order of class, then by start-time fair queueing (Goyal, Vin,
// Cheng 1996) in estimated tokens over teams by weight, and in the same way over
// the keys of a team; requests of one key go by earliest deadline. A limit on
// which a better-placed request waits is closed to those behind it, so nothing
// starves, and what it does not need stays open to them, so nothing idles.
//
// Waiters are woken by what they wait for: the end of a lease, the refill of a
// bucket, the end of a pause. A Queue is safe for concurrent use.
type Queue struct {
	store  Store
	remote bool // the store is asked without mu

	mu    sync.Mutex
	cfg   QueueConfig
	pools map[string]*pool
	// changes counts what may let somebody start, so that a refusal that is older
	// than the last change is not relied on.
	changes uint64
	closed  bool
	work    sync.WaitGroup // passes in the background
}

// NewQueue returns an empty queue over a store. Over a Remote store it works in
// the background, until Close.
func NewQueue(store Store, cfg QueueConfig) *Queue {
	_, remote := store.(Remote)
	return &Queue{store: store, remote: remote, cfg: cfg, pools: make(map[string]*pool)}
}

// Close ends the work in the background. Whoever still waits does so until its
// time is up.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	for _, p := range q.pools {
		p.arm(q, 0)
	}
	q.mu.Unlock()
	q.work.Wait()
}

// Configure replaces the bounds. Those who wait already stay.
func (q *Queue) Configure(cfg QueueConfig) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cfg = cfg
}

// A Ticket is a place in the queue.
type Ticket struct{ waiter }

// A Grant is an admission.
type Grant struct {
	*Lease
	Target *Target
	Waited time.Duration
	Held   []Hold // what it waited for, or could not start at; empty when it only waited its turn
}

// A Hold is what kept a request from starting at a target.
type Hold struct {
	Target string // its state key
	Limit  *Limit // that was used up, or that a better-placed request waits for; nil for a pause
}

// waiter is a request in the queue. All fields but ready are guarded by Queue.mu.
type waiter struct {
	Request
	q        *Queue
	entries  []*entry // one for each upstream
	joined   time.Time
	deadline time.Time
	price    float64       // in fair queueing, as it was when it was last asked for
	asking   bool          // a store is being asked for it
	missed   []*pool       // pools that passed it over meanwhile
	ready    chan struct{} // closed when grant or err is set; nil for whoever was admitted at once
	grant    *Grant
	err      error
	held     []Hold

	// What it is granted, in one piece with it: requests are many.
	given Grant
	lease Lease
	pool  *pool // that admitted it
	few   [6]Charge
}

// maxHeld bounds what is remembered of a wait.
const maxHeld = 8

// hold remembers what keeps the waiter from starting, once.
func (w *waiter) hold(t *Target, l *Limit) {
	h := Hold{t.Name, l}
	if len(w.held) < maxHeld && !slices.Contains(w.held, h) {
		w.held = append(w.held, h)
	}
}

func (w *waiter) settled() bool { return w.grant != nil || w.err != nil }

// Acquire waits until the request is admitted. It reports *Exceeded, or the
// context's error.
func (q *Queue) Acquire(ctx context.Context, r Request) (*Grant, error) {
	t, err := q.Join(r)
	if err != nil {
		return nil, err
	}
	return t.Wait(ctx)
}

// Join takes a place in the queue, or is admitted at once. It reports *Exceeded
// when there is no place, or the wait would be too long. Whoever joins must call
// Wait until it returns something other than ErrWaiting.
func (q *Queue) Join(r Request) (*Ticket, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	t := &Ticket{waiter{Request: r, q: q, joined: now}}
	w := &t.waiter
	if err := q.prune(w); err != nil {
		return nil, err
	}
	wait := q.cfg.MaxWait[r.Class]
	if r.MaxWait > 0 {
		wait = min(wait, r.MaxWait)
	}
	w.deadline = now.Add(wait)
	var asked refused
	if q.idle(w) && q.startAny(w, &asked) {
		return t, nil
	}
	w.ready = make(chan struct{})
	if err := q.enqueue(w, wait, &asked); err != nil {
		return nil, err
	}
	return t, nil
}

// prune drops the targets that can never hold the request.
func (q *Queue) prune(w *waiter) error {
	for _, l := range w.Owner {
		if _, fits := l.charge(w.Cost); !fits {
			return &Exceeded{Reason: ReasonTooLarge, Limit: l, Requested: w.Cost.of(l.Dimension)}
		}
	}
	if len(w.Targets) == 0 {
		return errors.New("limits: a request needs at least one target")
	}
	var never *Limit
	unfit := func(t *Target) bool {
		l := t.never(w.costAt(t))
		if l != nil {
			never = l
		}
		return l != nil
	}
	if !slices.ContainsFunc(w.Targets, unfit) {
		return nil
	}
	first := w.Targets[0]
	w.Targets = slices.DeleteFunc(slices.Clone(w.Targets), unfit)
	if len(w.Targets) == 0 {
		return &Exceeded{Reason: ReasonTooLarge, Limit: never, Upstream: first.Upstream, Requested: w.costAt(first).of(never.Dimension)}
	}
	return nil
}

// refused is what is known of a request that was asked for and refused just now.
type refused struct {
	known   bool
	changes uint64 // of the queue, before
	wake    time.Duration
}

// enqueue gives the request its places and a turn, unless nothing has changed
// since it was refused.
func (q *Queue) enqueue(w *waiter, wait time.Duration, asked *refused) error {
	if err := q.bounded(w); err != nil {
		return err
	}
	q.insert(w)
	if asked.known && asked.changes == q.changes {
		for _, e := range w.entries {
			e.pool.soon(q, asked.wake)
		}
	} else {
		q.dispatch()
	}
	if w.settled() {
		return nil
	}
	if predicted := q.predict(w); predicted > wait {
		q.remove(w)
		w.err = &Exceeded{Reason: ReasonPredicted, Upstream: w.Targets[0].Upstream, RetryAfter: predicted - wait, Held: w.held}
		q.dispatch() // it may have closed a limit to others
		return w.err
	}
	return nil
}

// bounded refuses a request for which no upstream's queue has a place.
func (q *Queue) bounded(w *waiter) error {
	kept := w.Targets[:0:0]
	for _, t := range w.Targets {
		if !q.pool(t.Upstream).full(&q.cfg, w) {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return &Exceeded{Reason: ReasonQueueFull, Upstream: w.Targets[0].Upstream, RetryAfter: max(time.Second, q.predict(w))}
	}
	w.Targets = kept
	return nil
}

// ErrWaiting is what Wait reports when its context ended with it as the cause:
// the request has kept its place, and Wait may be called again.
var ErrWaiting = errors.New("limits: still waiting")

// Admitted reports whether Wait would return at once.
func (t *Ticket) Admitted() bool {
	if t.ready == nil {
		return true
	}
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// Wait waits for the ticket's turn. Unless it reports ErrWaiting, the place is
// given up by the time it returns.
func (t *Ticket) Wait(ctx context.Context) (*Grant, error) {
	w := &t.waiter
	if t.Admitted() {
		return w.grant, w.err
	}
	timer := time.NewTimer(time.Until(w.deadline))
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
		return t.q.leave(w, nil)
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), ErrWaiting) {
			return nil, ErrWaiting
		}
		return t.q.leave(w, context.Cause(ctx))
	}
	return w.grant, w.err
}

// leave gives the place up: because time is up when cause is nil. A request that
// was admitted in the same instant keeps its grant at a timeout, and gives it back
// otherwise.
func (q *Queue) leave(w *waiter, cause error) (*Grant, error) {
	q.mu.Lock()
	if w.settled() {
		q.mu.Unlock()
		if cause == nil || w.grant == nil {
			return w.grant, w.err
		}
		w.grant.Release()
		return nil, cause
	}
	q.remove(w)
	err := cause
	if err == nil {
		err = &Exceeded{
			Reason: ReasonTimeout, Upstream: w.Targets[0].Upstream, Waited: time.Since(w.joined),
			RetryAfter: max(time.Second, q.predict(w)), Held: w.held,
		}
	}
	w.err = err
	q.dispatch()
	q.mu.Unlock()
	return nil, err
}

// Kick looks again at everybody who waits, after something changed that the queue
// could not see: limits, a pause.
func (q *Queue) Kick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dispatch()
}
