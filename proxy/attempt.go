package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
)

// An answer is an attempt that succeeded: an upstream's reply, and what is held
// while it is read.
type answer struct {
	*provider.Reply
	target *provider.Target
	up     *Upstream
	grant  *limits.Grant
	watch  watch
	body   watched
	cancel context.CancelCauseFunc
	leave  func() bool // stops the end of the request from ending the attempt; nil where it is its child
	sent   time.Time
	drain  atomic.Int64 // how long the attempt outlives the client, once it is committed

	mu      sync.Mutex
	drained *time.Timer // ends the drain, once it has begun
	closed  bool
}

// end ends the attempt because the request has ended: at once, unless the client
// has left and the answer is to be read on.
func (a *answer) end(cause error) {
	if d := time.Duration(a.drain.Load()); d > 0 && errors.Is(cause, errGone) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.closed {
			a.drained = time.AfterFunc(d, func() { a.cancel(cause) })
		}
		return
	}
	a.cancel(cause)
}

// close ends the attempt. Tokens are settled before; a lease that is still open
// gives everything back.
func (a *answer) close() {
	a.watch.stop()
	a.detach()
	a.mu.Lock()
	a.closed = true
	if a.drained != nil {
		a.drained.Stop()
	}
	a.mu.Unlock()
	a.cancel(errGone)
	_ = a.Body.Close()
	a.grant.Release()
}

func (a *answer) detach() {
	if a.leave != nil {
		a.leave()
	}
}

// tries is what is known of the plan's targets in this request.
type tries struct {
	plan   []*provider.Target
	failed map[*provider.Target]provider.Kind
	last   error
}

// attempt tries targets until one replies. Nothing but keep-alive comments has
// been written to the client yet, so every failure here may still be retried.
func (x *exchange) attempt(plan []*provider.Target, cost limits.Cost) (*answer, error) {
	t := &tries{plan: plan}
	defer x.out.quiet()
	for n := 1; ; n++ {
		candidates, err := x.candidates(t)
		if err != nil {
			return nil, t.result(err)
		}
		grant, target, err := x.queue(candidates, cost)
		if err != nil {
			return nil, t.result(err)
		}
		x.rec.Attempts = n
		x.notes.try(target, grant)
		a, err := x.try(grant, target)
		x.notes.tell(err)
		if err == nil {
			return a, nil
		}
		t.fail(target, err)
		if !x.again(t, target, n) {
			return nil, err
		}
	}
}

func (t *tries) fail(target *provider.Target, err error) {
	if t.failed == nil {
		t.failed = make(map[*provider.Target]provider.Kind)
	}
	t.last, t.failed[target] = err, provider.KindOf(err)
}

// result is what the client is told when no further attempt can be made: the
// upstream's own failure where there was one.
func (t *tries) result(err error) error {
	if t.last != nil && !errors.Is(err, errGone) && !errors.Is(err, errCut) && !errors.Is(err, errTotal) {
		return t.last
	}
	return err
}

// candidates are the targets that may be tried now, the best first: those that
// have not failed, or else those that may recover.
func (x *exchange) candidates(t *tries) ([]*provider.Target, error) {
	for {
		var fresh, parked, again []*provider.Target
		open := time.Duration(0)
		for _, target := range t.plan {
			kind, failed := t.failed[target]
			switch left := x.p.breakers.Left(target.BreakerKey()); {
			case failed && (kind == provider.KindCredential || kind == provider.KindBilling || kind == provider.KindClient):
			case left > 0:
				if open == 0 || left < open {
					open = left
				}
				x.notes.pass(target.State, passedOpen, left)
			case failed:
				again = append(again, target)
			case x.p.parking.parked(target.Upstream) || x.p.parking.parked(target.State):
				parked = append(parked, target)
				x.notes.pass(target.State, passedParked, 0)
			default:
				fresh = append(fresh, target)
			}
		}
		for _, some := range [][]*provider.Target{fresh, again, parked} {
			if len(some) > 0 {
				return some, nil
			}
		}
		if open == 0 {
			return nil, t.last
		}
		if !x.s.Settings.WaitForProbe || time.Until(x.respond) < open {
			return nil, &breaker.OpenError{After: open}
		}
		if err := x.sleep(open); err != nil {
			return nil, err
		}
	}
}

