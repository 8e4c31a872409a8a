package redisstore_test

import (
	"context"
	"fmt"
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

// large is what a team and an upstream may use together that serve 500 requests a
// second of 800 tokens with room to spare.
func large() (team []*limits.Limit, up []*limits.Limit) {
	limit := func(s limits.Scope, owner string, d limits.Dimension, amount int64) *limits.Limit {
		return &limits.Limit{ID: s.String() + "/" + owner + "/" + d.String(), Scope: s, Owner: owner, Dimension: d, Amount: amount, Burst: amount, Window: time.Minute, Wait: s >= limits.ScopeModel}
	}
	team = []*limits.Limit{limit(limits.ScopeTeam, "t", limits.Requests, 60_000), limit(limits.ScopeTeam, "t", limits.Tokens, 60_000_000)}
	up = []*limits.Limit{limit(limits.ScopeUpstream, "u", limits.Requests, 60_000), limit(limits.ScopeUpstream, "u", limits.Tokens, 60_000_000), limit(limits.ScopeUpstream, "u", limits.Concurrency, 400)}
	return team, up
}

// figures of a run.
type figures struct {
	admitted, refused int64
	calls             int64
	waits             []time.Duration // of admissions
}

func (f *figures) perRequest() float64 { return float64(f.calls) / float64(max(1, f.admitted)) }

func (f *figures) at(q float64) time.Duration {
	if len(f.waits) == 0 {
		return 0
	}
	slices.Sort(f.waits)
	return f.waits[int(q*float64(len(f.waits)-1))]
}

// drive asks for so many requests a second at each of several replicas.
func drive(t testing.TB, server redisstore.Server, replicas, perSecond int, d time.Duration, charges func(n int64) []limits.Charge) *figures {
	t.Helper()
	var f figures
	var calls, measured atomic.Int64
	var mu sync.Mutex
	var work sync.WaitGroup
	p := prefix()
	stores := make([]*redisstore.Store, replicas)
	for i := range stores {
		stores[i] = open(t, server, redisstore.Options{Prefix: p, Called: func(time.Duration, string) { calls.Add(measured.Load()) }})
	}
	request := func(s *redisstore.Store) {
		id, n := lastID.Add(1), int64(500+lastID.Load()%600)
		all := charges(n)
		began := time.Now()
		v, err := s.Take(context.Background(), id, nil, all)
		took := time.Since(began)
		if err != nil {
			t.Errorf("Take: %v", err)
			return
		}
		if measured.Load() == 1 {
			mu.Lock()
			if v.OK {
				f.admitted++
				f.waits = append(f.waits, took)
			} else {
				f.refused++
			}
			mu.Unlock()
		}
		if !v.OK {
			return
		}
		sleep(200 * time.Millisecond)
		for i := range all {
			all[i].Ends = true
			if all[i].Limit.Dimension != limits.Concurrency {
				all[i].N = n / 8 // what was reserved and not used
			}
			if all[i].Limit.Dimension == limits.Requests {
				all[i].N = 0
			}
		}
		_ = s.Give(context.Background(), id, all)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	warm := 1500 * time.Millisecond // chunks come once a limit is in use
	for done := 0; ; {
		now := <-tick.C
		if now.Sub(begin) > warm {
			measured.Store(1)
		}
		if now.Sub(begin) > warm+d {
			break
		}
		for due := int(now.Sub(begin).Seconds() * float64(perSecond)); done < due; done++ {
			s := stores[done%replicas]
			work.Go(func() { request(s) })
		}
	}
	measured.Store(0)
	f.calls = calls.Load()
	work.Wait()
	return &f
}

func chargesOf(n int64, all ...*limits.Limit) []limits.Charge {
	out := make([]limits.Charge, 0, len(all))
	for _, l := range all {
		c := limits.Charge{Limit: l, N: 1}
		if l.Dimension == limits.Tokens {
			c.N = n
		}
		out = append(out, c)
	}
	return out
}

// Large limits cost few calls: 500 requests a second, of a team and an upstream, at
// one replica and at three. When nobody asks any more, nothing is held.
func TestCallsOfLargeLimits(t *testing.T) {
	server := redistest.Start(t)
	at := redisstore.Server{Addresses: []string{server.Addr}}
	team, up := large()
	all := slices.Concat(team, up)
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			// The best of four rounds: a machine that stands still for half a second uses
			// up the slots, and then each request takes a call. Where it was busy in each
			// round, a request may cost one.
			most := 1.0
			for round := 1; ; round++ {
				late := limitstest.WatchLateness()
				f := drive(t, at, replicas, 500, 3*time.Second, func(n int64) []limits.Charge { return chargesOf(n, all...) })
				t.Logf("%d admitted, %d refused, %d calls: %.3f a request; p50 %v, p99 %v", f.admitted, f.refused, f.calls, f.perRequest(), f.at(0.5), f.at(0.99))
				late.End()
				if !late.Busy() {
					most = 0.2
				}
				if f.refused <= f.admitted/2 && f.perRequest() <= 0.2 {
					return
				}
				if round < 4 {
					continue
				}
				if f.perRequest() > most {
					t.Fatalf("%.3f calls a request, want at most %.1f; %d refused", f.perRequest(), most, f.refused)
				}
				return
			}
		})
	}
	small := &limits.Limit{ID: "team/s/requests", Scope: limits.ScopeTeam, Owner: "s", Dimension: limits.Requests, Amount: 1000, Burst: 10, Window: time.Second}
	limitstest.Rounds(t, func(t testing.TB) {
		f := drive(t, at, 1, 100, time.Second, func(n int64) []limits.Charge { return chargesOf(n, small) })
		t.Logf("small: %d admitted, %d calls: %.3f a request; p50 %v, p99 %v", f.admitted, f.calls, f.perRequest(), f.at(0.5), f.at(0.99))
		if f.perRequest() > 1.2 {
			t.Errorf("%.3f calls a request of a small limit, want one and the heartbeat", f.perRequest())
		}
	})
}

