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
func (q *Queue) startAny(w *waiter) bool {
	var none closed
	for _, t := range w.Targets {
		if q.start(w, q.pool(t.Upstream), t, &none) {
			return true
		}
	}
	return false
}

// dispatch lets everybody start who can.
func (q *Queue) dispatch() {
	for _, p := range q.pools {
		if p.count > 0 {
			q.pass(p)
		}
	}
}

// pass goes through the waiters of a pool in fair order.
func (q *Queue) pass(p *pool) {
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
// whether it found one.
func (q *Queue) passLane(p *pool, l *lane, c *closed) bool {
	for _, t := range l.order() {
		for _, f := range t.order() {
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
// by a grant or by the store's error.
func (q *Queue) start(w *waiter, p *pool, t *Target, c *closed) bool {
	if c.hasTarget(t) {
		w.hold(t, nil)
		return false
	}
	if pause := t.pause(); pause > 0 {
		w.hold(t, nil)
		c.targets = append(c.targets, t)
		c.soon(pause)
		return false
	}
	headroom, cost := q.headroom(p, w.Class), w.costAt(t)
	charges := appendCharges(make([]Charge, 0, len(w.Owner)+len(w.Gateway)+6), w.Owner, w.Cost)
	charges, never := t.charges(charges, cost, headroom)
	if never != nil {
		return false // the limit shrank meanwhile; the deadline ends the wait
	}
	charges = appendCharges(charges, w.Gateway, w.Cost)
	if l := c.has(charges); l != nil {
		w.hold(t, l)
		return false
	}
	id := nextID()
	v, err := q.store.Take(context.Background(), id, charges)
	if err != nil {
		q.settle(w, nil, err)
		return true
	}
	if !v.OK {
		w.hold(t, v.By)
		c.close(v)
		if headroom > 0 {
			c.soon(headroomFor) // nobody tells when the higher class is done
		}
		return false
	}
	lease := &Lease{store: q.store, id: id, start: time.Now(), charges: charges, reserved: cost}
	lease.ended = func(l *Lease, actual Cost) { q.ended(w, p, t, l, actual) }
	t.started()
	p.served(w)
	q.settle(w, &Grant{Lease: lease, Target: t, Waited: time.Since(w.joined), Held: w.held}, nil)
	return true
}

func appendCharges(dst []Charge, limits []*Limit, cost Cost) []Charge {
	for _, l := range limits {
		n, _ := l.charge(cost)
		dst = append(dst, Charge{Limit: l, N: n})
	}
	return dst
}

// close notes what a better-placed request waits for. A limit that every request
// to the upstream needs closes the whole pool.
func (c *closed) close(v Verdict) {
	c.limits = append(c.limits, v.By)
	c.soon(v.After)
	if v.By.Scope == ScopeUpstream || v.By.Scope == ScopeGateway {
		c.pool = true
	}
}

func (q *Queue) settle(w *waiter, g *Grant, err error) {
	q.remove(w)
	w.grant, w.err = g, err
	close(w.ready)
}

// ended takes a lease's end into account and lets others start.
func (q *Queue) ended(w *waiter, p *pool, t *Target, l *Lease, actual Cost) {
	t.ended(time.Since(l.start), actual)
	q.mu.Lock()
	defer q.mu.Unlock()
	p.corrected(w, actual)
	q.dispatch()
}

// arm sets the pool's timer for the next refill or end of a pause.
func (p *pool) arm(q *Queue, after time.Duration) {
	if p.timer != nil {
		p.timer.Stop()
	}
	if after <= 0 || p.count == 0 {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(after, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.pass(p)
		})
		return
	}
	p.timer.Reset(after)
}
