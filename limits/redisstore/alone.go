package redisstore

import (
	"time"

	"penstock/limits"
)

// alone is a replica's own part of a rate, or what it spent of a budget, while
// the server is away.
type alone struct {
	loss  uint64 // of the gate, for which the rest was made
	tat   micros
	spent int64 // units charged and not told yet…
	// window is the start of the budget's window in which they were.
	window micros
}

// patience is how long a request must be able to wait still to be asked to wait for
// the end of a blip.
const patience = 2 * time.Second

// takeAlone decides without the server, by each limit's policy. The owner's mutex
// is held.
func (o *owner) takeAlone(id uint64, turn *limits.Turn, charges []limits.Charge, now micros) (limits.Verdict, error) {
	v := limits.Verdict{OK: true, Told: true}
	brief := turn != nil && turn.Left >= patience && o.gate.brief.Load()
	for i := range charges {
		c := &charges[i]
		c.Over = false
		policy := o.s.policy(c.Limit)
		if policy == limits.Closed && !c.Limit.Shadow {
			return limits.Verdict{}, &limits.Unavailable{Limit: c.Limit, RetryAfter: time.Second}
		}
		if policy == limits.Open {
			continue
		}
		after, ok := o.checkAlone(c, now)
		if brief && !c.Limit.Shadow && kindOf(c.Limit) != purse {
			after, ok = 0, o.checkBriefly(c)
		}
		switch {
		case ok:
		case c.Limit.Shadow:
			c.Over = true
		default:
			v.Refuse(c, after)
			v.Again = askAgain
		}
	}
	if !v.OK {
		return v, nil
	}
	for i := range charges {
		if c := &charges[i]; !c.Over {
			o.chargeAlone(id, c, now)
		}
	}
	return v, nil
}

func (o *owner) checkAlone(c *limits.Charge, now micros) (after time.Duration, ok bool) {
	l, replicas := o.level(c.Limit), o.s.live.Load()
	switch l.kind {
	case purse:
		p := l.spent(now)
		left := max(c.Limit.Amount-p.Spent, 0) / replicas
		return duration(p.Left(c.Limit, now)), l.alone.spentIn(p.Start)+c.N <= left
	case rate:
		o.begin(l, now)
		_, wait, ok := limits.RateOf(c.Limit, c.Scale).Divided(replicas).Take(l.alone.tat, now, c.N, c.Keep/replicas)
		return duration(wait), ok
	}
	place, since := o.s.place(), o.gate.since()
	most := max(1, place.share(c.Slots()))
	most -= min(c.Keep/replicas, most-1)
	if time.Since(since) < o.s.opt.Lease {
		// What the others held then, they may hold still, and a little more than they
		// had told: an eighth of the slots is left to that.
		most = min(most, l.firstPart(c.Slots()-c.Slots()/8, place, since))
	}
	return 0, int64(len(l.ids)) < most
}

// firstPart is how many slots a replica may use as long as the others may hold what they
// held at the loss. One that was idle for a while does not know what that was, and
// takes its share: what it was told last may be of a rush that is long over.
func (l *level) firstPart(slots int64, p place, loss time.Time) int64 {
	if l.held == 0 && loss.Sub(l.told) > beatEvery {
		return p.share(slots)
	}
	return l.part(slots, p)
}

// checkBriefly reports whether there is a slot that is this replica's by what the
// server was told: the others may still reach the server, and take all that is free
// there. So nothing is left of a rate but a chunk, from which takeHere has not met all.
// The queue asks again when the loss has turned out to be no blip.
func (o *owner) checkBriefly(c *limits.Charge) bool {
	l := o.level(c.Limit)
	used := int64(len(l.ids))
	return l.kind == slots && used < l.held && l.fresh(o) && l.others+used+1 <= c.Slots()-min(c.Keep, c.Slots()-1)
}

// fresh reports whether what the replica holds has not expired at the server.
func (l *level) fresh(o *owner) bool { return time.Since(l.told) < o.s.opt.Lease }

// part is how many slots a replica may use that knows no more of the others than
// what it was told last: those it held, and its part of what was free. All parts
// together are no more than there are.
func (l *level) part(slots int64, p place) int64 {
	return l.held + p.share(max(0, slots-l.others-l.held))
}

