package limits

import (
	"context"
	"math"
	"slices"
	"time"
)

// predict is how long a request is likely to wait, were it to join now or after
// those of its team that wait already: for its best target, the longest of what
// its limits there need to serve everybody who is ahead. It errs on the short
// side where it knows little, because a request that is refused by mistake is
// worse than one that waits in vain.
func (q *Queue) predict(w *waiter) time.Duration {
	best := time.Duration(math.MaxInt64)
	for _, t := range w.Targets {
		p := q.pool(t.Upstream)
		wait := t.Paused()
		for _, l := range append(t.Limits(), w.Owner...) {
			if !l.Shadow {
				wait = max(wait, q.waitFor(w, p, t, l))
			}
		}
		best = min(best, wait)
	}
	if len(w.Targets) == 0 {
		return 0
	}
	return best
}

// waitFor is how long the limit takes to serve those ahead and the request.
func (q *Queue) waitFor(w *waiter, p *pool, t *Target, l *Limit) time.Duration {
	levels, err := q.store.Levels(context.Background(), []*Limit{l})
	if err != nil {
		return 0
	}
	ahead := p.ahead(w, l)
	scale := t.Scale()
	if l.Scope != ScopeModel && l.Scope != ScopeUpstream {
		scale = 1
	}
	if l.Dimension == Concurrency {
		// The requests ahead and this one each need a slot that is free now or
		// comes back; slots come back at limit ÷ mean hold.
		missing := float64(ahead.Requests+1) - float64(levels[0].Remaining)
		if missing <= 0 {
			return 0
		}
		return time.Duration(missing * float64(t.meanHold()) / math.Max(1, float64(l.Amount)*scale))
	}
	n, _ := l.charge(w.costAt(t))
	missing := t.likely(ahead, l.Dimension) + float64(n) - float64(levels[0].Remaining)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / (float64(l.Amount) * scale) * float64(l.Window))
}

// ahead is what is served before a request at a limit: all of the higher classes,
// and of its own class its team's backlog and, of each other team, what fair
// queueing serves meanwhile.
func (p *pool) ahead(w *waiter, l *Limit) Cost {
	var sum Cost
	for class := range w.Class {
		for _, t := range p.class[class].waiting {
			sum = sum.plus(t.needing(w, l))
		}
	}
	lane := &p.class[w.Class]
	var own Cost
	if t := lane.teams[w.Team]; t != nil {
		own = t.needing(w, l)
	}
	sum = sum.plus(own)
	mine := (price(own) + price(w.Cost)) / float64(max(1, w.Weight))
	for _, t := range lane.waiting {
		if t.name == w.Team {
			continue
		}
		backlog := t.needing(w, l)
		share := mine * t.weight / price(backlog)
		sum = sum.plus(backlog.scaled(min(1, share)))
	}
	return sum
}

// needing is the team's backlog at a limit, without the request itself. A request
// that waits for several upstreams counts in part at each.
func (t *team) needing(w *waiter, l *Limit) Cost {
	var sum Cost
	for _, f := range t.flows {
		head := f.entries[0].w
		if !head.needs(l) {
			continue
		}
		backlog := f.backlog
		if slices.ContainsFunc(w.entries, func(e *entry) bool { return e.flow == f }) {
			backlog = backlog.minus(w.Cost)
		}
		if n := len(head.entries); n > 1 {
			backlog = backlog.scaled(1 / float64(n))
		}
		sum = sum.plus(backlog)
	}
	return sum
}

// needs reports whether a limit stands before the request.
func (w *waiter) needs(l *Limit) bool {
	has := func(limits []*Limit) bool {
		return slices.ContainsFunc(limits, func(x *Limit) bool { return x.ID == l.ID })
	}
	if has(w.Owner) {
		return true
	}
	return slices.ContainsFunc(w.Targets, func(t *Target) bool { return has(t.Limits()) })
}

// A Depth is how many requests of a class wait for an upstream.
type Depth struct {
	Upstream string
	Class    Class
	Waiting  int64
	Oldest   time.Duration // how long the one with the earliest deadline has waited
}

// Depths reports the queue of every upstream that has been used.
func (q *Queue) Depths() []Depth {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []Depth
	for _, p := range q.pools {
		for c := range p.class {
			d := Depth{Upstream: p.name, Class: Class(c), Waiting: p.class[c].count}
			for _, t := range p.class[c].waiting {
				for _, f := range t.flows {
					d.Oldest = max(d.Oldest, time.Since(f.entries[0].w.joined))
				}
			}
			out = append(out, d)
		}
	}
	return out
}
