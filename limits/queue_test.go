package limits

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func testConfig() QueueConfig {
	return QueueConfig{
		MaxWait: [classes]time.Duration{10 * time.Second, time.Hour, 6 * time.Hour},
		Ceiling: [classes]int64{100, 90, 70}, PerTeam: 5000, Total: 20000, TeamSize: 1 << 30, Size: 1 << 30,
	}
}

func slotsOf(id string, n int64) *Limit {
	return &Limit{ID: id, Scope: ScopeUpstream, Owner: id, Dimension: Concurrency, Amount: n, Wait: true}
}

func rateLimit(id string, d Dimension, n int64, w time.Duration) *Limit {
	return &Limit{ID: id, Scope: ScopeUpstream, Owner: id, Dimension: d, Amount: n, Window: w, Burst: n, Wait: true}
}

type world struct {
	q *Queue
	m *Memory
}

func newWorld() *world {
	m := NewMemory()
	return &world{NewQueue(m, testConfig()), m}
}

// farAway is a store of another process: it answers after a while.
type farAway struct {
	*Memory
	delay time.Duration
}

func (farAway) Look(context.Context, []*Limit) {}

func (f farAway) Take(ctx context.Context, id uint64, turn *Turn, charges []Charge) (Verdict, error) {
	if turn == nil {
		panic("asked without a turn")
	}
	time.Sleep(f.delay / 2)
	v, err := f.Memory.Take(ctx, id, nil, charges)
	time.Sleep(f.delay / 2)
	return v, err
}

// everywhere runs a test with a store in the process, and with one that is a
// round trip away.
func everywhere(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("here", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newWorld()) })
	})
	t.Run("remote", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := NewMemory()
			w := &world{NewQueue(farAway{m, time.Millisecond}, testConfig()), m}
			test(t, w)
			w.q.Close()
		})
	})
}

func (w *world) target(name string, limits ...*Limit) *Target {
	t := NewTarget(name+"/m", name, w.m)
	t.Configure(limits, true)
	return t
}

func request(team string, weight int, tokens int64, targets ...*Target) Request {
	return Request{Team: team, Weight: weight, Class: Default, Cost: Cost{Requests: 1, Input: tokens}, Targets: targets}
}

// covers LIM-01: scenario S1 without the wire.
func TestQueueNeverExceedsSlotsAndNeverIdles(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		up := w.target("a", slotsOf("a", 20))
		begin := time.Now()
		var mu sync.Mutex
		var inFlight, peak int
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				g, err := w.q.Acquire(t.Context(), request("t", 1, 10, up))
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				mu.Lock()
				inFlight++
				peak = max(peak, inFlight)
				mu.Unlock()
				time.Sleep(200 * time.Millisecond)
				mu.Lock()
				inFlight--
				mu.Unlock()
				g.Settle(Cost{Requests: 1, Input: 10})
			})
		}
		wg.Wait()
		if peak != 20 {
			t.Errorf("peak %d in flight, want exactly 20", peak)
		}
		// Over a round trip, 300 starts follow one another.
		if took := time.Since(begin); took < 3*time.Second || took > 3400*time.Millisecond || !w.q.remote && took > 3*time.Second {
			t.Errorf("took %v, want the ideal 3 s, and hardly more over a round trip", took)
		}
		if !w.q.CheckEmpty() || up.InUse() != 0 {
			t.Error("something was left behind")
		}
	})
}

