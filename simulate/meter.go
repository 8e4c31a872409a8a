package simulate

import (
	"math"
	"math/bits"
	"time"
)

// A meter holds what counts against one rate limit. Times are since the
// limiter's epoch and never go back; the caller holds the lock.
type meter interface {
	// used is what counts against the limit now; above the limit it is debt.
	used(now time.Duration) int64
	// wait is the time until n more, at most the limit, would fit; 0 is now.
	wait(now time.Duration, n int64) time.Duration
	// take charges n, fitting or not. late marks a charge that follows an
	// admission, such as output tokens.
	take(now time.Duration, n int64, late bool)
	// idle is the time until nothing counts any more.
	idle(now time.Duration) time.Duration
}

func newMeter(mode Mode, limit int64, window, now time.Duration) meter {
	if limit <= 0 {
		return nil
	}
	if mode == Sliding {
		return &sliding{limit: limit, window: window}
	}
	return &bucket{limit: limit, window: window, level: limit, at: now}
}

// A bucket is a token bucket that holds limit and gains limit per window,
// in whole units: what is gained of the next unit is kept as rem/window.
type bucket struct {
	limit  int64
	window time.Duration
	level  int64
	rem    uint64
	at     time.Duration
}

func (b *bucket) refill(now time.Duration) {
	elapsed := now - b.at
	if elapsed <= 0 {
		return
	}
	b.at = now
	if elapsed/b.window >= 1<<20 { // keeps the product below 2^64 windows
		b.level, b.rem = b.limit, 0
		return
	}
	hi, lo := bits.Mul64(uint64(elapsed), uint64(b.limit))
	lo, carry := bits.Add64(lo, b.rem, 0)
	gained, rem := bits.Div64(hi+carry, lo, uint64(b.window))
	b.level += int64(gained)
	b.rem = rem
	if b.level >= b.limit {
		b.level, b.rem = b.limit, 0
	}
}

func (b *bucket) used(now time.Duration) int64 {
	b.refill(now)
	return b.limit - b.level
}

func (b *bucket) wait(now time.Duration, n int64) time.Duration {
	b.refill(now)
	if n <= b.level {
		return 0
	}
	// The level gains n-level units after t, where t·limit + rem >= (n-level)·window.
	hi, lo := bits.Mul64(uint64(n-b.level), uint64(b.window))
	lo, borrow := bits.Sub64(lo, b.rem, 0)
	hi -= borrow
	if hi >= uint64(b.limit) {
		return math.MaxInt64
	}
	t, rest := bits.Div64(hi, lo, uint64(b.limit))
	if rest > 0 {
		t++
	}
	return time.Duration(min(t, math.MaxInt64))
}

func (b *bucket) take(now time.Duration, n int64, _ bool) {
	b.refill(now)
	b.level -= n
}

func (b *bucket) idle(now time.Duration) time.Duration { return b.wait(now, b.limit) }

// sliding is an exact log of the last window.
type sliding struct {
	limit  int64
	window time.Duration
	log    timeline
}

func (s *sliding) used(now time.Duration) int64 {
	s.log.forget(now - s.window)
	return s.log.sum
}

func (s *sliding) wait(now time.Duration, n int64) time.Duration {
	excess := s.used(now) + n - s.limit
	if excess <= 0 {
		return 0
	}
	for _, e := range s.log.entries() {
		if excess -= e.n; excess <= 0 {
			return e.at + s.window - now
		}
	}
	return s.window // n is above the limit
}

func (s *sliding) take(now time.Duration, n int64, late bool) {
	s.log.forget(now - s.window)
	s.log.add(now, n, late, s.window/1000)
}

func (s *sliding) idle(now time.Duration) time.Duration {
	s.log.forget(now - s.window)
	if e := s.log.entries(); len(e) > 0 {
		return e[len(e)-1].at + s.window - now
	}
	return 0
}

// An entry is n units charged at a time.
type entry struct {
	at    time.Duration
	n     int64
	late  bool
	first time.Duration // of the charges that were put together here
}

// A timeline is a queue of charges in order of time.
type timeline struct {
	queue []entry
	head  int
	sum   int64
}

func (t *timeline) entries() []entry { return t.queue[t.head:] }

// add appends a charge. Late charges less than grain apart become one entry at
// the time of the last, so that a stream of tokens stays short; that makes a
// sliding limit at most grain too strict.
func (t *timeline) add(at time.Duration, n int64, late bool, grain time.Duration) {
	t.sum += n
	if last := len(t.queue) - 1; late && last >= t.head {
		if e := &t.queue[last]; e.late && at-e.first < grain {
			e.at = at
			e.n += n
			return
		}
	}
	if len(t.queue) == cap(t.queue) && t.head > len(t.queue)/2 {
		t.queue = t.queue[:copy(t.queue, t.queue[t.head:])]
		t.head = 0
	}
	t.queue = append(t.queue, entry{at: at, n: n, late: late, first: at})
}

// forget drops the entries up to and including a time.
func (t *timeline) forget(upTo time.Duration) {
	for t.head < len(t.queue) && t.queue[t.head].at <= upTo {
		t.dropOldest()
	}
}

func (t *timeline) dropOldest() {
	t.sum -= t.queue[t.head].n
	t.head++
	if t.head == len(t.queue) {
		t.queue, t.head = t.queue[:0], 0
	}
}

// peak is the largest sum in any span shorter than window.
func (t *timeline) peak(window time.Duration) int64 {
	var sum, most int64
	entries := t.entries()
	oldest := 0
	for _, e := range entries {
		sum += e.n
		for e.at-entries[oldest].at >= window {
			sum -= entries[oldest].n
			oldest++
		}
		most = max(most, sum)
	}
	return most
}