// How long a replica keeps to its part of the slots after a loss.
const (
	settleAfter = 3 * time.Second        // until all others have stated theirs
	settleBlip  = 500 * time.Millisecond // until those for whom it was no blip are back, too
)

// settle keeps the replica to its part of the slots for a while: after the server was
// away for a time, or has lost its state. After a blip, what it knows of the others is
// right; otherwise it may be wrong until they have stated theirs, so the first part holds.
func (o *owner) settle(away time.Duration, blip bool) {
	now, place := time.Now(), o.s.place()
	if now.Before(o.settled) && o.unsure {
		if !blip {
			o.settled = now.Add(settleAfter)
		}
		return
	}
	o.unsure, o.settled = !blip, now.Add(settleAfter)
	if blip {
		o.settled = now.Add(settleBlip)
	}
	for _, l := range o.levels {
		switch {
		case l.kind != slots:
		case away < o.s.opt.Lease:
			l.own = l.part(l.limit.Amount, place)
		default:
			l.own = max(1, place.share(l.limit.Amount))
		}
	}
}

// ownSlots is the most that the replica may have of a limit's slots.
func (o *owner) ownSlots(l *level, all int64) int64 {
	if time.Now().Before(o.settled) {
		return min(all, l.own)
	}
	return all
}

func (a *alone) spentIn(window micros) int64 {
	if a.window != window {
		return 0
	}
	return a.spent
}

// begin gives the replica its part of what was left of a rate when the server went
// away.
func (o *owner) begin(l *level, now micros) {
	loss := o.gate.loss.Load()
	if l.alone.loss == loss {
		return
	}
	l.dropChunk(now)
	replicas := o.s.live.Load()
	r := limits.RateOf(l.limit, 0)
	part := r.Divided(replicas)
	left := r.Level(l.at(now), now) - l.alone.spent
	l.alone.loss, l.alone.tat = loss, now
	if missing := part.Burst() - floorDiv(left, replicas); missing > 0 {
		l.alone.tat = now + worth(part, missing)
	}
}

func floorDiv(a, b int64) int64 {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

func (o *owner) chargeAlone(id uint64, c *limits.Charge, now micros) {
	l := o.level(c.Limit)
	switch l.kind {
	case slots:
		l.ids[id] = struct{}{}
		o.mark(l)
	case purse:
		c.At = l.spent(now).Start
		o.giveAlone(l, c, -c.N, now)
	case rate:
		c.At = o.reserve(l, now)
		o.giveAlone(l, c, -c.N, now)
	}
}

// giveAlone returns n units of a rate or a budget, or charges them where n is
// negative.
func (o *owner) giveAlone(l *level, c *limits.Charge, n int64, now micros) {
	o.mark(l)
	if l.kind == purse {
		if p := l.spent(now); c.At == p.Start {
			l.alone.spent, l.alone.window = l.alone.spentIn(p.Start)-n, p.Start
		}
		return
	}
	o.begin(l, now)
	if c.Ends {
		l.past.Refund(c.At, 0, true)
	}
	l.alone.tat = limits.RateOf(c.Limit, c.Scale).Divided(o.s.live.Load()).Give(l.alone.tat, now, n)
	l.alone.spent -= n
}

// settleAlone makes what was spent alone a change to be told: of a rate, a debt of
// at most one burst.
func (l *level) settleAlone(now micros) {
	n := l.alone.spent
	switch {
	case n == 0:
		return
	case l.kind == rate:
		l.pending.add(l.owed())
	case l.purse.At(l.limit, now).Start == l.alone.window:
		l.pay(n, now)
	}
	l.alone.spent = 0
}

// owed is what was spent of a rate alone, as it will be told.
func (l *level) owed() micros {
	r, n := limits.RateOf(l.limit, 0), l.alone.spent
	if n < 0 {
		return -worthDown(r, -n)
	}
	return worth(r, min(n, r.Burst()))
}

// ahead is what is left to pay of a rate, with what was spent alone.
func (o *owner) ahead(l *level, now micros) micros {
	return max(max(l.at(now)-o.early(), 0)+l.owed(), 0)
}
