package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

// An exchange is one request on its way through the proxy. It belongs to the
// goroutine that serves it.
type exchange struct {
	p      *Proxy
	s      *Snapshot
	out    client
	r      *http.Request
	ctx    context.Context // ends when the client leaves, time is up, or the gateway stops; see cause
	cancel context.CancelCauseFunc
	begin  time.Time
	// respond is when an answer must have begun: the configured time, or the
	// client's own where that is shorter.
	respond time.Time
	hurried bool // the client's was

	team   *Team
	limits []*limits.Limit // of the key and of the team
	call   *provider.Call  // nil until it is received
	called provider.Call   // what call points to
	held   int64           // bytes of bodies that count as held memory
	owed   limits.Cost     // what the caller owes for attempts that nothing came of
	left   bool            // and the provider was at work on the last of them
	// unread says that more of the body may come than has been read.
	unread bool
	upload *upload // what follows the body that was held; nil when that is all
	class  limits.Class
	// kindName is the kind of the call at the target kindOf, kept because it is asked
	// for several times.
	kindOf   *provider.Target
	kindName string
	total    *time.Timer // ends the request
	rec      record
	notes    notes
}

// ServeHTTP serves one request of the data listener.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.start(w, r)
	abort := x.run()
	if abort {
		linger(r.Context())
		panic(http.ErrAbortHandler) // the only way to break a connection off
	}
}

// breakOffAfter is how long a connection that is to be broken off stays open, so that
// the client can read what was written last. Fetch, in Node and in browsers, throws
// away what its reader has not taken when a connection breaks, and with it the
// error that tells why.
const breakOffAfter = 100 * time.Millisecond

