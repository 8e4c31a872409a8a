package redisstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

var lastID atomic.Uint64

// take asks a store for one charge of each limit.
func take(t testing.TB, s limits.Store, n int64, all ...*limits.Limit) (*held, limits.Verdict) {
	t.Helper()
	h := &held{s: s, id: lastID.Add(1)}
	for _, l := range all {
		h.charges = append(h.charges, limits.Charge{Limit: l, N: n})
	}
	v, err := s.Take(t.Context(), h.id, nil, h.charges)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return h, v
}

type held struct {
	s       limits.Store
	id      uint64
	charges []limits.Charge
}

// settle ends what is held, after used units.
func (h *held) settle(used int64) {
	for i := range h.charges {
		h.charges[i].N -= used
		h.charges[i].Ends = true
	}
	_ = h.s.Give(context.Background(), h.id, h.charges)
}

// An event is an admission of n units at some time after it was asked for and before
// it was known.
type event struct {
	asked, known time.Time
	n            int64
}

// bound fails the test if more than burst + rate × T was admitted in any span. A
// busy machine learns of an admission late, so a span counts only what was both asked
// for and known in it; slack is added to its length.
func bound(t testing.TB, events []event, l *limits.Limit, slack time.Duration) {
	t.Helper()
	slices.SortFunc(events, func(a, b event) int { return a.known.Compare(b.known) })
	for _, first := range events {
		sum := int64(0)
		for _, e := range events {
			if e.asked.Before(first.asked) {
				continue
			}
			sum += e.n
			span := e.known.Sub(first.asked) + slack
			if most := float64(l.Burst) + float64(l.Amount)*float64(span)/float64(l.Window) + 1; float64(sum) > most {
				t.Errorf("%d units in %v, at most %.0f may be", sum, span, most)
				return
			}
		}
	}
}

// covers DIST-01: what several replicas admit together is bounded like one bucket,
// whether they charge one by one or in chunks.
func TestReplicasShareARate(t *testing.T) {
	t.Parallel()
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	for name, l := range map[string]*limits.Limit{
		"one by one": limitstest.Bucket("a", limits.Requests, 200, time.Second, 30),
		"in chunks":  limitstest.Bucket("b", limits.Requests, 30_000, time.Minute, 3000),
		"both":       limitstest.Bucket("c", limits.Requests, 60_000, time.Minute, 1500),
	} {
		t.Run(name, func(t *testing.T) {
			least := float64(l.Burst) + float64(l.Amount)*2.5/l.Window.Seconds()
			// Only a machine that is not busy asks often enough to use all of it. One that
			// is busy all the time is asked for a third.
			busy, best := true, 0.0
			for range 4 {
				late := limitstest.WatchLateness()
				best = max(best, shareARate(t, server, l))
				late.End()
				busy = busy && late.Busy()
				if name != "one by one" || best >= 0.9*least {
					return
				}
				t.Logf("%.0f admitted, of %.0f; late by up to %v", best, least, late.Most)
			}
			if !busy || best < least/3 {
				t.Error("never nearly all was admitted")
			}
		})
	}
}

// shareARate takes from a rate at three replicas for 2.5 s, checks that they keep
// its bound, and returns how much they took.
func shareARate(t *testing.T, server redisstore.Server, l *limits.Limit) (sum float64) {
	t.Helper()
	p := prefix()
	var mu sync.Mutex
	var log []event
	var wg sync.WaitGroup
	stop := time.Now().Add(2500 * time.Millisecond)
	for range 3 {
		s := open(t, server, redisstore.Options{Prefix: p, Replicas: 3})
		for range 4 {
			wg.Go(func() {
				for time.Now().Before(stop) {
					asked := time.Now()
					h, v := take(t, s, 2, l)
					if !v.OK {
						sleep(time.Millisecond)
						continue
					}
					mu.Lock()
					log = append(log, event{asked, time.Now(), 2})
					mu.Unlock()
					sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
					if rand.IntN(2) == 0 {
						h.settle(2)
					}
				}
			})
		}
	}
	wg.Wait()
	bound(t, log, l, 30*time.Millisecond)
	for _, e := range log {
		sum += float64(e.n)
	}
	return sum
}

// covers DIST-01, DIST-07
func TestReplicasShareSlots(t *testing.T) {
	t.Parallel()
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	for _, n := range []int64{5, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			// Only a machine that is not busy asks often enough to use all of them.
			for range 4 {
				if shareSlots(t, server, n) >= n*9/10 {
					return
				}
			}
			t.Error("never nearly all slots were in use")
		})
	}
}

