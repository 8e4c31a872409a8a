package redisstore_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// A replica is a gateway without the wire: a queue over a store.
type replica struct {
	store *redisstore.Store
	queue *limits.Queue
}

func newReplica(t *testing.T, server redisstore.Server, p string) *replica {
	t.Helper()
	s := redisstore.New(redisstore.Connect(server, time.Second), redisstore.Options{Prefix: p, Timeout: time.Second})
	cfg := limits.QueueConfig{PerTeam: 5000, Total: 20000, TeamSize: 1 << 30, Size: 1 << 30}
	for c := range cfg.MaxWait {
		cfg.MaxWait[c], cfg.Ceiling[c] = time.Minute, 100
	}
	r := &replica{s, limits.NewQueue(s, cfg)}
	s.Run(r.queue.Kick)
	t.Cleanup(func() {
		r.queue.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *replica) target(all ...*limits.Limit) *limits.Target {
	t := limits.NewTarget("up/m", "up", r.store)
	t.Configure(all, false)
	return t
}

func upstream(d limits.Dimension, amount int64, window time.Duration) *limits.Limit {
	return &limits.Limit{ID: "upstream/up/" + d.String(), Scope: limits.ScopeUpstream, Owner: "up", Dimension: d, Amount: amount, Window: window, Burst: amount, Wait: true}
}

// covers LIM-09: teams that talk to different replicas share an upstream by their
// weights, whatever holds it back.
func TestSharesAcrossReplicas(t *testing.T) {
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	for name, test := range map[string]struct {
		limits []*limits.Limit
		hold   time.Duration
	}{
		"by tokens":   {[]*limits.Limit{upstream(limits.Tokens, 30_000, time.Second)}, 20 * time.Millisecond},
		"by requests": {[]*limits.Limit{upstream(limits.Requests, 100, time.Second)}, 20 * time.Millisecond},
		"by slots":    {[]*limits.Limit{upstream(limits.Concurrency, 10, 0)}, 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			// Alone, and the best of four rounds: a replica that a busy machine keeps
			// from asking in time loses its turn, as capacity is not left idle for it.
			// Where it was busy in all of them, the heavier team has more, and that is all.
			busy := true
			for round := 1; ; round++ {
				late := limitstest.WatchLateness()
				ratio, p95 := shares(t, server, test.limits, test.hold)
				late.End()
				busy = busy && late.Busy()
				if ratio > 3*0.95 && ratio < 3*1.05 && p95 < time.Second {
					return
				}
				if round == 4 && busy && ratio > 1.2 {
					t.Logf("shares are %.3f : 1 where 3 : 1 is wanted, %s", ratio, late.Note())
					return
				}
				if round == 4 {
					t.Fatalf("shares are %.3f : 1, want 3 : 1; the light team's p95 wait is %v", ratio, p95)
				}
			}
		})
	}
}

// shares has two greedy teams with weights 3 and 1 and a light one use an upstream,
// each through a replica of its own. It returns the ratio of what the greedy ones
// used, in tokens, and the light one's p95 wait.
func shares(t *testing.T, server redisstore.Server, all []*limits.Limit, hold time.Duration) (ratio float64, p95 time.Duration) {
	p := prefix()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	begin := time.Now()
	var mu sync.Mutex
	served := map[string]int64{}
	var waits []time.Duration
	var wg sync.WaitGroup
	work := func(r *replica, up *limits.Target, team string, weight int) (time.Duration, bool) {
		n := int64(200 + rand.IntN(200))
		if ctx.Err() != nil {
			return 0, false
		}
		g, err := r.queue.Acquire(ctx, limits.Request{
			Team: team, Weight: weight, Class: limits.Default, Cost: limits.Cost{Requests: 1, Input: n}, Targets: []*limits.Target{up},
		})
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("%s: %v", team, err)
			}
			return 0, false
		}
		sleep(hold)
		used := n/2 + rand.Int64N(n/2)
		g.Settle(limits.Cost{Requests: 1, Input: used})
		mu.Lock()
		defer mu.Unlock()
		if time.Since(begin) > 2*time.Second { // who came first had the first burst
			served[team] += used
		}
		return g.Waited, true
	}
	for team, weight := range map[string]int{"three": 3, "one": 1} {
		r := newReplica(t, server, p)
		up := r.target(all...)
		for range 40 {
			wg.Go(func() {
				for ok := true; ok; {
					_, ok = work(r, up, team, weight)
				}
			})
		}
	}
	r := newReplica(t, server, p)
	up := r.target(all...)
	wg.Go(func() {
		for {
			waited, ok := work(r, up, "light", 1)
			if !ok {
				return
			}
			waits = append(waits, waited)
			sleep(200 * time.Millisecond)
		}
	})
	wg.Wait()
	slices.Sort(waits)
	ratio, p95 = float64(served["three"])/float64(served["one"]), waits[len(waits)*95/100]
	t.Logf("%d : %d = %.3f, light %d, p95 wait %v", served["three"], served["one"], ratio, served["light"], p95)
	return ratio, p95
}