// covers LIM-09: scenario S3 without the wire.
func TestSharesFollowWeights(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		up := w.target("a", rateLimit("a/tokens", Tokens, 60_000, time.Minute), slotsOf("a/c", 50))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var mu sync.Mutex
		served := map[string]int64{}
		begin := time.Now()
		var lightWaits []time.Duration
		var wg sync.WaitGroup
		greedy := func(team string, weight int) {
			for i := range 100 {
				r := rand.New(rand.NewPCG(uint64(i), uint64(weight)))
				wg.Go(func() {
					for ctx.Err() == nil {
						est := int64(100 + r.IntN(300))
						g, err := w.q.Acquire(ctx, request(team, weight, est, up))
						if err != nil {
							return
						}
						actual := est/2 + r.Int64N(est/2)
						time.Sleep(time.Second)
						g.Settle(Cost{Requests: 1, Input: actual})
						mu.Lock()
						if time.Since(begin) > time.Minute { // who came first had the first burst
							served[team] += actual
						}
						mu.Unlock()
					}
				})
			}
		}
		greedy("three", 3)
		greedy("one", 1)
		wg.Go(func() {
			for ctx.Err() == nil {
				g, err := w.q.Acquire(ctx, request("light", 1, 100, up))
				if err != nil {
					return
				}
				lightWaits = append(lightWaits, g.Waited)
				g.Settle(Cost{Requests: 1, Input: 100})
				time.Sleep(3 * time.Second)
			}
		})
		wg.Wait()
		ratio := float64(served["three"]) / float64(served["one"])
		if ratio < 3*0.97 || ratio > 3*1.03 {
			t.Errorf("shares %d : %d = %.3f, want 3 within 3 %%", served["three"], served["one"], ratio)
		}
		slices.Sort(lightWaits)
		if p95 := lightWaits[len(lightWaits)*95/100]; p95 >= time.Second {
			t.Errorf("light team's p95 wait %v, want below 1 s", p95)
		}
		if used := float64(served["three"]+served["one"]) / 240_000; used < 0.95 {
			t.Errorf("%.3f of the quota used", used)
		}
	})
}

func TestKeysOfATeamShareItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", slotsOf("a", 1))
		hold, err := w.q.Acquire(t.Context(), request("t", 1, 1, up))
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		var wg sync.WaitGroup
		join := func(key string, n int) {
			for range n {
				r := request("t", 1, 10, up)
				r.Key = key
				ticket, err := w.q.Join(r)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					g, err := ticket.Wait(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					order = append(order, key)
					time.Sleep(time.Second)
					g.Release()
				})
			}
		}
		join("flood", 50)
		join("calm", 2)
		hold.Release()
		wg.Wait()
		if at := slices.Index(order, "calm"); at > 1 {
			t.Errorf("the calm key was served as number %d", at)
		}
	})
}

func TestClassesGoFirstAndKeepHeadroom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", slotsOf("a", 10))
		start := func(c Class) *Ticket {
			r := request("t"+c.String(), 1, 1, up)
			r.Class = c
			ticket, err := w.q.Join(r)
			if err != nil {
				t.Fatal(err)
			}
			return ticket
		}
		admitted := (*Ticket).Admitted
		// Nobody else is there: batch may have everything.
		var batch []*Ticket
		for range 10 {
			batch = append(batch, start(Batch))
		}
		if !admitted(batch[9]) {
			t.Fatal("idle capacity was kept from batch")
		}
		// An interactive request comes, then goes: it is next, and for a while
		// batch leaves 30 % free.
		late, quick := start(Batch), start(Interactive)
		batch[0].grant.Settle(Cost{Requests: 1})
		if admitted(late) || !admitted(quick) {
			t.Error("interactive was not first")
		}
		for _, b := range batch[1:3] {
			b.grant.Settle(Cost{Requests: 1})
		}
		quick.grant.Settle(Cost{Requests: 1})
		if admitted(late) {
			t.Error("batch filled the headroom while interactive was just seen")
		}
		time.Sleep(2 * headroomFor)
		synctest.Wait()
		if !admitted(late) {
			t.Error("batch was not let in although nobody else came")
		}
	})
}

// covers CL-08
func TestQueueBoundsAndRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := testConfig()
		cfg.PerTeam, cfg.Total = 3, 5
		w.q.Configure(cfg)
		up := w.target("a", rateLimit("a", Requests, 60, time.Minute))
		var exceeded *Exceeded
		for range 59 { // one request's cost is kept back
			if _, err := w.q.Acquire(t.Context(), request("t", 1, 1, up)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 6 {
			team := fmt.Sprint("team", i/3)
			_, err := w.q.Join(request(team, 1, 1, up))
			if i < 5 && err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			if i == 5 && (!errors.As(err, &exceeded) || exceeded.Reason != ReasonQueueFull || exceeded.RetryAfter < time.Second) {
				t.Fatalf("full queue: %v", err)
			}
		}
		r := request("other", 1, 1, w.target("b", rateLimit("b", Requests, 1, time.Hour)))
		r.MaxWait = time.Minute
		if _, err := w.q.Acquire(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		_, err := w.q.Join(r)
		if !errors.As(err, &exceeded) || exceeded.Reason != ReasonPredicted {
			t.Fatalf("a wait of an hour was not refused at once: %v", err)
		}
		if d := exceeded.RetryAfter; d < 58*time.Minute || d > time.Hour {
			t.Errorf("Retry-After %v, want 59 min: then the wait is the minute allowed", d)
		}
	})
}

