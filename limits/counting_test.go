package limits

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// covers LIM-02: answers show whether a provider counts what a request may write at
// most, one alone proves nothing, and what proves the contrary counts as well.
func TestAnswersTellWhatIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a")
		g := &Grant{Lease: &Lease{reserved: Cost{Requests: 1, Input: 100, Output: 50, Predicted: 50}}, Target: up}
		refused := func(left int64) {
			g.RefusedFor(Stated{Dimension: Tokens, Limit: 10_000, Remaining: left, Sent: time.Now()}, 1000)
		}
		admitted := func(left int64) {
			reset := time.Duration(10_000-left) * time.Minute / 10_000
			g.AdmittedFor(Stated{Dimension: Tokens, Limit: 10_000, Remaining: left, Reset: reset, Sent: time.Now()}, 1000)
		}
		expect := func(want bool) {
			t.Helper()
			if got := up.CountsMaximum(); got != want {
				t.Fatalf("maxima counted: %v, want %v", got, want)
			}
		}
		for _, left := range []int64{0, 149, 1100, 9000} {
			refused(left) // too little for any way of counting, or enough for each
		}
		refused(500)
		expect(false)
		time.Sleep(signTime + time.Second)
		refused(500)
		expect(false) // the first one was long ago
		refused(150)
		expect(true)
		admitted(9000) // as if the bucket had been full
		admitted(200)
		admitted(9000)
		expect(true)
		admitted(9001)
		refused(500)
		admitted(9001)
		expect(true)
		admitted(9001)
		expect(false)
		huge := Stated{Dimension: Tokens, Limit: 10_000, Remaining: 500, Sent: time.Now()}
		for range 3 {
			g.RefusedFor(huge, math.MaxInt64) // no way of counting would ever let it in
		}
		expect(false)
	})
}

// What a provider gives back is found in its statements: the least that several of
// them show is credited, once, and nothing where less is configured than it allows.
func TestSurplusIsCredited(t *testing.T) {
	for _, c := range []struct {
		name          string
		amount, burst int64
		want          int64
	}{
		{"the same limit", 6000, 6000, 3000},
		{"a smaller burst", 6000, 1000, 3000},
		{"a smaller limit", 3000, 3000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				l := rateLimit("a", Tokens, c.amount, time.Minute)
				l.Burst = c.burst
				up := w.target("a", l)
				state := func(excess int64) {
					// What was used there is excess less than what was used here.
					g := &Grant{Lease: &Lease{charges: []Charge{{Limit: l, Left: 100, Told: true}}}, Target: up}
					remaining := 6000 - (l.Burst - 100) + excess
					g.Learn(Stated{Dimension: Tokens, Limit: 6000, Remaining: remaining, Reset: time.Minute, Sent: time.Now(), Whole: true})
				}
				for i := range surplusAnswers {
					state(3000 + int64(i%3)*200)
					time.Sleep(time.Second)
				}
				if got := up.Credit(500); got != min(500, c.want) {
					t.Errorf("credit of %d", got)
				}
				state(3000) // an answer that does not know of it yet
				if got := up.Credit(1 << 40); got != max(0, c.want-500) {
					t.Errorf("the rest is %d, want %d", got, max(0, c.want-500))
				}
				if got := up.Credit(1); got != 0 {
					t.Errorf("credited %d twice", got)
				}
				time.Sleep(time.Second)
				for range surplusAnswers {
					state(-1) // used there as well
				}
				if got := up.Credit(1); got != 0 {
					t.Errorf("credit of %d where nothing is left", got)
				}
			})
		})
	}
}

// What a client may ask for does not overflow.
func TestTokensSaturate(t *testing.T) {
	c := Cost{Input: 10, Output: math.MaxInt64}
	if got := c.Tokens(); got != math.MaxInt64 {
		t.Errorf("%d tokens", got)
	}
	l := rateLimit("a", Tokens, 100, time.Minute)
	if _, fits := l.charge(c); fits {
		t.Error("the largest request of all fits a limit of 100")
	}
}
