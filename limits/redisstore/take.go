package redisstore

import (
	"time"

	"penstock/limits"
)

// take is Take for the limits of this owner.
func (o *owner) take(id uint64, turn *limits.Turn, charges []limits.Charge) (limits.Verdict, error) {
	o.mu.Lock()
	if o.has(id, charges) {
		o.mu.Unlock()
		return limits.Verdict{OK: true}, nil
	}
	if o.gate.down.Load() {
		if o.gate.brief.Load() && o.takeHere(id, charges) {
			o.mu.Unlock()
			return limits.Verdict{OK: true, Told: true}, nil
		}
		v, err := o.takeAlone(id, turn, charges, o.now())
		o.tell(charges)
		o.mu.Unlock()
		return v, err
	}
	if o.takeHere(id, charges) {
		o.mu.Unlock()
		return limits.Verdict{OK: true, Told: true}, nil
	}
	if v, ok := o.known(turn, charges); ok {
		o.tell(charges)
		o.mu.Unlock()
		return v, nil
	}
	a := &ask{turn: turn, charges: charges, id: id, done: make(chan struct{})}
	o.asks = append(o.asks, a)
	first := !o.busy
	o.busy = true
	o.mu.Unlock()
	if first {
		o.run(a)
	}
	<-a.done // a call ends within its timeout
	if !a.lost {
		return a.verdict, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	v, err := o.takeAlone(id, turn, charges, o.now())
	o.tell(charges)
	o.tellWithin(late) // the server may be back already
	return v, err
}

// has reports whether the reservation holds a slot already.
func (o *owner) has(id uint64, charges []limits.Charge) bool {
	for i := range charges {
		if charges[i].Limit.Dimension == limits.Concurrency {
			if _, ok := o.level(charges[i].Limit).ids[id]; ok {
				return true
			}
		}
	}
	return false
}

// takeHere takes from chunks and spare slots, if all charges can be met by them.
func (o *owner) takeHere(id uint64, charges []limits.Charge) bool {
	now, clock := o.now(), time.Now()
	ok := len(o.refused) == 0 && len(o.asks) == 0
	for i := range charges {
		ok = o.metHere(&charges[i], now, clock) && ok
	}
	if !ok {
		return false
	}
	for i := range charges {
		c := &charges[i]
		l := o.level(c.Limit)
		c.Over, c.Told = false, false // what others did lately is not known
		switch l.kind {
		case slots:
			l.ids[id] = struct{}{}
			continue
		case rate:
			c.At = o.reserve(l, now)
		case purse:
			c.At = l.purse.At(l.limit, now).Start
		}
		l.chunk.spend(c.N, l, now)
	}
	return true
}

// metHere reports whether a charge can be met here, and counts that it was asked.
func (o *owner) metHere(c *limits.Charge, now micros, clock time.Time) bool {
	l := o.level(c.Limit)
	if c.Scale > 0 && c.Scale < 1000 {
		return false // a slowed-down upstream is charged one by one
	}
	l.chunk.takes.add(1, clock)
	if l.kind == slots {
		used := int64(len(l.ids))
		l.taken = true
		// A slot that has come back but is not to be kept goes to whose turn it is.
		return l.held > used && l.fresh(o) && l.spareNow(o) > 0 && l.others+used+1 <= c.Slots()-c.Keep
	}
	l.chunk.use.add(float64(c.N), clock)
	left := l.chunk.left(l, now)
	return left > 0 && left >= c.N && l.left(now, c)-c.N >= c.Keep
}

// reserve numbers a charge on a rate, before it is made.
func (o *owner) reserve(l *level, now micros) int64 {
	o.turns++
	l.past.Note(o.ahead(l, now))
	l.past.Reserve(o.turns)
	return o.turns
}

// known repeats a refusal that one of the same team has just had.
func (o *owner) known(turn *limits.Turn, charges []limits.Charge) (limits.Verdict, bool) {
	if turn == nil || len(o.refused) == 0 {
		return limits.Verdict{}, false
	}
	for i := range charges {
		r, ok := o.refused[waiting{turn.Team, turn.Class, charges[i].Limit.ID}]
		left := time.Until(r.until)
		if !ok || left <= 0 {
			continue
		}
		v := r.verdict
		v.After, v.Again, v.Told = 0, left, false
		return v, true
	}
	return limits.Verdict{}, false
}
