package limits

import (
	"math"
	"math/bits"
	"time"
)

// The generic cell rate algorithm (GCRA, ITU-T I.371) keeps one number for a
// bucket: the theoretical arrival time, at which everything charged so far has
// been paid for at the bucket's rate. Times are integer microseconds on the
// store's own monotonic clock, the same unit as a shared store's, so that every
// store gives the same verdicts.

// micros is a time or a length of time in microseconds.
type micros = int64

// rate is a limit as the arithmetic needs it.
type rate struct {
	amount int64  // units per window
	window micros // length of the window
	burst  int64  // most units at once
}

func rateOf(l *Limit, scale int64) rate {
	r := rate{amount: l.Amount, window: l.Window.Microseconds(), burst: l.Burst}
	if scale > 0 && scale < full {
		// A slowed-down upstream earns less in the same time; its burst, being a
		// length of time, shrinks with it.
		r.amount = max(1, r.amount*scale/full)
		r.burst = max(1, r.burst*scale/full)
	}
	return r
}

// worth is how long n units take to earn, rounded up; it saturates.
func (r rate) worth(n int64) micros {
	if n < 0 {
		return -r.worth2(-n, false)
	}
	return r.worth2(n, true)
}

func (r rate) worth2(n int64, up bool) micros {
	hi, lo := bits.Mul64(uint64(n), uint64(r.window))
	if hi >= uint64(r.amount) {
		return math.MaxInt64 / 4
	}
	q, rem := bits.Div64(hi, lo, uint64(r.amount))
	if up && rem > 0 {
		q++
	}
	return int64(min(q, math.MaxInt64/4))
}

// room is how far ahead of now a bucket may be charged: what its burst is worth,
// and a microsecond for the rounding of each charge that the burst may consist of,
// but never more than one unit is worth.
func (r rate) room() micros {
	return max(r.worth(r.burst), r.worth2(r.burst, false)+min(r.burst, r.window/r.amount))
}

// take charges n units at time now, if at least keep units stay behind. It
// returns the new theoretical arrival time, or how long until the charge fits.
// A charge and keep that exceed the burst together reduce keep.
func (r rate) take(tat, now micros, n, keep int64) (newTAT, wait micros, ok bool) {
	n = min(n, r.burst)
	keep = min(keep, r.burst-n)
	next := max(tat, now) + r.worth(n)
	if wait = next + r.worth(keep) - r.room() - now; wait > 0 {
		return tat, wait, false
	}
	return next, 0, true
}

// give returns n units; a negative n charges more, as far into debt as it goes.
func (r rate) give(tat, now micros, n int64) micros {
	if n < 0 {
		return max(tat, now) + r.worth(-n)
	}
	return tat + r.worth(-n)
}

// level is how many units are left at time now; negative is debt.
func (r rate) level(tat, now micros) int64 {
	owed := max(tat-now, 0)
	hi, lo := bits.Mul64(uint64(owed), uint64(r.amount))
	if hi >= uint64(r.window) {
		return math.MinInt64 / 4
	}
	q, rem := bits.Div64(hi, lo, uint64(r.window))
	if rem > 0 {
		q++
	}
	return r.burst - int64(min(q, math.MaxInt64/4))
}

// lower brings the level down to at most units.
func (r rate) lower(tat, now micros, units int64) micros {
	return max(tat, now+r.worth(max(r.burst-units, 0)))
}

func toDuration(m micros) time.Duration {
	if m > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return time.Duration(m) * time.Microsecond
}
