// Package limitstest is the conformance suite of limits.Store. Every store runs
// it; a store that passes gives the same verdicts as every other.
package limitstest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/limits"
)

// Bucket returns a rate limit for a test.
func Bucket(id string, d limits.Dimension, amount int64, window time.Duration, burst int64) *limits.Limit {
	return &limits.Limit{ID: id, Scope: limits.ScopeTeam, Owner: id, Dimension: d, Amount: amount, Window: window, Burst: burst}
}

// Slots returns a concurrency limit for a test.
func Slots(id string, n int64) *limits.Limit {
	return &limits.Limit{ID: id, Scope: limits.ScopeTeam, Owner: id, Dimension: limits.Concurrency, Amount: n}
}

// Run checks that a store keeps its contract. The function fresh returns an empty
// store; wait lets the store's time pass.
func Run(t *testing.T, fresh func(t testing.TB) limits.Store, wait func(time.Duration)) {
	for name, test := range always {
		t.Run(name, func(t *testing.T) { test(t, fresh(t), wait) })
	}
	for name, test := range timed {
		t.Run(name, func(t *testing.T) {
			Rounds(t, func(t testing.TB) { test(t, fresh(t), wait) })
		})
	}
}

type test = func(testing.TB, limits.Store, func(time.Duration))

// What holds however long the steps of a test take, and what holds only where they
// follow one another within a moment.
var (
	always = map[string]test{
		"burst, then rate":          burstThenRate,
		"all or nothing":            allOrNothing,
		"narrowest refuses":         narrowestRefuses,
		"the longest is named":      longestIsNamed,
		"slots":                     slots,
		"keep stays behind":         keep,
		"a scaled limit is smaller": scaled,
		"shadow never refuses":      shadow,
		"lower only lowers":         lower,
		"what is left, where told":  left,
		"concurrent takes":          concurrent,
		"a budget is restored":      budgetRestore,
		"a budget under a crowd":    budgetCrowd,
	}
	timed = map[string]test{
		"after is the truth":          afterIsTrue,
		"give refunds up to the full": refund,
		"debt is paid off":            debt,
		"a budget and its windows":    budgetWindows,
		"a budget's refunds and debt": budgetDebt,
	}
)

var ids struct {
	sync.Mutex
	last uint64
}

func take(t testing.TB, s limits.Store, charges ...limits.Charge) limits.Verdict {
	t.Helper()
	ids.Lock()
	ids.last++
	id := ids.last
	ids.Unlock()
	v, err := s.Take(context.Background(), id, nil, charges)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return v
}

func mustTake(t testing.TB, s limits.Store, charges ...limits.Charge) {
	t.Helper()
	if v := take(t, s, charges...); !v.OK {
		t.Fatalf("Take refused by %v, after %v", v.By, v.After)
	}
}

func mustRefuse(t testing.TB, s limits.Store, charges ...limits.Charge) limits.Verdict {
	t.Helper()
	v := take(t, s, charges...)
	if v.OK {
		t.Fatal("Take admitted what it should refuse")
	}
	return v
}

func remaining(t testing.TB, s limits.Store, l *limits.Limit) int64 {
	t.Helper()
	levels, err := s.Levels(context.Background(), []*limits.Limit{l})
	if err != nil {
		t.Fatalf("Levels: %v", err)
	}
	return levels[0].Remaining
}

// covers LIM-02
func burstThenRate(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l := Bucket("a", limits.Requests, 100, time.Second, 10)
	for _, step := range []struct{ wait, first time.Duration }{{0, 100 * time.Millisecond}, {100 * time.Millisecond, 0}} {
		began := time.Now()
		wait(step.wait)
		got := 0
		for take(t, s, limits.Charge{Limit: l, N: 1}).OK {
			got++
		}
		// A store that is far away takes time itself, and earns in it.
		most := int((step.first+time.Since(began))/(10*time.Millisecond)) + 1
		if got < 9 || got > most {
			t.Errorf("%d admitted in %v at 100/s, want 10 and at most %d", got, time.Since(began), most)
		}
	}
}

// covers LIM-07
func afterIsTrue(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l := Bucket("a", limits.Tokens, 1000, time.Second, 1000)
	mustTake(t, s, limits.Charge{Limit: l, N: 900})
	v := mustRefuse(t, s, limits.Charge{Limit: l, N: 300})
	if v.By != l || v.After < 150*time.Millisecond || v.After > 210*time.Millisecond {
		t.Fatalf("refused by %v after %v, want about 200 ms", v.By, v.After)
	}
	wait(v.After)
	mustTake(t, s, limits.Charge{Limit: l, N: 300})
}

