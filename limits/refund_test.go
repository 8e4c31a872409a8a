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
		open := 0
		for turn := range rapid.Int64Range(1, 100).Draw(t, "steps") {
			now += rapid.SampledFrom([]micros{0, 1, 10, 50, 500}).Draw(t, "gap")
			s.changing(now)
			i := rapid.IntRange(-1, len(all)-1).Draw(t, "settle")
			if i < 0 || !all[i].open {
				n := rapid.Int64Range(1, 300).Draw(t, "n")
				s.tat = max(s.tat, now) + n // a microsecond is a unit here
				s.past.Reserve(turn)
				all = append(all, charge{now, n, turn, true})
				open++
				continue
			}
			back := rapid.Int64Range(0, all[i].n).Draw(t, "back")
			late := rapid.Int64Range(0, back).Draw(t, "late")
			ends := rapid.Bool().Draw(t, "ends")
			s.tat -= s.past.Refund(all[i].turn, back, ends)
			s.tat = max(s.tat, now) + late
			all[i].n, all[i].open = all[i].n-back, !ends
			all = append(all, charge{now, late, 0, false})
			if ends {
				open--
			}
			if len(s.past) > open {
				t.Fatalf("%d spans remembered for %d open reservations", len(s.past), open)
			}
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
		first[0].Ends, second[0].Ends = true, true
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
