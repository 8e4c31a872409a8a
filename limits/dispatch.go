package limits

import (
	"context"
	"time"
)

// closed are the limits and targets on which a better-placed request waits in
// this pass. They are few, so a slice serves.
type closed struct {
	limits  []*Limit
	targets []*Target
	wake    time.Duration // when the first of them may open, 0 when unknown
	pool    bool          // the whole pool is closed
	turn    string        // team that goes first, because the store says so
}

func (c *closed) soon(after time.Duration) {
	if after > 0 && (c.wake == 0 || after < c.wake) {
		c.wake = after
	}
}

func (c *closed) hasTarget(t *Target) bool {
	for _, x := range c.targets {
		if x == t {
			return true
		}
	}
	return false
}

// has is the closed limit among the charges, or nil.
func (c *closed) has(charges []Charge) *Limit {
	for i := range charges {
		for _, l := range c.limits {
			if l.ID == charges[i].Limit.ID {
				return l
			}
		}
	}
	return nil
}

// idle reports whether nobody waits where the request could start.
func (q *Queue) idle(w *waiter) bool {
	for _, t := range w.Targets {
		if q.pool(t.Upstream).count > 0 {
			return false
		}
	}
	return true
}

// startAny starts a request that nobody is ahead of.
func (q *Queue) startAny(w *waiter, asked *refused) bool {
	var c closed
	asked.changes = q.changes
	for _, t := range w.Targets {
		// Others may have come while a store was asked, and go first.
		if q.start(w, q.pool(t.Upstream), t, &c) && w.settled() {
			return true
		}
	}
	// A store of this process answers at once, and its answer is not worth keeping.
	asked.known, asked.wake = q.remote, c.wake
	return false
}

// dispatch lets everybody start who can, after a change.
func (q *Queue) dispatch() {
	q.changes++
	for _, p := range q.pools {
		if p.count > 0 {
			q.pass(p)
		}
	}
}

// pass goes through the waiters of a pool. One pass is under way at a time: what
// changes meanwhile makes it go through them again. Over a remote store it goes on
// in the background, since a round trip is not the business of whoever caused it.
func (q *Queue) pass(p *pool) {
	switch {
	case p.passing:
		p.again = true
	case !q.remote:
		q.passes(p)
	case !q.closed:
		p.passing = true
		q.work.Go(func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.passes(p)
		})
	}
}

func (q *Queue) passes(p *pool) {
	p.passing = true
	for p.again = true; p.again; {
		p.again = false
		q.passOnce(p)
	}
	p.passing = false
}

// passOnce goes through the waiters of a pool in fair order.
func (q *Queue) passOnce(p *pool) {
	var c closed
	for class := range p.class {
		for q.passLane(p, &p.class[class], &c) {
		}
		if c.pool {
			break
		}
	}
	p.arm(q, c.wake)
}

// passLane starts the first request of a class that can start, and reports
// whether to go through the class again. The lists may change while a store is
// asked, so it goes through copies.
func (q *Queue) passLane(p *pool, l *lane, c *closed) bool {
	p.teams = append(p.teams[:0], l.order()...)
	if t := l.teams[c.turn]; t != nil {
		p.teams = append(append(p.teams[:0], t), l.waiting...)
	}
	for _, t := range p.teams {
		p.flows = append(p.flows[:0], t.order()...)
		for _, f := range p.flows {
			if len(f.entries) == 0 {
				continue
			}
			w := f.entries[0].w
			for _, target := range w.Targets {
				if target.Upstream == p.name && q.start(w, p, target, c) {
					return true
				}
				if c.pool {
					return false
				}
			}
		}
	}
	return false
}