// covers LIM-06
func allOrNothing(t testing.TB, s limits.Store, _ func(time.Duration)) {
	a, b, c := Bucket("a", limits.Requests, 5, time.Hour, 5), Bucket("b", limits.Tokens, 10, time.Hour, 10), Slots("c", 3)
	mustTake(t, s, limits.Charge{Limit: b, N: 5})
	mustRefuse(t, s, limits.Charge{Limit: a, N: 1}, limits.Charge{Limit: c, N: 1}, limits.Charge{Limit: b, N: 6})
	if got := remaining(t, s, a); got != 5 {
		t.Errorf("requests left: %d, want 5", got)
	}
	if got := remaining(t, s, c); got != 3 {
		t.Errorf("slots left: %d, want 3", got)
	}
}

func narrowestRefuses(t testing.TB, s limits.Store, _ func(time.Duration)) {
	narrow, wide := Bucket("n", limits.Requests, 60, time.Minute, 1), Bucket("w", limits.Requests, 6, time.Minute, 1)
	narrow.Group, wide.Group = "one", "one" // a store that asks one owner after the other stops at the first refusal
	mustTake(t, s, limits.Charge{Limit: narrow, N: 1}, limits.Charge{Limit: wide, N: 1})
	v := mustRefuse(t, s, limits.Charge{Limit: narrow, N: 1}, limits.Charge{Limit: wide, N: 1})
	if v.By != narrow {
		t.Errorf("refused by %v, want the narrower limit", v.By)
	}
	if v.After < 9*time.Second || v.After > 10*time.Second || v.Last != wide {
		t.Errorf("after %v because of %v, want the longer wait of 10 s", v.After, v.Last)
	}
}

// covers LIM-07
func longestIsNamed(t testing.TB, s limits.Store, _ func(time.Duration)) {
	slots, short := Slots("slots", 1), Bucket("short", limits.Tokens, 600, time.Minute, 60)
	day, long := Budget("day", 50, 24*time.Hour), Bucket("long", limits.Requests, 1, 100*24*time.Hour, 1)
	all := []limits.Charge{{Limit: slots, N: 1}, {Limit: short, N: 60}, {Limit: day, N: 40}, {Limit: long, N: 1}}
	for i := range all {
		all[i].Limit.Group = "one"
	}
	mustTake(t, s, all...)
	for i, last := range all { // each refuses for longer than those before it
		v := mustRefuse(t, s, all[:i+1]...)
		if v.By != slots || v.Last != last.Limit || v.N != last.N {
			t.Errorf("refused by %v, for the longest by %v of %d; want %v of %d", v.By, v.Last, v.N, last.Limit, last.N)
		}
		slices.Reverse(all[:i+1])
		v = mustRefuse(t, s, all[:i+1]...)
		if slices.Reverse(all[:i+1]); v.By != last.Limit || v.Last != last.Limit || v.N != last.N {
			t.Errorf("refused by %v, for the longest by %v of %d; want %v of %d", v.By, v.Last, v.N, last.Limit, last.N)
		}
	}
}

// covers LIM-01
func slots(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l := Slots("a", 2)
	ctx := context.Background()
	for id := range uint64(2) {
		if v, err := s.Take(ctx, 1000+id, nil, []limits.Charge{{Limit: l, N: 1}}); err != nil || !v.OK {
			t.Fatalf("slot %d: %v %v", id, v, err)
		}
	}
	v := mustRefuse(t, s, limits.Charge{Limit: l, N: 1})
	if v.After != 0 {
		t.Errorf("a missing slot has no known end, got %v", v.After)
	}
	if err := s.Give(ctx, 1000, []limits.Charge{{Limit: l, N: 1}}); err != nil {
		t.Fatal(err)
	}
	mustTake(t, s, limits.Charge{Limit: l, N: 1})
	mustRefuse(t, s, limits.Charge{Limit: l, N: 1})
}

func refund(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l := Bucket("a", limits.Tokens, 1000, time.Hour, 1000)
	charges := []limits.Charge{{Limit: l, N: 800}}
	mustTake(t, s, charges...)
	charges[0].N = 500
	if err := s.Give(context.Background(), 1, charges); err != nil {
		t.Fatal(err)
	}
	if got := remaining(t, s, l); got < 699 || got > 700 {
		t.Errorf("left %d, want 700", got)
	}
	charges[0].N = 5000
	if err := s.Give(context.Background(), 2, charges); err != nil {
		t.Fatal(err)
	}
	wait(10 * time.Millisecond)
	if got := remaining(t, s, l); got != 1000 {
		t.Errorf("left %d, want no more than the burst of 1000", got)
	}
	mustTake(t, s, limits.Charge{Limit: l, N: 1000})
	mustRefuse(t, s, limits.Charge{Limit: l, N: 10})
}

