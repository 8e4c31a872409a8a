package redisstore_test

import (
	"sync/atomic"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// covers DIST-07: a replica that stood still for longer than the lease does not use
// the slots that it had in hand, for others have them now.
func TestStaleSlotsAreNotUsed(t *testing.T) {
	t.Parallel()
	at := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	p, lease, slots := prefix(), 500*time.Millisecond, limitstest.Slots("a", 100)
	var calls atomic.Int64
	takes := int64(0)
	still := redisstore.New(redisstore.Connect(at, time.Second), redisstore.Options{
		Prefix: p, Lease: lease, Timeout: time.Second, Called: func(time.Duration, string) { calls.Add(1) },
	})
	t.Cleanup(func() { still.Close() }) // it does not run, so it renews nothing
	other := open(t, at, redisstore.Options{Prefix: p, Lease: time.Minute})
	for takes == calls.Load() && takes < 90 { // until one is taken from those in hand, and more are there
		take(t, still, 1, slots)
		takes++
	}
	sleep(lease + 100*time.Millisecond)
	for n := range 100 {
		if _, v := take(t, other, 1, slots); !v.OK {
			t.Fatalf("slot %d of 100 is refused after the lease", n)
		}
	}
	if _, v := take(t, still, 1, slots); v.OK {
		t.Error("a slot was taken although the other replica holds all")
	}
}

// covers DIST-07: a slot that was granted longer ago than the lease is not used.
func TestLateReplyGrantsNothing(t *testing.T) {
	t.Parallel()
	whole := t // for what holds at any speed
	limitstest.Rounds(t, func(t testing.TB) {
		server := redistest.Start(t)
		p, lease, slots := prefix(), 300*time.Millisecond, limitstest.Slots("a", 4)
		wire := newLossy(t, server.Addr)
		s := redisstore.New(redisstore.Connect(redisstore.Server{Addresses: []string{wire.Addr().String()}}, 3*time.Second),
			redisstore.Options{Prefix: p, Lease: lease, Timeout: 3 * time.Second})
		t.Cleanup(func() { s.Close() })
		ask := func(l *limits.Limit) limits.Verdict {
			v, err := s.Take(t.Context(), lastID.Add(1), &limits.Turn{Team: "a", Weight: 1, Left: time.Minute}, []limits.Charge{{Limit: l, N: 1}})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if !ask(limitstest.Slots("b", 4)).OK { // by which the connection and the script are there
			t.Fatal("refused")
		}
		wire.set(false, lease+200*time.Millisecond)
		if v := ask(slots); v.OK {
			if s.Losses() == 0 {
				whole.Error("a slot of a reply that came after the lease")
			}
			t.Error("a slot without the server, whose reply took longer than the timeout")
		}
	})
}
