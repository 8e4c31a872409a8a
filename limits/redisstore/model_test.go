package redisstore_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// A fleet is replicas on one server that crash, and are replaced, and a record of
// what they have admitted.
type fleet struct {
	t       *testing.T
	server  *redistest.Server
	wire    *lossy
	prefix  string
	rate    *limits.Limit
	slots   *limits.Limit
	budget  *limits.Limit
	ctx     context.Context
	workers sync.WaitGroup

	mu      sync.Mutex
	log     []event // what was used, when it was admitted
	inUse   int64
	peak    int64       // of inUse while nothing had been wrong for a lease
	shocks  []time.Time // when something went wrong with the server or the wire
	members []*member
}

// A member is one replica of the fleet.
type member struct {
	store  *redisstore.Store
	client redis.UniversalClient
	dead   atomic.Bool
	inUse  int64 // guarded by the fleet's mutex
}

const fleetLease = time.Second

func (f *fleet) join() {
	at := redisstore.Server{Addresses: []string{f.wire.Addr().String()}}
	m := &member{client: redisstore.Connect(at, 100*time.Millisecond)}
	m.store = redisstore.New(m.client, redisstore.Options{Prefix: f.prefix, Timeout: 100 * time.Millisecond, Lease: fleetLease, Replicas: 3, Called: func(_ time.Duration, failure string) {
		if failure != "" && !m.dead.Load() {
			f.failed()
		}
	}})
	m.store.Run(func() {})
	f.t.Cleanup(func() { _ = m.store.Close() })
	f.members = append(f.members, m)
	for range 3 {
		f.workers.Go(func() {
			for f.ctx.Err() == nil && !m.dead.Load() {
				f.request(m)
			}
		})
	}
}

// request is one request of a replica. What a dead one does is not seen by anybody.
func (f *fleet) request(m *member) {
	n := 1 + rand.Int64N(20)
	asked := time.Now()
	h, v := take(f.t, m.store, n, f.rate, f.slots, f.budget)
	f.mu.Lock()
	if !v.OK || m.dead.Load() {
		f.mu.Unlock()
		sleep(2 * time.Millisecond)
		return
	}
	f.inUse++
	m.inUse++
	if last := f.shocks[len(f.shocks)-1]; time.Since(last) > 2*fleetLease {
		f.peak = max(f.peak, f.inUse)
	}
	f.log = append(f.log, event{asked, time.Now(), n})
	mine := len(f.log) - 1
	f.mu.Unlock()
	sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
	f.mu.Lock()
	dead := m.dead.Load()
	if used := rand.Int64N(n + 1); !dead {
		f.inUse--
		m.inUse--
		f.log[mine].n = used
		f.mu.Unlock()
		h.settle(used)
		return
	}
	f.mu.Unlock()
}

// crash ends a replica at once: nothing that it holds is given back.
func (f *fleet) crash() {
	m := f.members[0]
	f.members = f.members[1:]
	f.mu.Lock()
	m.dead.Store(true)
	f.inUse -= m.inUse
	f.mu.Unlock()
	m.client.Close()
}

// failed notes a call that failed long after a shock: a busy machine answers late, and
// then a replica decides alone.
func (f *fleet) failed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.shocks[len(f.shocks)-1]) > time.Second {
		f.shocks = append(f.shocks, time.Now())
	}
}

// shock lets something go wrong, for a while.
func (f *fleet) shock() {
	f.mu.Lock()
	f.shocks = append(f.shocks, time.Now())
	f.mu.Unlock()
	d := 50*time.Millisecond + time.Duration(rand.IntN(300))*time.Millisecond
	switch rand.IntN(6) {
	case 0:
		f.server.Pause()
		sleep(d)
		f.server.Resume()
	case 1:
		f.server.Kill()
		sleep(d)
		f.server.Restart()
	case 2:
		_ = f.server.Client().FlushAll(context.Background()).Err()
	case 3:
		f.wire.set(true, 0)
		sleep(d)
		f.wire.set(false, 0)
	case 4:
		f.wire.set(false, d)
		sleep(d)
		f.wire.set(false, 0)
	case 5:
		_ = f.server.Client().ScriptFlush(context.Background()).Err()
	}
}

// bounded checks every span: a burst, the rate, and a burst for each shock in it or
// shortly before. Like bound it counts what was asked for and known in the span.
func (f *fleet) bounded() {
	f.mu.Lock() // the members go on
	defer f.mu.Unlock()
	slices.SortFunc(f.log, func(a, b event) int { return a.known.Compare(b.known) })
	slices.SortFunc(f.shocks, time.Time.Compare)
	for _, first := range f.log {
		sum, shocks := int64(0), 0
		for shocks < len(f.shocks) && f.shocks[shocks].Before(first.asked.Add(-time.Second)) {
			shocks++
		}
		past := shocks
		for _, e := range f.log {
			if e.asked.Before(first.asked) {
				continue
			}
			sum += e.n
			for shocks < len(f.shocks) && f.shocks[shocks].Before(e.known) {
				shocks++
			}
			span := e.known.Sub(first.asked) + 50*time.Millisecond
			if most := f.rate.Burst*int64(1+shocks-past) + int64(float64(f.rate.Amount)*span.Seconds()) + 1; sum > most {
				f.t.Fatalf("%d units in %v with %d shocks, at most %d may be", sum, span, shocks-past, most)
			}
		}
	}
}

// covers DIST-01, DIST-05, DIST-06, DIST-07: whatever befalls the server, the wire and
// the replicas, no more is admitted in any span than the limit and, for each time that
// something went wrong, one burst.
func TestFleetUnderShocks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	ctx, stop := context.WithCancel(t.Context())
	f := &fleet{
		t: t, server: server, wire: newLossy(t, server.Addr), prefix: prefix(), ctx: ctx, shocks: []time.Time{{}},
		rate: limitstest.Bucket("rate", limits.Tokens, 600, time.Second, 150), slots: limitstest.Slots("slots", 6), budget: limitstest.Budget("money", 4000, 24*time.Hour),
	}
	for _, l := range []*limits.Limit{f.rate, f.slots, f.budget} {
		l.Group = "team/t"
	}
	for range 3 {
		f.join()
	}
	for range 8 {
		sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		if rand.IntN(2) == 0 {
			f.crash()
			f.join()
		}
		f.shock()
	}
	sleep(2*fleetLease + time.Second)
	stop()
	f.workers.Wait()
	within(t, 10*time.Second, "the server is used again", answers(f.members[0].store))

	f.bounded()
	spent := int64(0)
	for _, e := range f.log {
		spent += e.n
	}
	f.mu.Lock()
	shocks := int64(len(f.shocks))
	f.mu.Unlock()
	if most := f.budget.Amount + shocks*f.rate.Burst; spent > most {
		t.Errorf("%d spent of %d, at most %d may be", spent, f.budget.Amount, most)
	}
	if f.peak > f.slots.Amount {
		t.Errorf("%d slots in use long after the last shock, of %d", f.peak, f.slots.Amount)
	}
	t.Logf("%d admitted, %d spent, %d shocks, peak of slots %d", len(f.log), spent, shocks-1, f.peak)
	left(t, f.members[2].store, f.slots, f.slots.Amount)
}