// Slots that are held for a moment, many times a second, cost few calls too.
func TestCallsOfShortHolds(t *testing.T) {
	t.Parallel()
	limitstest.Rounds(t, func(t testing.TB) {
		server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
		var calls atomic.Int64
		s := open(t, server, redisstore.Options{Prefix: prefix(), Called: func(time.Duration, string) { calls.Add(1) }})
		slots := limitstest.Slots("slots", 400)
		rounds := func(n int) {
			for i := range n {
				var some []*held
				for range 1 + i%5 {
					h, v := take(t, s, 1, slots)
					if !v.OK {
						t.Fatal("refused")
					}
					some = append(some, h)
				}
				sleep(time.Millisecond)
				for _, h := range some {
					h.settle(1)
				}
				sleep(2 * time.Millisecond)
			}
		}
		rounds(50)
		before := calls.Load()
		rounds(150)
		if n := calls.Load() - before; n > 150 {
			t.Errorf("%d calls for 450 takes", n)
		}
	})
}

// What a replica holds in advance, of money and slots, it gives back when nobody asks
// any more.
func TestNothingIsHeldWhenIdle(t *testing.T) {
	t.Parallel()
	limitstest.Rounds(t, func(t testing.TB) {
		server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
		p := prefix()
		var calls atomic.Int64
		a := open(t, server, redisstore.Options{Prefix: p, Called: func(time.Duration, string) { calls.Add(1) }})
		b := open(t, server, redisstore.Options{Prefix: p})
		budget, slots := limitstest.Budget("money", 1_000_000, 24*time.Hour), limitstest.Slots("slots", 400)
		budget.Group, slots.Group = "team/t", "team/t"
		var held []*held
		for range 300 {
			h, v := take(t, a, 100, budget, slots)
			if !v.OK {
				t.Fatal("refused")
			}
			held = append(held, h)
		}
		if n := calls.Load(); n > 150 {
			t.Errorf("%d calls for 300 takes of large limits", n)
		}
		for _, h := range held {
			h.settle(70)
		}
		left(t, b, budget, 1_000_000-300*70)
		left(t, b, slots, 400)
	})
}

// BenchmarkTake tells what a take and its end cost, and how many calls they need.
func BenchmarkTake(b *testing.B) {
	server := redisstore.Server{Addresses: []string{redistest.Start(b).Addr}}
	team, up := large()
	for _, l := range append(team, up[:2]...) {
		l.Amount, l.Burst = 60_000_000, 60_000_000 // enough for a benchmark's rate
	}
	for name, all := range map[string][]*limits.Limit{"large": slices.Concat(team, up), "small": {limitstest.Bucket("small", limits.Requests, 1_000_000_000, time.Second, 30)}} {
		b.Run(name, func(b *testing.B) {
			var calls atomic.Int64
			s := open(b, server, redisstore.Options{Prefix: prefix(), Called: func(time.Duration, string) { calls.Add(1) }})
			for b.Loop() {
				h, _ := take(b, s, 1, all...)
				h.settle(1)
			}
			b.ReportMetric(float64(calls.Load())/float64(b.N), "calls/op")
		})
	}
}