// covers LIM-04
func TestTooLargeIsRefusedUnlessOnlyPredicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", rateLimit("a", Tokens, 1000, time.Minute))
		var exceeded *Exceeded
		_, err := w.q.Acquire(t.Context(), request("t", 1, 1001, up))
		if !errors.As(err, &exceeded) || exceeded.Reason != ReasonTooLarge {
			t.Fatalf("got %v", err)
		}
		r := request("t", 1, 900, up)
		r.Cost.Output, r.Cost.Predicted = 500, 500
		if _, err := w.q.Acquire(t.Context(), r); err != nil {
			t.Errorf("only the prediction was too large: %v", err)
		}
		team := &Limit{ID: "team", Scope: ScopeTeam, Dimension: Tokens, Amount: 10, Window: time.Minute, Burst: 10}
		if _, err := Reserve(t.Context(), w.m, []*Limit{team}, Cost{Requests: 1, Input: 11}); !errors.As(err, &exceeded) || exceeded.Reason != ReasonTooLarge {
			t.Errorf("got %v", err)
		}
	})
}

// covers CL-01
func TestLeavingFreesThePlaceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", slotsOf("a", 1))
		hold, _ := w.q.Acquire(t.Context(), request("t", 1, 1, up))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := w.q.Acquire(ctx, request("t", 1, 1, up))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		r := request("t", 1, 1, up)
		r.MaxWait = 5 * time.Second
		begin := time.Now()
		_, err := w.q.Acquire(t.Context(), r)
		var exceeded *Exceeded
		if !errors.As(err, &exceeded) || exceeded.Reason != ReasonTimeout || time.Since(begin) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		hold.Release()
		if !w.q.CheckEmpty() || up.InUse() != 0 {
			t.Error("something was left behind")
		}
	})
}

func TestWaitsOnSeveralUpstreamsAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		a, b := w.target("a", slotsOf("a", 1)), w.target("b", slotsOf("b", 1))
		first, _ := w.q.Acquire(t.Context(), request("t", 1, 1, a, b))
		second, _ := w.q.Acquire(t.Context(), request("t", 1, 1, a, b))
		if first.Target != a || second.Target != b {
			t.Fatal("the second did not take the upstream that was free")
		}
		ticket, _ := w.q.Join(request("t", 1, 1, a, b))
		second.Release()
		third, err := ticket.Wait(t.Context())
		if err != nil || third.Target != b {
			t.Fatalf("the third got %v, %v", third, err)
		}
		third.Release()
		first.Release()
		if !w.q.CheckEmpty() {
			t.Error("something was left behind")
		}
	})
}

// covers UP-06: what one model or team lacks does not hold up the others.
func TestNarrowLimitsDoNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		wide := slotsOf("up", 10)
		model := &Limit{ID: "up/x", Scope: ScopeModel, Dimension: Concurrency, Amount: 1, Wait: true}
		x, y := NewTarget("up/x", "up", w.m), NewTarget("up/y", "up", w.m)
		x.Configure([]*Limit{model, wide}, true)
		y.Configure([]*Limit{wide}, true)
		if _, err := w.q.Acquire(t.Context(), request("t", 1, 1, x)); err != nil {
			t.Fatal(err)
		}
		blocked, _ := w.q.Join(request("t", 1, 1, x))
		free, _ := w.q.Join(request("t", 1, 1, y))
		if blocked.grant != nil || free.grant == nil {
			t.Error("a waiter of another model was held up")
		}
		own := request("u", 1, 1, y)
		own.Owner = []*Limit{{ID: "team/u", Scope: ScopeTeam, Dimension: Concurrency, Amount: 1, Wait: true}}
		if _, err := w.q.Acquire(t.Context(), own); err != nil {
			t.Fatal(err)
		}
		second, _ := w.q.Join(own)
		other, _ := w.q.Join(request("v", 1, 1, y))
		if second.grant != nil || other.grant == nil {
			t.Error("a team at its own limit held up another")
		}
	})
}

