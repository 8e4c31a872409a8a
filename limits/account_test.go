package limits

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What a request waited for is told with its grant, or with its refusal.
func TestGrantTellsWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		slots := slotsOf("a", 1)
		a, b := w.target("a", slots), w.target("b")
		b.Pause(time.Now().Add(time.Hour))
		first, err := w.q.Acquire(t.Context(), request("t", 1, 10, a))
		if err != nil || len(first.Held) != 0 {
			t.Fatalf("%v, held %v", err, first.Held)
		}
		time.AfterFunc(time.Second, func() { first.Settle(Cost{Requests: 1}) })
		second, err := w.q.Acquire(t.Context(), request("t", 1, 10, b, a))
		if err != nil {
			t.Fatal(err)
		}
		want := []Hold{{"b/m", nil}, {"a/m", slots}}
		if len(second.Held) != 2 || second.Held[0] != want[0] || second.Held[1] != want[1] {
			t.Errorf("held %v, want %v", second.Held, want)
		}
		_, err = w.q.Acquire(t.Context(), Request{Team: "t", Weight: 1, Class: Interactive, Cost: Cost{Requests: 1}, Targets: []*Target{a}})
		var over *Exceeded
		if !errors.As(err, &over) || len(over.Held) != 1 || over.Held[0] != want[1] {
			t.Errorf("%v, held %+v", err, over)
		}
		second.Release()
	})
}

func TestEntriesTellWhatWasTakenAndUsed(t *testing.T) {
	m := NewMemory()
	tokens, slot := rateLimit("tokens", Tokens, 1000, time.Hour), slotsOf("slots", 5)
	lease, err := Reserve(t.Context(), m, []*Limit{tokens, slot}, Cost{Requests: 1, Input: 100, Output: 200})
	if err != nil {
		t.Fatal(err)
	}
	lease.Extend(Cost{Output: 50})
	check := func(settled int64) {
		t.Helper()
		got := lease.Entries(nil)
		want := []Entry{{Limit: tokens, Reserved: 350, Settled: settled, Left: 700, Told: true}, {Limit: slot, Reserved: 1, Left: 4, Told: true}}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("entry %+v, want %+v", got[i], want[i])
			}
		}
	}
	check(0)
	lease.Settle(Cost{Requests: 1, Input: 100, Output: 20})
	check(120)
	_, err = Reserve(t.Context(), m, []*Limit{tokens, slot}, Cost{Requests: 1, Input: 1000})
	var over *Exceeded
	if !errors.As(err, &over) || len(over.Checked) != 2 || over.Checked[0].Left != 880 {
		t.Errorf("%v, checked %+v", err, over)
	}
}