func linger(ctx context.Context) {
	timer := time.NewTimer(breakOffAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *Proxy) start(w http.ResponseWriter, r *http.Request) *exchange {
	s := p.snapshot.Load()
	x := &exchange{p: p, s: s, r: r, begin: time.Now()}
	x.ctx, x.cancel = context.WithCancelCause(r.Context())
	x.rec.ID = newID()
	x.out.open(w, x.rec.ID, s.Settings.WriteTimeout)
	x.unread = r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	x.respond = x.begin.Add(or(s.Settings.Timeouts.Attempts, s.Settings.Timeouts.Total, 24*time.Hour))
	return x
}

// end is when the request is over, whatever happens.
func (x *exchange) end() time.Time { return x.begin.Add(or(x.s.Settings.Timeouts.Total, 24*time.Hour)) }

// or is the first of the durations that is not 0.
func or(ds ...time.Duration) time.Duration {
	for _, d := range ds {
		if d > 0 {
			return d
		}
	}
	return 0
}

// cause is why the request ends, or nil.
func (x *exchange) cause() error {
	cause := context.Cause(x.ctx)
	if errors.Is(cause, context.Canceled) { // by the server: it has lost the client
		return errGone
	}
	return cause
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	id := [4 + 2*len(b)]byte{'r', 'e', 'q', '_'}
	hex.Encode(id[4:], b[:])
	return string(id[:])
}

// run handles the request and settles it on every way out, a panic included. It
// reports whether the connection must be broken off.
func (x *exchange) run() (abort bool) {
	p := x.p
	p.inFlight.Add(1)
	p.metrics.Begin()
	x.total = time.AfterFunc(or(x.s.Settings.Timeouts.Total, 24*time.Hour), func() { x.cancel(errTotal) })
	defer func() {
		if v := recover(); v != nil {
			p.metrics.Panicked()
			p.log.Error("panic while serving a request", "request_id", x.rec.ID, "panic", safePanic(v), "stack", string(debug.Stack()))
			abort = x.fail(errInternal)
		}
		x.leaveUnread()
		x.total.Stop()
		x.cancel(nil)
		p.memory.give(x.held)
		x.record()
		p.metrics.End() // whoever sees that nothing is in flight finds all of it counted
		p.inFlight.Add(-1)
	}()
	if err := x.handle(); err != nil {
		abort = x.fail(err)
	}
	return abort
}

// handle tells the life of a request. Errors that it returns are told to the
// client: by a status before the commit, in band after it.
func (x *exchange) handle() error {
	answer, lease, err := x.obtain()
	if answer == nil {
		return err
	}
	defer lease.Release()
	defer answer.close()
	defer x.settle(answer, lease) // also when something panics
	if answer.Status == http.StatusSwitchingProtocols {
		return x.tunnel(answer)
	}
	if _, alive := x.out.written(); alive && !answer.Stream {
		return errNoStream // comments have begun one, in which JSON would be read as nothing
	}
	x.commit(answer)
	return x.relay(answer, lease)
}

// obtain gets an upstream's answer, and the lease of the caller's limits. Without an
// error the answer may be nil: then the client has got another one.
//
// It is not inlined, so that a stream does not hold its frame for as long as it lasts.
// The stack of a request then stays within 8 KiB, where the next size is 16.
//
//go:noinline
func (x *exchange) obtain() (a *answer, lease *limits.Lease, err error) {
	if x.p.draining.Load() {
		return nil, nil, unavailable("shutting_down", "the gateway is shutting down; try again", time.Second)
	}
	x.exposeToPages()
	if done, err := x.preflight(); done || err != nil {
		return nil, nil, err
	}
	if err := x.identify(); err != nil {
		return nil, nil, err
	}
	if err := x.receive(); err != nil {
		return nil, nil, err
	}
	if done, err := x.listModels(); done || err != nil {
		return nil, nil, err
	}
	plan, err := x.route()
	if err != nil {
		return nil, nil, err
	}
	x.notes.plan = plan
	cost := x.estimate(plan[0])
	plan, err = x.price(plan, &cost)
	if err != nil {
		return nil, nil, err
	}
	held, err := x.admit(cost)
	if err != nil {
		return nil, nil, err
	}
	defer func() { // also when something panics
		if a == nil {
			held.Release()
		}
	}()
	if a, err = x.attempt(plan, cost); err != nil {
		x.unanswered(held)
		return nil, nil, err
	}
	return a, held, nil
}

// route finds the targets that may serve the call.
func (x *exchange) route() ([]*provider.Target, error) {
	c := x.call
	if x.team.Models != nil && (c.Op.Unchecked || c.MoreModels || c.Model == "" && c.Op.Model != provider.ModelNone) {
		return nil, errUncheckedModel
	}
	if c.Op.Stored {
		return x.s.Routes.PlanStored(), nil
	}
	if c.Model == "" {
		plan := x.s.Routes.PlanDefault()
		if c.Upgrade {
			plan[0].State = plan[0].Upstream + "/" + openai.NameWebSocket // they last longer than requests do
		}
		return plan, nil
	}
	plan, err := x.s.Routes.Plan(c.Model, x.team.Models, x.p.load)
	if err != nil {
		return nil, err
	}
	x.rec.Model = plan[0].Label
	return plan, nil
}

// admit reserves the cost on the limits of the team and the key that refuse.
// Those that wait are taken together with the upstream's.
func (x *exchange) admit(cost limits.Cost) (*limits.Lease, error) {
	refusing := pick(x.limits, false)
	lease, err := limits.Reserve(x.ctx, x.p.store, refusing, cost)
	if err != nil {
		x.refused(err)
		return nil, err
	}
	x.notes.lease = lease
	x.shadowed(lease)
	return lease, nil
}

// pick returns the limits that wait, or those that refuse.
func pick(all []*limits.Limit, wait bool) []*limits.Limit {
	var out []*limits.Limit
	for i, l := range all {
		if l.Wait != wait {
			continue
		}
		if out == nil {
			out = make([]*limits.Limit, 0, len(all)-i)
		}
		out = append(out, l)
	}
	return out
}

func (x *exchange) shadowed(l *limits.Lease) {
	for _, limit := range l.ShadowRefusals() {
		x.p.metrics.ShadowRefused(limit.Scope.String(), limit.Dimension.String(), x.team.Name)
		x.rec.Shadow = append(x.rec.Shadow, limit.ID)
	}
}