// shareSlots takes n slots at three replicas for 2 s, checks that there are no more, and
// returns how many were in use at once.
func shareSlots(t *testing.T, server redisstore.Server, n int64) int64 {
	t.Helper()
	l, p := limitstest.Slots("a", n), prefix()
	var inUse, peak atomic.Int64
	var wg sync.WaitGroup
	stop := time.Now().Add(2 * time.Second)
	for range 3 {
		s := open(t, server, redisstore.Options{Prefix: p})
		for range 60 {
			wg.Go(func() {
				for time.Now().Before(stop) {
					h, v := take(t, s, 1, l)
					if !v.OK {
						sleep(2 * time.Millisecond)
						continue
					}
					for now := inUse.Add(1); ; {
						if old := peak.Load(); now <= old || peak.CompareAndSwap(old, now) {
							break
						}
					}
					sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
					inUse.Add(-1)
					h.settle(1)
				}
			})
		}
	}
	wg.Wait()
	if peak.Load() > n {
		t.Fatalf("%d slots in use at once, want at most %d", peak.Load(), n)
	}
	return peak.Load()
}

// covers DIST-07: the slots of a replica that dies come back within the lease
// time, those of one that lives stay its own for as long as it holds them, and one
// that was cut off gives back nobody else's.
func TestSlotsOfADeadReplicaComeBack(t *testing.T) {
	t.Parallel()
	whole := t // for what holds at any speed
	limitstest.Rounds(t, func(t testing.TB) {
		server := redistest.Start(t)
		at := redisstore.Server{Addresses: []string{server.Addr}}
		p, lease := prefix(), 1500*time.Millisecond
		l := limitstest.Slots("a", 4)
		living := open(t, at, redisstore.Options{Prefix: p, Lease: lease})
		client := redisstore.Connect(at, time.Second)
		dying := redisstore.New(client, redisstore.Options{Prefix: p, Lease: lease, Timeout: time.Second})
		var dead []*held
		var renewed time.Time // at the earliest
		for range 2 {
			take(t, living, 1, l)
			renewed = time.Now()
			h, v := take(t, dying, 1, l)
			if !v.OK {
				t.Fatal("refused")
			}
			dead = append(dead, h)
		}
		died := time.Now() // it has never run, so it does not renew
		// Whether the living one renews in time depends on the machine, and so does what it
		// gets if it has not. What it has of the dead one's before the lease has ended does not.
		early := func(n int) {
			if took := time.Since(renewed); n > 0 && took < lease-100*time.Millisecond {
				whole.Errorf("%d slots of the dead one were back after %v, before the lease had ended", n, took)
			}
		}
		if _, v := take(t, living, 1, l); v.OK {
			early(1)
			t.Fatal("a fifth slot")
		}
		for n := 0; n < 2; {
			if _, v := take(t, living, 1, l); v.OK {
				n++
			}
			early(n)
			if took := time.Since(died); took > lease+5*time.Second {
				t.Fatalf("after %v only %d slots are back", took, n)
			}
			sleep(20 * time.Millisecond)
		}
		sleep(2 * lease) // the living one renews
		if _, v := take(t, dying, 1, l); v.OK {
			t.Error("a slot was taken although the living replica holds all four")
		}
		for _, h := range dead {
			h.settle(1)
		}
		_ = dying.Close()
		if _, v := take(t, living, 1, l); v.OK {
			t.Error("a late release has freed a slot of another replica")
		}
	})
}

// covers DIST-05: after a restart the server is told what was known, so that
// hardly more than the limit is admitted.
func TestAnEmptyServerIsTold(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	at := redisstore.Server{Addresses: []string{server.Addr}}
	p := prefix()
	rate, slot := limitstest.Bucket("a", limits.Tokens, 1000, 24*time.Hour, 1000), limitstest.Slots("b", 4)
	rate.Group, slot.Group = "team/t", "team/t"
	budget := limitstest.Budget("c", 1000, 24*time.Hour)
	budget.Group = "team/t"
	one, two := open(t, at, redisstore.Options{Prefix: p}), open(t, at, redisstore.Options{Prefix: p})
	for _, s := range []limits.Store{one, two} {
		if _, v := take(t, s, 400, rate, budget); !v.OK {
			t.Fatal("refused")
		}
		if _, v := take(t, s, 1, slot); !v.OK {
			t.Fatal("refused")
		}
	}
	server.Kill()
	server.Restart()
	for _, s := range []*redisstore.Store{one, two} { // until it is told by both
		left(t, s, rate, 200)
		left(t, s, budget, 200)
		left(t, s, slot, 2)
	}
	admitted := int64(0)
	for range 20 {
		if _, v := take(t, one, 50, rate, budget); v.OK {
			admitted += 50
		}
	}
	if admitted > 200 {
		t.Errorf("%d units admitted after a restart, want the 200 that were left", admitted)
	}
	n := 0
	for range 4 {
		if _, v := take(t, two, 1, slot); v.OK {
			n++
		}
	}
	if n > 2 {
		t.Errorf("%d slots taken after a restart, 2 were free", n)
	}
}
