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

// maxMicros is longer than anything lasts, and leaves room to add to it.
const maxMicros micros = math.MaxInt64 / 4

// A Rate is a rate limit as the arithmetic needs it. It is immutable.
type Rate struct {
	amount int64  // units per window
	window micros // length of the window
	burst  int64  // most units at once
}

// RateOf is the rate of a limit that is not Concurrency, at a scale in
// thousandths; 0 is all of it.
func RateOf(l *Limit, scale int64) Rate {
	r := Rate{amount: l.Amount, window: l.Window.Microseconds(), burst: l.Burst}
	if scale > 0 && scale < full {
		// A slowed-down upstream earns less in the same time; its burst, being a
		// length of time, shrinks with it.
		r.amount = max(1, r.amount*scale/full)
		r.burst = max(1, r.burst*scale/full)
	}
	return r
}

// Divided is one of n equal parts of the rate.
func (r Rate) Divided(n int64) Rate {
	n = max(1, n)
	return Rate{r.amount, r.window * n, max(1, r.burst/n)}
}

// Burst is the most units at once.
func (r Rate) Burst() int64 { return r.burst }

// Worth is how long n units take to earn, in microseconds: rounded up for what is
// charged, and down for a negative n, which is given back. It saturates.
func (r Rate) Worth(n int64) micros {
	if n < 0 {
		return -r.worth2(-n, false)
	}
	return r.worth2(n, true)
}

func (r Rate) worth2(n int64, up bool) micros {
	hi, lo := bits.Mul64(uint64(n), uint64(r.window))
	if hi >= uint64(r.amount) {
		return maxMicros
	}
	q, rem := bits.Div64(hi, lo, uint64(r.amount))
	if up && rem > 0 {
		q++
	}
	return int64(min(q, uint64(maxMicros)))
}

// Room is how far ahead of now a bucket may be charged: what its burst is worth,
// and a microsecond for the rounding of each charge that the burst may consist of,
// but never more than one unit is worth.
func (r Rate) Room() micros {
	return max(r.Worth(r.burst), r.worth2(r.burst, false)+min(r.burst, r.window/r.amount))
}

// Take charges n units at time now, if at least keep units stay behind. It
// returns the new theoretical arrival time, or how long until the charge fits.
// A charge and keep that exceed the burst together reduce keep.
func (r Rate) Take(tat, now micros, n, keep int64) (newTAT, wait micros, ok bool) {
	cost, slack := r.Price(n, keep)
	next := max(tat, now) + cost
	if wait = next - slack - now; wait > 0 {
		return tat, wait, false
	}
	return next, 0, true
}

// Price is what Take compares: the charge fits when the arrival time, moved on by
// cost, is at most slack ahead of now. A store that computes elsewhere needs only
// these two.
func (r Rate) Price(n, keep int64) (cost, slack micros) {
	n = min(n, r.burst)
	keep = min(keep, r.burst-n)
	return r.Worth(n), r.Room() - r.Worth(keep)
}

// Give returns n units; a negative n charges more, as far into debt as it goes.
func (r Rate) Give(tat, now micros, n int64) micros {
	if n < 0 {
		return max(tat, now) + r.Worth(-n)
	}
	return tat + r.Worth(-n)
}

// Level is how many units are left at time now; negative is debt.
func (r Rate) Level(tat, now micros) int64 {
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

// Lower brings the level down to at most units.
func (r Rate) Lower(tat, now micros, units int64) micros {
	return max(tat, now+r.Worth(max(r.burst-units, 0)))
}

func toDuration(m micros) time.Duration {
	if m > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return time.Duration(m) * time.Microsecond
}

// Earned is how many whole units are earned in a time.
func (r Rate) Earned(m micros) int64 {
	if m <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(m), uint64(r.amount))
	if hi >= uint64(r.window) {
		return math.MaxInt64 / 4
	}
	q, _ := bits.Div64(hi, lo, uint64(r.window))
	return int64(min(q, math.MaxInt64/4))
}