// start admits a waiter to a target if all limits allow it. It settles the waiter,
// by a grant or by the store's error. It reports whether the order of those who
// wait has changed.
func (q *Queue) start(w *waiter, p *pool, t *Target, c *closed) bool {
	if w.asking { // here again after the answer
		w.missed = append(w.missed, p)
		return false
	}
	if w.settled() {
		return false
	}
	if c.hasTarget(t) {
		w.hold(t, nil)
		return false
	}
	if pause := t.Paused(); pause > 0 {
		w.hold(t, nil)
		c.targets = append(c.targets, t)
		c.soon(pause)
		return false
	}
	headroom, cost, own := q.headroom(p, w.Class), w.costAt(t), w.costAt(nil)
	charges := appendCharges(w.few[:0], w.Owner, own)
	charges, never := t.charges(charges, cost, headroom)
	if never != nil {
		return false // the limit shrank meanwhile; the deadline ends the wait
	}
	charges = appendCharges(charges, w.Gateway, own)
	if l := c.has(charges); l != nil {
		w.hold(t, l)
		return false
	}
	w.price = max(1, t.likely(cost, Tokens))
	id := nextID()
	v, err := q.take(w, p, id, charges)
	switch {
	case w.settled():
		if err == nil && v.OK {
			giveBack(q.store, id, charges)
		}
		return true
	case err != nil:
		q.settle(w, nil, err)
		return true
	case !v.OK:
		w.hold(t, v.By)
		if headroom > 0 {
			c.soon(headroomFor) // nobody tells when the higher class is done
		}
		return c.close(v, &p.class[w.Class])
	}
	c.turn = ""
	now := time.Now()
	l := &w.lease
	l.store, l.id, l.start, l.charges, l.reserved, l.of = q.store, id, now, charges, cost, w
	w.pool = p
	t.started()
	p.served(w)
	w.given = Grant{Lease: l, Target: t, Waited: now.Sub(w.joined), Held: w.held}
	q.settle(w, &w.given, nil)
	return true
}

// take asks the store for a waiter. A remote one is asked without the lock; the
// waiter may have left by the time it answers.
func (q *Queue) take(w *waiter, p *pool, id uint64, charges []Charge) (Verdict, error) {
	if !q.remote {
		return q.store.Take(context.Background(), id, nil, charges)
	}
	team, turn := p.turn(w)
	team.owed = 0 // others may ask at the same time
	w.asking = true
	q.mu.Unlock()
	v, err := q.store.Take(context.Background(), id, &turn, charges)
	q.mu.Lock()
	w.asking = false
	if !v.Told {
		team.owed += turn.Owed
	}
	for _, missed := range w.missed {
		q.pass(missed)
	}
	w.missed = nil
	return v, err
}

func appendCharges(dst []Charge, limits []*Limit, cost Cost) []Charge {
	for _, l := range limits {
		n, _ := l.charge(cost)
		dst = append(dst, Charge{Limit: l, N: n})
	}
	return dst
}

// close notes what a better-placed request waits for. A limit that every request
// to the upstream needs closes the whole pool. Where it is the turn of another
// team, and that team waits here too, it goes first: then close reports true.
func (c *closed) close(v Verdict, l *lane) bool {
	c.soon(v.After)
	c.soon(v.Again)
	if t := l.teams[v.Turn]; v.Turn != c.turn && t != nil && len(t.flows) > 0 {
		c.turn = v.Turn
		return true
	}
	c.limits = append(c.limits, v.By)
	if v.By.Scope == ScopeUpstream || v.By.Scope == ScopeGateway {
		c.pool = true
	}
	return false
}

func (q *Queue) settle(w *waiter, g *Grant, err error) {
	q.remove(w)
	w.grant, w.err = g, err
	if w.ready != nil {
		close(w.ready)
	}
}

// ended takes the end of the waiter's lease into account and lets others start.
func (w *waiter) ended(actual Cost) {
	w.given.Target.ended(time.Since(w.lease.start), w.lease.Reserved(), actual)
	q := w.q
	q.mu.Lock()
	defer q.mu.Unlock()
	w.pool.corrected(w, actual)
	q.dispatch()
}

// arm sets the pool's timer for the next refill or end of a pause, or stops it.
func (p *pool) arm(q *Queue, after time.Duration) {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.due = time.Time{}
	if after <= 0 || p.count == 0 || q.closed {
		return
	}
	p.due = time.Now().Add(after)
	if p.timer == nil {
		p.timer = time.AfterFunc(after, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.changes++
			p.due = time.Time{}
			q.pass(p)
		})
		return
	}
	p.timer.Reset(after)
}

// soon sets the timer, unless it goes off sooner anyway.
func (p *pool) soon(q *Queue, after time.Duration) {
	if p.due.IsZero() || time.Until(p.due) > after {
		p.arm(q, after)
	}
}
