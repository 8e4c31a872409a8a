package simulate

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketArithmetic(t *testing.T) {
	const s = time.Second
	b := newMeter(Bucket, 60, 60*s, 0)
	want(t, "wait when full", b.wait(0, 60), time.Duration(0))
	b.take(0, 60, false)
	want(t, "wait for one", b.wait(0, 1), s)
	want(t, "wait for one after 400 ms", b.wait(400*time.Millisecond, 1), 600*time.Millisecond)
	want(t, "used after 2.5 s", b.used(2500*time.Millisecond), int64(58))
	want(t, "time until idle", b.idle(2500*time.Millisecond), 57500*time.Millisecond)
	b.take(3*s, 63, true) // 3 are there: 60 of debt
	want(t, "wait in debt", b.wait(3*s, 1), 61*s)
	want(t, "used in debt", b.used(3*s), int64(120))
	want(t, "used after days", b.used(1000*time.Hour), int64(0))
	want(t, "level never above the limit", b.wait(1000*time.Hour, 61), s)
}

func TestBucketOddRates(t *testing.T) {
	// 7 in 3 s: one needs 428 571 428.57… ns, rounded up.
	b := newMeter(Bucket, 7, 3*time.Second, 0)
	b.take(0, 7, false)
	w := b.wait(0, 1)
	want(t, "wait", w, 428_571_429*time.Nanosecond)
	want(t, "just before", b.wait(w-1, 1), time.Duration(1))
	want(t, "then", b.wait(w, 1), time.Duration(0))
}

func TestBucketHugeLimit(t *testing.T) {
	b := newMeter(Bucket, maxLimit, 24*time.Hour, 0)
	b.take(0, maxLimit, false)
	want(t, "used after half a day", b.used(12*time.Hour), int64(maxLimit/2))
	b.take(12*time.Hour, maxLimit, false)
	want(t, "wait for all", b.wait(12*time.Hour, maxLimit), 36*time.Hour)
}

func TestSlidingArithmetic(t *testing.T) {
	const s = time.Second
	m := newMeter(Sliding, 10, 60*s, 0)
	m.take(0, 4, false)
	m.take(20*s, 4, false)
	want(t, "fits", m.wait(20*s, 2), time.Duration(0))
	want(t, "one too many", m.wait(20*s, 3), 40*s)
	want(t, "needs both gone", m.wait(20*s, 7), 60*s)
	want(t, "just inside the window", m.used(60*s-1), int64(8))
	want(t, "just outside", m.used(60*s), int64(4))
	want(t, "idle", m.idle(60*s), 20*s)
	m.take(61*s, 9, true)
	want(t, "debt", m.used(61*s), int64(13))
	want(t, "wait in debt, for the first to go", m.wait(61*s, 1), 19*s)
	want(t, "wait in debt, for both", m.wait(61*s, 2), 60*s)
	want(t, "empty again", m.idle(200*s), time.Duration(0))
}

func TestSlidingMergesLateChargesOnly(t *testing.T) {
	m := &sliding{limit: 1000, window: time.Minute}
	for i := range 100 {
		m.take(time.Duration(i)*time.Millisecond, 1, true)
	}
	if n := len(m.log.entries()); n > 3 {
		t.Errorf("100 charges in 100 ms take %d entries, want at most 3 of 60 ms", n)
	}
	for i := range 100 {
		m.take(time.Second+time.Duration(i), 1, false)
	}
	if n := len(m.log.entries()); n < 100 {
		t.Errorf("admissions were merged: %d entries", n)
	}
}

// charge is one admission of a property test.
type charged struct {
	at time.Duration
	n  int64
}

// drive offers random amounts at random times, takes what fits, and checks
// that wait tells the truth.
func drive(rt *rapid.T, m meter, limit int64, window time.Duration, late bool) []charged {
	var now time.Duration
	var log []charged
	for range rapid.IntRange(1, 200).Draw(rt, "offers") {
		now += time.Duration(rapid.Int64Range(0, int64(window)/4).Draw(rt, "pause"))
		n := rapid.Int64Range(1, limit).Draw(rt, "n")
		if late && rapid.IntRange(0, 4).Draw(rt, "late") == 0 {
			m.take(now, n, true)
			continue
		}
		w := m.wait(now, n)
		if w > 0 {
			if m.wait(now+w-1, n) <= 0 {
				rt.Fatalf("%d fitted 1 ns before the wait of %s was over", n, w)
			}
			if m.wait(now+w, n) != 0 {
				rt.Fatalf("%d did not fit after the wait of %s", n, w)
			}
			now += w
		}
		m.take(now, n, false)
		log = append(log, charged{now, n})
	}
	return log
}

func limitAndWindow(rt *rapid.T) (int64, time.Duration) {
	return rapid.Int64Range(1, 1000).Draw(rt, "limit"), time.Duration(rapid.Int64Range(1000, 1e11).Draw(rt, "window"))
}

// covers LIM-02: no window admits more than the limit, whatever is charged late besides.
func TestSlidingNeverAdmitsMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit, window := limitAndWindow(rt)
		log := drive(rt, newMeter(Sliding, limit, window, 0), limit, window, true)
		for i, first := range log {
			sum := int64(0)
			for _, c := range log[i:] {
				if c.at-first.at < window {
					sum += c.n
				}
			}
			if sum > limit {
				rt.Fatalf("%d admitted within one window from %s, limit %d", sum, first.at, limit)
			}
		}
	})
}

// covers LIM-02: any span admits at most the capacity plus what it gains meanwhile.
func TestBucketNeverAdmitsMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit, window := limitAndWindow(rt)
		log := drive(rt, newMeter(Bucket, limit, window, 0), limit, window, false)
		for i, first := range log {
			sum := int64(0)
			for _, c := range log[i:] {
				sum += c.n
				gained := float64(limit) * float64(c.at-first.at) / float64(window)
				if float64(sum) > float64(limit)+gained+1e-6 {
					rt.Fatalf("%d admitted in %s, limit %d in %s", sum, c.at-first.at, limit, window)
				}
			}
		}
	})
}

func TestBucketLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit, window := limitAndWindow(rt)
		often, once := newMeter(Bucket, limit, window, 0), newMeter(Bucket, limit, window, 0)
		often.take(0, limit, false)
		once.take(0, limit, false)
		var now time.Duration
		for range rapid.IntRange(1, 50).Draw(rt, "looks") {
			now += time.Duration(rapid.Int64Range(0, int64(window)/60).Draw(rt, "pause"))
			often.used(now)
		}
		if a, b := often.used(now), once.used(now); a != b {
			rt.Fatalf("looked at often: %d used, once: %d", a, b)
		}
	})
}

func TestTimelinePeak(t *testing.T) {
	var log timeline
	for _, c := range []charged{{0, 1}, {5, 2}, {9, 3}, {10, 4}, {14, 5}, {30, 6}} {
		log.add(c.at, c.n, false, 0)
	}
	want(t, "peak of 10", log.peak(10), int64(14)) // from 5 to 14
	want(t, "peak of 1", log.peak(1), int64(6))
	want(t, "peak of all", log.peak(100), int64(21))
	want(t, "peak of nothing", new(timeline).peak(10), int64(0))
}

func TestTimelineStaysSmall(t *testing.T) {
	var log timeline
	for i := range 100_000 {
		log.add(time.Duration(i), 1, false, 0)
		log.forget(time.Duration(i - 100))
	}
	want(t, "sum", log.sum, int64(100))
	if c := cap(log.queue); c > 2000 {
		t.Errorf("100 entries in use hold room for %d", c)
	}
}
