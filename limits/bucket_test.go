package limits

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// covers LIM-02: over any sequence of charges and times, what is admitted in any
// window is at most burst + rate × T, and a bucket in constant demand is used to
// at least 98 %.
func TestBucketBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{
			amount: rapid.Int64Range(1, 1_000_000).Draw(t, "amount"),
			window: rapid.SampledFrom([]int64{1e6, 60e6, 3600e6, 86400e6}).Draw(t, "window"),
		}
		r.burst = rapid.Int64Range(1, r.amount*2).Draw(t, "burst")
		type event struct{ at, n int64 }
		var log []event
		var tat, now int64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Int64Range(0, r.window/4).Draw(t, "gap")
			n := rapid.Int64Range(1, r.burst).Draw(t, "n")
			next, wait, ok := r.Take(tat, now, n, 0)
			if !ok {
				if _, _, again := r.Take(tat, now+wait, n, 0); !again {
					t.Fatalf("still refused after the stated wait of %d µs", wait)
				}
				if wait > 1 {
					if _, _, early := r.Take(tat, now+wait-2, n, 0); early {
						t.Fatalf("the stated wait of %d µs is too long", wait)
					}
				}
				continue
			}
			tat = next
			log = append(log, event{now, n})
		}
		for i := range log {
			var sum int64
			for j := i; j < len(log); j++ {
				sum += log[j].n
				bound := float64(r.burst) + float64(r.amount)*float64(log[j].at-log[i].at)/float64(r.window) + 1
				if float64(sum) > bound {
					t.Fatalf("%d units in %d µs, bound %f", sum, log[j].at-log[i].at, bound)
				}
			}
		}
	})
}

func TestBucketUsesItsRate(t *testing.T) {
	for _, r := range []Rate{{500, 60e6, 500}, {2_000_000, 60e6, 2_000_000}, {10, 1e6, 1}, {1_000_000_000, 86400e6, 1_000_000}} {
		n := max(1, r.amount/1000)
		var tat, now, sum int64
		tat = r.Worth(r.burst) // start empty
		for now < 10*r.window {
			next, wait, ok := r.Take(tat, now, n, 0)
			if !ok {
				now += wait
				continue
			}
			tat, sum = next, sum+n
		}
		if used := float64(sum) / float64(10*r.amount); used < 0.98 || used > 1.01 {
			t.Errorf("%+v: used %.3f of the rate", r, used)
		}
	}
}

// covers LIM-03, LIM-05
func TestBucketArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{amount: rapid.Int64Range(1, 1<<40).Draw(t, "amount"), window: rapid.Int64Range(1e6, 86400e6*31).Draw(t, "window")}
		r.burst = rapid.Int64Range(1, r.amount).Draw(t, "burst")
		now := rapid.Int64Range(0, 1<<52).Draw(t, "now")
		n := rapid.Int64Range(1, r.burst).Draw(t, "n")
		tat, _, ok := r.Take(now, now, n, 0)
		if !ok {
			t.Fatal("a full bucket refused less than its burst")
		}
		if back := r.Give(tat, now, n); back < now || back > now+1 {
			t.Fatalf("taking and giving %d moves the bucket by %d µs", n, back-now)
		}
		if lvl := r.Level(tat, now); lvl > r.burst-n || lvl < 0 {
			if lvl < r.burst-n-1-r.amount/r.window*2 {
				t.Fatalf("level %d after %d of %d", lvl, n, r.burst)
			}
		}
		// Time that runs backwards earns nothing.
		if _, _, ok := r.Take(tat, now-time.Hour.Microseconds(), r.burst, 0); ok {
			t.Fatal("a clock that jumped back granted a burst")
		}
	})
}

func TestSaturation(t *testing.T) {
	r := Rate{amount: 1, window: 31 * 86400e6, burst: 1 << 62}
	if w := r.Worth(1 << 62); w <= 0 {
		t.Errorf("worth overflowed: %d", w)
	}
	if tat := r.Give(0, 1<<52, -(1 << 62)); tat <= 0 {
		t.Errorf("debt overflowed: %d", tat)
	}
	if l := r.Level(1<<62, 0); l > r.burst {
		t.Errorf("level overflowed: %d", l)
	}
}