// A large request is not starved by small ones that would fit before it.
func TestLargeRequestIsNotStarved(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		up := w.target("a", rateLimit("a", Tokens, 6000, time.Minute))
		if _, err := w.q.Acquire(t.Context(), request("t", 1, 6000, up)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := w.q.Acquire(t.Context(), request("big", 1, 5000, up)); err != nil {
				t.Error(err)
			}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for ctx.Err() == nil {
					g, err := w.q.Acquire(ctx, request("small", 1, 100, up))
					if err == nil {
						time.Sleep(100 * time.Millisecond)
						g.Settle(Cost{Requests: 1, Input: 100})
					}
				}
			})
		}
		<-done
		cancel()
		wg.Wait()
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("the large request waited %v", took)
		}
	})
}

// covers LIM-03: after any mix of outcomes nothing is held, and the bucket stands
// at what was used.
func TestAccountsBalance(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		bucket := rateLimit("a", Tokens, 1_000_000, 24*time.Hour)
		up := w.target("a", slotsOf("a/c", 7), bucket)
		var used int64
		var mu sync.Mutex
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range 500 {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(5000))*time.Millisecond)
				defer cancel()
				estimate, actual := int64(r.IntN(500)), int64(r.IntN(600))
				g, err := w.q.Acquire(ctx, request(fmt.Sprint("t", i%5), 1+i%3, estimate, up))
				if err != nil {
					return
				}
				defer g.Release()
				time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				if r.IntN(3) == 0 {
					return // failed before anything was used
				}
				// As Extend says, what it adds may be lost at the brim where it is not used.
				if actual >= estimate+50 {
					g.Extend(Cost{Output: 50})
				}
				g.Settle(Cost{Requests: 1, Input: actual})
				g.Settle(Cost{Requests: 1, Input: 99999})
				mu.Lock()
				used += actual
				mu.Unlock()
			})
		}
		wg.Wait()
		w.q.Close() // a store that was asked for somebody who has left gets its own back
		if !w.q.CheckEmpty() || up.InUse() != 0 {
			t.Error("something was left behind")
		}
		levels, _ := w.m.Levels(t.Context(), []*Limit{bucket, slotsOf("a/c", 7)})
		earned := int64(time.Since(begin).Seconds() * 1_000_000 / 86400)
		if off := levels[0].Remaining - (1_000_000 - used); off < -1 || off > earned+1 {
			t.Errorf("the bucket is off by %d of %d used, at most %d were earned back", off, used, earned)
		}
		if levels[1].Remaining != 7 {
			t.Errorf("%d slots free, want 7", levels[1].Remaining)
		}
	})
}

// covers LIM-02: requests that were estimated before anything was known start by
// what is known when their turn comes.
func TestWaitersAreEstimatedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", rateLimit("a", Tokens, 6000, time.Minute))
		guess := int64(3000)
		ask := func() (*Ticket, error) {
			r := request("t", 1, 10, up)
			r.Cost.Output, r.Cost.Predicted = guess, guess
			r.CostAt = func(*Target) Cost { return Cost{Requests: 1, Input: 10, Output: guess, Predicted: guess} }
			return w.q.Join(r)
		}
		first, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		var waiting []*Ticket
		for range 20 {
			ticket, err := ask()
			if err != nil {
				t.Fatalf("refused although nothing is known: %v", err)
			}
			waiting = append(waiting, ticket)
		}
		guess = 90
		first.grant.Settle(Cost{Requests: 1, Input: 10, Output: 90})
		for i, ticket := range waiting {
			if ticket.grant == nil || ticket.grant.Reserved().Output != 90 {
				t.Fatalf("number %d still waits, or holds too much", i)
			}
		}
	})
}

// covers LIM-09: what others were thought to use and did not use does not put a
// team that comes later behind them.
func TestWrongEstimatesDelayNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", rateLimit("a", Tokens, 60_000, time.Minute))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		use := func(team string, weight int) time.Duration {
			r := request(team, weight, 10, up)
			r.Cost.Output, r.Cost.Predicted = 1000, 1000
			g, err := w.q.Acquire(ctx, r)
			if err != nil {
				return 0
			}
			time.Sleep(100 * time.Millisecond)
			g.Settle(Cost{Requests: 1, Input: 10, Output: 20})
			return g.Waited
		}
		for range 200 {
			wg.Go(func() {
				for ctx.Err() == nil {
					use("greedy", 3)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		for range 20 {
			if waited := use("light", 1); waited > 2*time.Second {
				t.Errorf("a light team waited %v", waited)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		wg.Wait()
	})
}
