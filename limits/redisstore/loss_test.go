package redisstore_test

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// covers DIST-03, DIST-04: while the server is away or hangs, nobody waits for it
// longer than the timeout, the replicas together admit no more than the limit and one
// burst, and the shared level is used again soon after.
func TestServerAway(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		away, back func(*redistest.Server)
	}{
		"killed": {(*redistest.Server).Kill, (*redistest.Server).Restart},
		"paused": {(*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			limitstest.Rounds(t, func(r testing.TB) { serverAway(t, r, f.away, f.back) })
		})
	}
}

// serverAway fails the whole test by what holds at any speed, and the round by the rest.
func serverAway(whole *testing.T, t testing.TB, away, back func(*redistest.Server)) {
	t.Helper()
	server := redistest.Start(t)
	at, p := redisstore.Server{Addresses: []string{server.Addr}}, prefix()
	l := limitstest.Bucket("a", limits.Requests, 300, time.Second, 60)
	const timeout = 100 * time.Millisecond
	stores := make([]*redisstore.Store, 3)
	for i := range stores {
		stores[i] = open(t, at, redisstore.Options{Prefix: p, Timeout: timeout})
	}
	within(t, 10*time.Second, "all know of all", func() bool {
		return !slices.ContainsFunc(stores, func(s *redisstore.Store) bool { return s.State().Replicas != 3 })
	})
	var mu sync.Mutex
	var log []event
	var slowest time.Duration
	var takes, late int
	var wg sync.WaitGroup
	watched := watchApart(t, stores...)
	stop := time.Now().Add(5 * time.Second)
	for _, s := range stores {
		for range 3 {
			wg.Go(func() {
				for time.Now().Before(stop) {
					asked := time.Now()
					_, v := take(t, s, 1, l)
					mu.Lock()
					known := time.Now()
					took := known.Sub(asked)
					takes++
					if slowest = max(slowest, took); took > 2*timeout+50*time.Millisecond {
						late++
					}
					if v.OK {
						log = append(log, event{asked, known, 1})
					}
					mu.Unlock()
					sleep(2 * time.Millisecond)
				}
			})
		}
	}
	sleep(time.Second)
	away(server)
	gone := time.Now()
	sleep(1500 * time.Millisecond)
	if s := stores[0].State(); s.Away != 1 || s.Replicas != 3 {
		t.Errorf("state %+v, want away with 3 replicas", s)
	}
	ended := time.Now()
	back(server)
	begin := time.Now()
	for stores[0].State().Away > 0 {
		if time.Since(begin) > 2*time.Second {
			t.Fatal("not back after 2 s")
		}
		sleep(10 * time.Millisecond)
	}
	wg.Wait()
	w := watched()
	bound(whole, log, w.bound(l), 50*time.Millisecond)
	lost := *l
	lost.Burst += l.Burst // the debt of one loss, of which a busy machine makes more
	bound(t, log, &lost, 50*time.Millisecond)
	// Whoever is without the server more often, or alone, uses less of the rate.
	if least := 300 * 4; len(log) < least && w.losses == len(stores) && w.apart < 200*time.Millisecond {
		t.Errorf("%d admitted in 5 s, want at least %d", len(log), least)
	}
	alone := 0
	for _, e := range log {
		if e.known.After(gone.Add(500*time.Millisecond)) && e.known.Before(ended) {
			alone++
		}
	}
	if alone < 100 {
		t.Errorf("%d admitted in the last second without the server, of 300", alone)
	}
	// A busy machine may delay a few, but what waits for a server that is away
	// would be all of them.
	if late > takes/200 || slowest > time.Second {
		t.Errorf("%d of %d takes lasted longer than the timeout allows, one %v", late, takes, slowest)
	}
}

