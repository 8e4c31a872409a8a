package limitstest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/limits"
)

// Budget returns a budget for a test.
func Budget(id string, amount int64, window time.Duration) *limits.Limit {
	return &limits.Limit{ID: id, Scope: limits.ScopeTeam, Owner: id, Dimension: limits.Spend, Amount: amount, Burst: amount, Window: window}
}

// begin waits until a window of the budget begins, so that the test fits into it.
func begin(l *limits.Limit, wait func(time.Duration)) {
	now := time.Now().UnixMicro()
	_, end := l.WindowAt(now)
	wait(time.Duration(end-now)*time.Microsecond + 5*time.Millisecond)
}

func budgetWindows(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l, slots := Budget("a", 100, time.Second), Slots("b", 5)
	begin(l, wait)
	mustTake(t, s, limits.Charge{Limit: l, N: 60})
	v := mustRefuse(t, s, limits.Charge{Limit: l, N: 41}, limits.Charge{Limit: slots, N: 1})
	if v.By != l || v.N != 41 || v.After <= 0 || v.After > time.Second {
		t.Errorf("refused by %v for %d, after %v; want the end of the window", v.By, v.N, v.After)
	}
	if got := remaining(t, s, slots); got != 5 {
		t.Errorf("%d slots left, want 5: all or nothing", got)
	}
	raised := *l
	raised.Amount, raised.Burst = 150, 150
	mustTake(t, s, limits.Charge{Limit: &raised, N: 41}) // at once
	mustRefuse(t, s, limits.Charge{Limit: l, N: 1})      // lowered below what is spent
	wait(v.After + time.Millisecond)
	if got := remaining(t, s, l); got != 100 {
		t.Errorf("%d left in a new window, want 100", got)
	}
	mustTake(t, s, limits.Charge{Limit: l, N: 100})
}

func budgetDebt(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l := Budget("a", 100, time.Second)
	begin(l, wait)
	held := []limits.Charge{{Limit: l, N: 80}}
	mustTake(t, s, held...)
	give := func(n int64) {
		t.Helper()
		held[0].N = n
		if err := s.Give(context.Background(), 1, held); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ give, want int64 }{{50, 70}, {-100, -30}, {40, 10}, {1000, 100}} {
		give(step.give)
		if got := remaining(t, s, l); got != step.want {
			t.Errorf("gave %d: %d left, want %d", step.give, got, step.want)
		}
	}
	// What was charged in a window that has passed changes nothing in the next.
	begin(l, wait)
	mustTake(t, s, limits.Charge{Limit: l, N: 30})
	give(80)
	give(-500)
	if got := remaining(t, s, l); got != 70 {
		t.Errorf("%d left, want 70", got)
	}
}

// covers DIST-05
func budgetRestore(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l := Budget("a", 100, 24*time.Hour)
	start, end := l.WindowAt(time.Now().UnixMicro())
	for _, step := range []struct{ start, spent, want int64 }{
		{start, 40, 60}, {start, 20, 60}, {start, 70, 30}, {start - 1, 90, 30}, {end, 90, 30}, {start, 120, -20},
	} {
		if err := s.Restore(context.Background(), l, step.start, step.spent); err != nil {
			t.Fatal(err)
		}
		if got := remaining(t, s, l); got != step.want {
			t.Errorf("restored to %d: %d left, want %d", step.spent, got, step.want)
		}
	}
	mustRefuse(t, s, limits.Charge{Limit: l, N: 1})
}

// covers LIM-08
func budgetCrowd(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l := Budget("a", 100, 24*time.Hour)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			v, err := s.Take(context.Background(), uint64(9000+i), nil, []limits.Charge{{Limit: l, N: 3}})
			if err != nil {
				t.Errorf("Take: %v", err)
			}
			if v.OK {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 33 {
		t.Errorf("%d admitted at 3 of 100 each, want 33", admitted.Load())
	}
}
