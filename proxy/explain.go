package proxy

import (
	"errors"
	"sync"
	"time"

	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
)

// notes are what an explanation needs to know of a request besides its record.
// They refer to what exists anyway, and belong to the request's goroutine.
type notes struct {
	plan    []*provider.Target // in the order of the route
	lease   *limits.Lease      // of the caller's limits that refuse
	refusal *limits.Exceeded
	tried   []tried
	passed  []passed
	first   [1]tried // most requests need one
}

// A tried is one attempt.
type tried struct {
	target *provider.Target
	grant  *limits.Grant
	result string // "ok", or the code of the failure
}

// A passed is a target that was not tried because of its state.
type passed struct {
	target string
	reason string
	left   time.Duration // until it may be tried again, 0 where that is not known
}

// Reasons for which a target is passed by.
const (
	passedOpen   = "breaker_open"
	passedParked = "parked_credential"
)

// pass notes that a target is not tried now.
func (n *notes) pass(target, reason string, left time.Duration) {
	for i := range n.passed {
		if n.passed[i].target == target && n.passed[i].reason == reason {
			return
		}
	}
	n.passed = append(n.passed, passed{target, reason, left})
}

// try notes an attempt that begins.
func (n *notes) try(target *provider.Target, grant *limits.Grant) {
	if n.tried == nil {
		n.tried = n.first[:0]
	}
	n.tried = append(n.tried, tried{target: target, grant: grant})
}

// tell notes how the last attempt ended.
func (n *notes) tell(err error) {
	t := &n.tried[len(n.tried)-1]
	if err == nil {
		t.result = "ok"
		return
	}
	var (
		e    *provider.Error
		open *breaker.OpenError
	)
	switch {
	case errors.As(err, &e):
		t.result = e.Code
	case errors.As(err, &open):
		t.result = passedOpen
	default:
		t.result = "cancelled"
	}
}

// refused counts a refusal by a limit or the queue, and keeps it.
func (x *exchange) refused(err error) {
	x.p.refused(err, x.team.Name)
	errors.As(err, &x.notes.refusal)
}

// A trace is the copy of a finished request that explanations are made of. Its
// slices are used again by the request that takes its place.
type trace struct {
	rec     record
	ended   time.Time
	took    time.Duration
	plan    []string
	caller  []limits.Entry
	tried   []traceTry
	passed  []passed
	refusal *limits.Exceeded
}

type traceTry struct {
	target, result string
	waited         time.Duration
	held           []limits.Hold
	entries        []limits.Entry
}

// fill copies what is known of a request. Nothing of it refers to the request any
// more.
func (t *trace) fill(x *exchange, took time.Duration) {
	n := &x.notes
	t.rec, t.ended, t.took = x.rec, time.Now(), took
	t.rec.cut, t.rec.target = nil, nil
	t.plan, t.caller, t.passed, t.refusal = t.plan[:0], t.caller[:0], append(t.passed[:0], n.passed...), n.refusal
	for _, target := range n.plan {
		t.plan = append(t.plan, target.State)
	}
	if n.lease != nil {
		t.caller = n.lease.Entries(t.caller)
	}
	tries := t.tried[:0]
	for _, a := range n.tried {
		var to traceTry
		if len(tries) < cap(tries) {
			to = tries[:len(tries)+1][len(tries)] // its entries' memory
		}
		to.target, to.result, to.waited, to.held = a.target.State, a.result, a.grant.Waited, a.grant.Held
		to.entries = a.grant.Entries(to.entries[:0])
		tries = append(tries, to)
	}
	t.tried = tries
}

// recent remembers the last requests, and apart from them the last ones to which
// something happened, so that the many that went well do not wash those away.
type recent struct{ plain, notable ring }

// A ring holds the last traces. Its memory comes as it fills.
type ring struct {
	mu     sync.Mutex
	traces []*trace
	next   int
}

// notableWait is how long a request waits in the queue for it to be worth
// remembering longer.
const notableWait = time.Second

// keep copies a finished request, if any are to be kept.
func (r *recent) keep(x *exchange, took time.Duration, most int) {
	if most <= 0 {
		return
	}
	to := &r.plain
	if x.rec.Outcome != "ok" || x.rec.Attempts > 1 || x.rec.Queue > notableWait || len(x.notes.passed) > 0 {
		to = &r.notable
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if len(to.traces) > most { // it was configured smaller
		to.traces, to.next = nil, 0
	}
	if len(to.traces) < most {
		to.traces = append(to.traces, &trace{})
		to.next = len(to.traces) - 1
	}
	to.traces[to.next].fill(x, took)
	to.next = (to.next + 1) % most
}

// find returns the explanation of a request that is remembered.
func (r *recent) find(id string) (*Explanation, bool) {
	for _, from := range []*ring{&r.notable, &r.plain} {
		if e, ok := from.find(id); ok {
			return e, true
		}
	}
	return nil, false
}

func (r *ring) find(id string) (*Explanation, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.traces {
		if t.rec.ID == id {
			return t.explain(), true
		}
	}
	return nil, false
}