// covers DIST-03: each limit has its own policy.
func TestPolicies(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: prefix()})
	divide := limitstest.Bucket("divide", limits.Requests, 5, time.Hour, 5)
	opened, closed := limitstest.Bucket("open", limits.Requests, 5, time.Hour, 5), limitstest.Bucket("closed", limits.Requests, 5, time.Hour, 5)
	slots, budget := limitstest.Slots("slots", 3), limitstest.Budget("budget", 10, 24*time.Hour)
	opened.OnLoss, closed.OnLoss = limits.Open, limits.Closed
	for _, l := range []*limits.Limit{divide, opened, closed, slots, budget} {
		take(t, s, 2, l)
	}
	server.Kill()
	count := func(l *limits.Limit) (n int) {
		for range 20 {
			if _, v := take(t, s, 2, l); v.OK {
				n++
			}
		}
		return n
	}
	if got := [4]int{count(divide), count(opened), count(slots), count(budget)}; got != [4]int{1, 20, 2, 4} {
		t.Errorf("admitted %v, want what was left of the divided, all of the open, and the free slots", got)
	}
	var away *limits.Unavailable
	if _, err := s.Take(t.Context(), 1, nil, []limits.Charge{{Limit: closed, N: 1}}); !errors.As(err, &away) || away.RetryAfter <= 0 {
		t.Errorf("closed: %v", err)
	}
	s.SetOnLoss(limits.Closed)
	if _, err := s.Take(t.Context(), 1, nil, []limits.Charge{{Limit: divide, N: 1}}); !errors.As(err, &away) {
		t.Errorf("closed by default: %v", err)
	}
	server.Restart()
	within(t, 10*time.Second, "the server is used again", answers(s))
	// What was spent meanwhile is debt, of at most a burst.
	for l, want := range map[*limits.Limit]int64{divide: 1, opened: -2, slots: 0, budget: 0} {
		left(t, s, l, want)
	}
}

// A lossy server stands before a real one. It can swallow replies, or hold them
// back.
type lossy struct {
	net.Listener
	to   string
	mu   sync.Mutex
	drop bool
	hold time.Duration
}

func newLossy(t testing.TB, to string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossy{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go p.serve()
	return p
}

func (p *lossy) set(drop bool, hold time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop, p.hold = drop, hold
}

func (p *lossy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		go func() { _, _ = io.Copy(server, client); server.Close() }()
		go func() {
			defer client.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := server.Read(buf)
				if err != nil {
					return
				}
				p.mu.Lock()
				drop, hold := p.drop, p.hold
				p.mu.Unlock()
				sleep(hold)
				if !drop {
					if _, err := client.Write(buf[:n]); err != nil {
						return
					}
				}
			}
		}()
	}
}

// covers DIST-06: a reply that is lost after the script ran charges nothing twice
// and gives nothing back twice.
func TestLostReply(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newLossy(t, server.Addr)
	s := open(t, redisstore.Server{Addresses: []string{p.Addr().String()}}, redisstore.Options{Prefix: prefix(), Timeout: 100 * time.Millisecond})
	tokens, slots, budget := limitstest.Bucket("a", limits.Tokens, 1000, 24*time.Hour, 1000), limitstest.Slots("b", 10), limitstest.Budget("c", 1000, 24*time.Hour)
	for _, l := range []*limits.Limit{tokens, slots, budget} {
		l.Group = "team/t"
	}
	all := []*limits.Limit{tokens, slots, budget}
	first, v := take(t, s, 100, all...)
	if !v.OK {
		t.Fatal("refused")
	}
	left := func(want ...int64) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			levels, _ := s.Levels(t.Context(), all)
			bad := s.State().Away > 0
			for i, w := range want {
				bad = bad || levels[i].Remaining < w-1 || levels[i].Remaining > w+1
			}
			if !bad {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("left %v, want %v", levels, want)
			}
			sleep(10 * time.Millisecond)
		}
	}
	left(900, 9, 900)
	p.set(true, 0)
	second, v := take(t, s, 100, all...) // decided alone, after the script has charged it
	if !v.OK {
		t.Fatal("refused")
	}
	sleep(300 * time.Millisecond)
	p.set(false, 0)
	left(800, 8, 800)

	p.set(true, 0)
	sleep(50 * time.Millisecond)
	first.settle(60)
	second.settle(60)
	_ = s.Give(t.Context(), second.id, second.charges[1:2]) // a slot comes back once
	sleep(300 * time.Millisecond)
	p.set(false, 0)
	left(880, 10, 880)
}

// covers DIST-04: a slow server adds at most the timeout, to one request.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	limitstest.Rounds(t, func(t testing.TB) {
		server := redistest.Start(t)
		p := newLossy(t, server.Addr)
		s := open(t, redisstore.Server{Addresses: []string{p.Addr().String()}}, redisstore.Options{Prefix: prefix(), Timeout: 100 * time.Millisecond})
		l := limitstest.Bucket("a", limits.Requests, 100_000, time.Second, 100_000)
		take(t, s, 1, l)
		p.set(false, time.Second)
		began, slow := time.Now(), 0
		for range 200 {
			one := time.Now()
			take(t, s, 1, l)
			if time.Since(one) > 50*time.Millisecond {
				slow++
			}
			sleep(time.Millisecond)
		}
		if took := time.Since(began); slow > 2 || took > 2*time.Second {
			t.Errorf("%d takes of 200 were slow, %v in all", slow, took)
		}
	})
}