func debt(t testing.TB, s limits.Store, wait func(time.Duration)) {
	l := Bucket("a", limits.Tokens, 1000, time.Second, 100)
	if err := s.Give(context.Background(), 1, []limits.Charge{{Limit: l, N: -300}}); err != nil {
		t.Fatal(err)
	}
	if got := remaining(t, s, l); got > -190 {
		t.Errorf("left %d, want a debt of 200", got)
	}
	v := mustRefuse(t, s, limits.Charge{Limit: l, N: 1})
	wait(v.After)
	mustTake(t, s, limits.Charge{Limit: l, N: 1})
}

func keep(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l, c := Bucket("a", limits.Tokens, 100, time.Hour, 100), Slots("c", 10)
	mustTake(t, s, limits.Charge{Limit: l, N: 60, Keep: 40})
	mustRefuse(t, s, limits.Charge{Limit: l, N: 20, Keep: 25})
	mustTake(t, s, limits.Charge{Limit: l, N: 20})
	for range 7 {
		mustTake(t, s, limits.Charge{Limit: c, N: 1, Keep: 3})
	}
	mustRefuse(t, s, limits.Charge{Limit: c, N: 1, Keep: 3})
	mustTake(t, s, limits.Charge{Limit: c, N: 1})
}

func scaled(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l, c := Bucket("a", limits.Requests, 100, time.Hour, 100), Slots("c", 10)
	for range 50 {
		mustTake(t, s, limits.Charge{Limit: l, N: 1, Scale: 500})
	}
	mustRefuse(t, s, limits.Charge{Limit: l, N: 1, Scale: 500})
	for range 5 {
		mustTake(t, s, limits.Charge{Limit: c, N: 1, Scale: 500})
	}
	mustRefuse(t, s, limits.Charge{Limit: c, N: 1, Scale: 500})
	mustTake(t, s, limits.Charge{Limit: c, N: 1, Scale: 1000})
}

func shadow(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l := Bucket("a", limits.Requests, 2, time.Hour, 2)
	l.Shadow = true
	over := 0
	for range 5 {
		charges := []limits.Charge{{Limit: l, N: 1}}
		mustTake(t, s, charges...)
		if charges[0].Over {
			over++
		}
		if charges[0].Over {
			if err := s.Give(context.Background(), 9, charges); err != nil {
				t.Fatal(err)
			}
		}
	}
	if over != 3 {
		t.Errorf("%d would have been refused, want 3", over)
	}
	if got := remaining(t, s, l); got != 0 {
		t.Errorf("left %d, want 0: what is over is not charged", got)
	}
}

func lower(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l := Bucket("a", limits.Requests, 100, time.Hour, 100)
	ctx := context.Background()
	for _, step := range []struct{ to, want int64 }{{150, 100}, {40, 40}, {60, 40}, {0, 0}} {
		if err := s.Lower(ctx, l, step.to); err != nil {
			t.Fatal(err)
		}
		if got := remaining(t, s, l); got != step.want {
			t.Errorf("lowered to %d: %d left, want %d", step.to, got, step.want)
		}
	}
}

// covers LIM-01, LIM-08
func concurrent(t testing.TB, s limits.Store, _ func(time.Duration)) {
	l, c := Bucket("a", limits.Requests, 50, 24*time.Hour, 50), Slots("c", 20)
	var wg sync.WaitGroup
	var mu sync.Mutex
	buckets, slots := 0, 0
	for i := range 200 {
		wg.Go(func() {
			a, err1 := s.Take(context.Background(), uint64(5000+i), nil, []limits.Charge{{Limit: l, N: 1}})
			b, err2 := s.Take(context.Background(), uint64(6000+i), nil, []limits.Charge{{Limit: c, N: 1}})
			mu.Lock()
			defer mu.Unlock()
			if err1 != nil || err2 != nil {
				t.Errorf("Take: %v %v", err1, err2)
			}
			if a.OK {
				buckets++
			}
			if b.OK {
				slots++
			}
		})
	}
	wg.Wait()
	if buckets != 50 || slots != 20 {
		t.Errorf("admitted %d and %d, want 50 and 20", buckets, slots)
	}
}

// left: a store that tells what remains of a limit tells the truth, whether it
// admits or refuses.
func left(t testing.TB, s limits.Store, _ func(time.Duration)) {
	rate, slots := Bucket("a", limits.Tokens, 10, time.Hour, 10), Slots("b", 3)
	for i, want := range [][2]int64{{6, 2}, {2, 1}, {2, 1}} {
		charges := []limits.Charge{{Limit: rate, N: 4}, {Limit: slots, N: 1}}
		if v := take(t, s, charges...); v.OK != (i < 2) {
			t.Fatalf("take %d: %v", i, v.OK)
		}
		for j, c := range charges {
			if c.Told && c.Left != want[j] {
				t.Errorf("take %d: %d left of %s, want %d", i, c.Left, c.Limit, want[j])
			}
		}
	}
}
