package redisstore

import (
	"time"

	"penstock/limits"
)

// micros is a time or a length of time in microseconds, as in package limits.
type micros = int64

// maxMicros keeps every number that a script computes with exact: Lua numbers are
// doubles. It is 71 years, or two billion dollars.
const maxMicros micros = 1 << 51

// A kind is how a limit is kept.
type kind byte

const (
	rate  kind = 'b' // a bucket
	purse kind = 'm' // a budget
	slots kind = 's'
)

func kindOf(l *limits.Limit) kind {
	switch l.Dimension {
	case limits.Concurrency:
		return slots
	case limits.Spend:
		return purse
	}
	return rate
}

// A level is what a replica knows of one limit: what it was told last, what it has
// to tell, and what it holds. It is guarded by its owner's mutex.
type level struct {
	kind  kind
	limit *limits.Limit // as it was used last
	key   string
	told  time.Time // when the server last heard of it
	look  bool      // to be asked for, although there is nothing to tell

	// Of a rate and a budget. What is sent is under way, or was lost and is sent
	// again.
	pending change
	sent    change
	chunk   chunk
	alone   alone
	tat     micros // of a rate: the arrival time as last told, at the server's time
	past    limits.Past
	purse   limits.Purse // of a budget, as last told

	// Of a concurrency limit.
	held   int64               // by this replica, as the server knows
	others int64               // by the other replicas, as last told
	ids    map[uint64]struct{} // reservations that have a slot
	taken  bool                // lately
	own    int64               // the most of them until the owner has settled
}

// A change is what was done to a rate, in microseconds of its time, or to a
// budget, in money, and is to be told. Refunds come first.
type change struct {
	refund, charge int64
	least          int64 // a rate is lowered by this much at least; a budget has spent so much at least
	window         micros
}

func (c *change) empty() bool { return c.refund == 0 && c.charge == 0 && c.least == 0 }

// tat is what the script does with a change of a rate.
func (c *change) tat(tat, now micros) micros {
	tat -= c.refund
	if c.charge > 0 {
		tat = max(tat, now) + c.charge
	}
	if c.least > 0 {
		tat = max(tat, now+c.least)
	}
	return tat
}

// spent is what the script does with a change of a budget.
func (c *change) spent(p limits.Purse) int64 {
	if c.window != p.Start {
		return p.Spent
	}
	return max(p.Spent-c.refund+c.charge, c.least, 0)
}

func (c *change) add(n int64) {
	if n < 0 {
		c.refund = min(c.refund-n, maxMicros)
		c.least = max(c.least+n, 0) // it comes after
	} else {
		c.charge = min(c.charge+n, maxMicros)
		if c.least > 0 { // it comes on top
			c.least = min(c.least+n, maxMicros)
		}
	}
}

// at is the arrival time of a rate with all that is to be told.
func (l *level) at(now micros) micros { return l.pending.tat(l.sent.tat(l.tat, now), now) }

// spent is the purse of a budget with all that is to be told.
func (l *level) spent(now micros) limits.Purse {
	p := l.purse.At(l.limit, now)
	p.Spent = l.sent.spent(p)
	p.Spent = l.pending.spent(p)
	return p
}

// pay notes n more of a budget's money as spent; a negative n is given back.
func (l *level) pay(n int64, now micros) {
	p := l.purse.At(l.limit, now)
	if l.pending.window != p.Start {
		l.pending = change{window: p.Start}
	}
	l.pending.add(n)
}

// busy reports whether something is held, owed or to be told.
func (l *level) busy(now micros) bool {
	switch {
	case l.held > 0 || len(l.ids) > 0 || !l.pending.empty() || !l.sent.empty() || l.chunk.units > 0 || l.alone.spent != 0:
		return true
	case l.kind == rate:
		return l.at(now) > now
	}
	return l.kind == purse && l.spent(now).Spent > 0
}

// left is what remains of the limit at a scale, as far as is known.
func (l *level) left(now micros, c *limits.Charge) int64 {
	switch l.kind {
	case slots:
		return c.Slots() - l.others - int64(len(l.ids))
	case purse:
		return c.Limit.Amount - l.spent(now).Spent + l.chunk.left(l, now)
	}
	return limits.RateOf(c.Limit, c.Scale).Level(l.at(now), now) + l.chunk.left(l, now)
}

func worth(r limits.Rate, n int64) micros {
	return max(-maxMicros, min(maxMicros, r.Worth(n)))
}

// worthDown is what n units are worth when they are given back.
func worthDown(r limits.Rate, n int64) micros { return -worth(r, -n) }

func duration(m micros) time.Duration {
	return time.Duration(max(0, min(m, maxMicros))) * time.Microsecond
}
