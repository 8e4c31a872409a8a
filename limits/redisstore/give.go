package redisstore

import "penstock/limits"

// give is Give for the limits of this owner.
func (o *owner) give(id uint64, charges []limits.Charge) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, when := o.now(), late
	down := o.gate.down.Load()
	alone := down && !o.gate.brief.Load() // in a blip chunks go on, too
	for i := range charges {
		c := &charges[i]
		l := o.level(c.Limit)
		switch {
		case c.Over:
		case l.kind == slots:
			if _, ok := l.ids[id]; ok {
				delete(l.ids, id)
				o.mark(l)
				if l.held-int64(len(l.ids)) > l.spareNow(o) {
					when = soon
				}
			}
		case alone:
			o.giveAlone(l, c, c.N, now)
		case l.kind == purse:
			o.givePurse(l, c, now)
		case !o.giveRate(l, c, now):
			when = soon
		}
	}
	if down {
		return
	}
	clear(o.refused)
	o.tellWithin(when)
}

func (o *owner) givePurse(l *level, c *limits.Charge, now micros) {
	if c.N == 0 || c.At != l.purse.At(l.limit, now).Start {
		return
	}
	l.pay(-c.N, now)
	o.mark(l)
}

// giveRate notes what a rate gets back, or is charged in addition, as limits.Memory
// does. It reports whether there is time to tell.
func (o *owner) giveRate(l *level, c *limits.Charge, now micros) bool {
	r, back, more := limits.RateOf(c.Limit, c.Scale), max(c.N+c.Late, 0), max(c.Late, 0)
	if c.N+c.Late < 0 {
		more = -c.N
	}
	l.past.Note(o.ahead(l, now))
	switch most := l.past.Refund(c.At, worthDown(r, back), c.Ends); {
	case most < worthDown(r, back):
		l.pending.add(-most)
	case back == more:
		return true // nothing changes
	case back > 0:
		l.pending.add(-worthDown(r, l.chunk.refund(back, l, now)))
	}
	switch {
	case more == 0:
	case l.chunk.left(l, now) >= more:
		l.chunk.spend(more, l, now)
	default:
		l.pending.add(worth(r, more))
	}
	if l.pending.empty() {
		return true
	}
	o.mark(l)
	return chunkable(c.Limit) && r.Level(l.at(now), now) > r.Burst()/chunkFloor
}

func (o *owner) lower(limit *limits.Limit, units int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now, r := o.level(limit), o.now(), limits.RateOf(limit, 0)
	if l.left(now, &limits.Charge{Limit: limit}) <= units {
		return
	}
	l.chunk.units, l.chunk.until = 0, 0
	l.past.Note(o.ahead(l, now))
	l.pending.least = max(l.pending.least, min(maxMicros, r.Lower(now, now, units)-now))
	o.mark(l)
	if o.gate.down.Load() {
		replicas := o.s.live.Load()
		o.begin(l, now)
		l.alone.tat = r.Divided(replicas).Lower(l.alone.tat, now, units/replicas)
		return
	}
	o.tellWithin(soon)
}

// restore raises what a budget has spent.
func (o *owner) restore(limit *limits.Limit, start, spent int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now := o.level(limit), o.now()
	if l.purse.At(limit, now).Start != start || l.spent(now).Spent >= spent {
		return
	}
	l.pay(0, now)
	l.pending.least = max(l.pending.least, min(spent, maxMicros))
	o.mark(l)
	o.tellWithin(soon)
}
