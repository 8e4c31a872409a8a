package limits

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// covers LIM-02, LIM-03: after any sequence of reservations and settlements the
// bucket stands where it would stand had everything been charged rightly from the
// start: never fuller, and not emptier either.
func TestRefundsLeaveWhatWouldBeLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type charge struct {
			at   micros
			n    micros // as it is known by now
			turn int64
			open bool
		}
		var s state
		var all []charge
		var now micros
		m := Memory{}
		change := func(n micros) { // a microsecond is a unit here
			m.changing(&s, now)
			s.tat = max(s.tat, now) + n
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]micros{0, 1, 10, 50, 500}).Draw(t, "gap")
			i := rapid.IntRange(-1, len(all)-1).Draw(t, "settle")
			if i < 0 || !all[i].open {
				n := rapid.Int64Range(1, 300).Draw(t, "n")
				change(n)
				all = append(all, charge{now, n, m.turn, true})
				continue
			}
			back := rapid.Int64Range(0, all[i].n).Draw(t, "back")
			late := rapid.Int64Range(0, back).Draw(t, "late")
			m.changing(&s, now)
			s.tat -= s.lows.refund(all[i].turn, back)
			s.tat = max(s.tat, now)
			s.tat += late
			all[i].n, all[i].open = all[i].n-back, false
			all = append(all, charge{now, late, m.turn, false})
		}
		var want micros
		for _, c := range all {
			want = max(want, c.at) + c.n
		}
		if got := max(s.tat-now, 0); got != max(want-now, 0) {
			t.Fatalf("%d left to pay, want %d", got, want-now)
		}
	})
}

// However long a bucket is used without a rest, little is remembered, and the
// refund errs on the small side.
func TestLowsAreFew(t *testing.T) {
	var l lows
	for i := range int64(10_000) {
		l.note(i, i*i)
	}
	if len(l) > maxLows {
		t.Fatalf("%d lows", len(l))
	}
	if got := l.refund(5000, 1<<40); got > 5001*5001 || got < 4500*4500 {
		t.Errorf("%d may be given back, want at most the %d that were left after it", got, 5001*5001)
	}
}

// covers LIM-02: requests that are reserved for long and turn out short do not
// lend the bucket a second burst.
func TestRefundAfterARestGivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ctx := NewMemory(), context.Background()
		l := rateLimit("a", Tokens, 6000, time.Minute)
		first := []Charge{{Limit: l, N: 5000}}
		if v, _ := m.Take(ctx, 1, nil, first); !v.OK {
			t.Fatal("refused")
		}
		time.Sleep(50 * time.Second) // full again
		second := []Charge{{Limit: l, N: 5000}}
		if v, _ := m.Take(ctx, 2, nil, second); !v.OK {
			t.Fatal("refused")
		}
		_ = m.Give(ctx, 1, first)
		if levels, _ := m.Levels(ctx, []*Limit{l}); levels[0].Remaining != 1000 {
			t.Errorf("%d left, want 1000", levels[0].Remaining)
		}
		_ = m.Give(ctx, 2, second)
		if levels, _ := m.Levels(ctx, []*Limit{l}); levels[0].Remaining != 6000 {
			t.Errorf("%d left, want all of it", levels[0].Remaining)
		}
	})
}