// queue waits for the first of the targets that can start the call.
func (x *exchange) queue(targets []*provider.Target, cost limits.Cost) (*limits.Grant, *provider.Target, error) {
	live := make([]*limits.Target, len(targets))
	for i, t := range targets {
		live[i] = x.p.target(x.s, t)
	}
	ticket, err := x.p.queue.Join(limits.Request{
		Team: x.team.Name, Weight: x.team.Weight, Key: x.rec.Key, Class: x.class,
		Cost: cost, CostAt: x.costAt(cost, targets[0]), Bytes: x.held, MaxWait: x.maxWait(),
		Owner: pick(x.limits, true), Gateway: x.s.Gateway, Targets: live,
	})
	if err != nil {
		x.refused(err)
		return nil, nil, err
	}
	grant, err := x.wait(ticket)
	if err != nil {
		x.refused(err)
		return nil, nil, err
	}
	x.shadowed(grant.Lease)
	return grant, targets[slices.Index(live, grant.Target)], nil
}

// wait waits for a turn, with comments to the client meanwhile.
func (x *exchange) wait(ticket *limits.Ticket) (*limits.Grant, error) {
	if ticket.Admitted() {
		return ticket.Wait(x.ctx)
	}
	x.keepAlive()
	began := time.Now()
	grant, err := ticket.Wait(x.ctx)
	x.rec.Queue += time.Since(began)
	x.out.pause()
	if err != nil && x.ctx.Err() != nil {
		err = x.cause()
	}
	return grant, err
}

func (x *exchange) keepAlive() {
	if x.call.Stream && x.call.Op.Stream {
		x.out.keepAlive(x.s.Settings.Keepalive)
	}
}

// costAt is what is known by now of a cost, in each upstream's own accounting:
// answers that ended while the call waited may have changed the prediction.
func (x *exchange) costAt(cost limits.Cost, first *provider.Target) func(*limits.Target) limits.Cost {
	limit := x.maxOutput()
	return func(t *limits.Target) limits.Cost {
		now := cost
		if t != nil && limit > 0 {
			if up := x.s.Upstreams[t.Upstream]; up != nil && up.atStart(t) {
				now.Output, now.Predicted = limit, 0
				return now
			}
		}
		if now.Predicted > 0 {
			now.Output = x.predicted(first, limit)
			now.Predicted = now.Output
		}
		return now
	}
}

// again decides whether another attempt follows a failed one, and waits as long as
// it has to. Slots are free meanwhile.
func (x *exchange) again(t *tries, failed *provider.Target, n int) bool {
	set := &x.s.Settings
	var e *provider.Error
	if !errors.As(t.last, &e) {
		var open *breaker.OpenError // another request took the probe's place
		return errors.As(t.last, &open) && n < set.MaxAttempts
	}
	if !retryable(e) && !e.Missing || n >= set.MaxAttempts || x.call.Rest != nil || x.ctx.Err() != nil {
		return false
	}
	next, err := x.candidates(t)
	if err != nil {
		return false
	}
	for _, c := range next {
		if _, failedToo := t.failed[c]; !failedToo {
			return true // a failover waits for nothing but its own queue
		}
	}
	if e.Missing || e.Kind == provider.KindCredential || e.Kind == provider.KindBilling || e.Final() {
		return false
	}
	delay := x.backoff(n, e)
	if delay > time.Until(x.respond) || e.RetryAfter > set.MaxRetryAfter {
		return false
	}
	if !x.p.budgets.retry(failed.Upstream, set.Budget, set.BudgetFloor) {
		return false
	}
	x.keepAlive()
	defer x.out.pause()
	return x.sleep(delay) == nil
}

// retryStatus are the health failures with a status that are worth another
// attempt.
var retryStatus = map[int]bool{0: true, 408: true, 500: true, 502: true, 503: true, 504: true, 520: true, 521: true, 522: true, 523: true, 524: true}

// retryable reports whether another attempt could end better. A time limit on the
// whole request cannot.
func retryable(e *provider.Error) bool {
	switch e.Kind {
	case provider.KindClient, provider.KindCancelled:
		return false
	case provider.KindHealth:
		return retryStatus[e.Status] && e.Code != "total_timeout" && e.Code != "attempts_timeout"
	}
	return true
}

// backoff is full jitter (AWS Architecture Blog, "Exponential Backoff And
// Jitter"); a stated Retry-After is waited for whole, and a little more.
func (x *exchange) backoff(n int, e *provider.Error) time.Duration {
	if r := e.RetryAfter; r > 0 {
		return r + rand.N(min(r/4, 5*time.Second)+1)
	}
	set := &x.s.Settings
	most := min(set.BaseDelay<<min(n-1, 20), set.MaxDelay)
	if most <= 0 {
		most = set.MaxDelay
	}
	return rand.N(most + 1)
}

// sleep waits, unless the request ends first.
func (x *exchange) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-x.ctx.Done():
		return x.cause()
	}
}

// retrying reports whether the client says that it is repeating a request.
func retrying(h http.Header) bool {
	v := h.Get("X-Stainless-Retry-Count")
	return v != "" && v != "0"
}
