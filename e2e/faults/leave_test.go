package faults

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// A phase is a point in a request's life at which its client leaves.
type phase struct {
	name string
	up   http.HandlerFunc
	// begin brings a client to that point.
	begin func(*socket, *upstream)
	hits  int64 // requests of the client that reach the upstream
}

func reached(u *upstream, n int64) func() bool { return func() bool { return u.hits.Load() >= n } }

var phases = []phase{
	{"sending the head", hangs, func(s *socket, _ *upstream) { s.send(head(100)[:40]) }, 0},
	{"sending the body", hangs, func(s *socket, _ *upstream) { s.send(head(1000) + hello) }, 0},
	{"sending chunks", hangs, func(s *socket, _ *upstream) {
		s.send(strings.Replace(head(0), "Content-Length: 0", "Transfer-Encoding: chunked", 1) + "5\r\n{\"mod\r\n")
	}, 0},
	{"waiting for the answer", hangs, func(s *socket, u *upstream) {
		s.post(hello)
		harness.Eventually(s.t, 30*time.Second, "the upstream is asked", reached(u, 1))
	}, 1},
	{"waiting for the first event", streams(-1, 0), func(s *socket, u *upstream) {
		u.use(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		s.post(helloStream)
		harness.Eventually(s.t, 30*time.Second, "the upstream is asked", reached(u, 1))
	}, 1},
	{"in the middle of a stream", streams(100_000, time.Millisecond), func(s *socket, _ *upstream) {
		s.post(helloStream)
		resp := s.response()
		if _, err := io.ReadFull(resp.Body, make([]byte, 5*len(chunk))); err != nil {
			s.t.Fatal(err)
		}
	}, 1},
	{"in a silent stream", streams(-1, 0), func(s *socket, _ *upstream) {
		s.post(helloStream)
		resp := s.response()
		if _, err := io.ReadFull(resp.Body, make([]byte, len(chunk))); err != nil {
			s.t.Fatal(err)
		}
	}, 1},
}

// backWithin is how soon a slot is back: 100 ms, and what it takes to look.
const backWithin = 250 * time.Millisecond

// covers CL-01, CL-02: whoever leaves, however and whenever, gives its slot back
// within 100 ms; the upstream is let go within a second; nothing of it counts as a
// fault.
func TestClientLeavesInEveryPhase(t *testing.T) {
	for _, p := range phases {
		for _, how := range []string{"FIN", "RST"} {
			t.Run(p.name+", "+how, func(t *testing.T) {
				t.Parallel()
				harness.Rounds(t, func(t *harness.Round) { p.leave(t, how) })
			})
		}
	}
}

// leave has a client leave a gateway in the phase.
func (p *phase) leave(t *harness.Round, how string) {
	u := newUpstream(p.up)
	g := harness.Start(t, one(harness.Serve(t, u), "queue: {keepalive: 0}\n"))
	s := dial(t, g)
	p.begin(s, u)
	begin := time.Now()
	if how == "FIN" {
		s.fin()
	} else {
		s.rst()
	}
	harness.Eventually(t, 30*time.Second, "the slot comes back", func() bool {
		return g.Metric(t, "penstock_requests_in_flight") == 0 && g.Metric(t, "penstock_concurrency_in_use") == 0
	})
	t.AtMost(backWithin, time.Since(begin), "the return of the slot")
	if p.hits > 0 {
		harness.Eventually(t, 30*time.Second, "the upstream is let go", func() bool { return !u.lastLeft().IsZero() })
		t.AtMost(time.Second, u.lastLeft().Sub(begin), "letting the upstream go")
	}
	harness.Eventually(t, 30*time.Second, "the log line is written", func() bool { return p.hits == 0 || strings.Contains(g.Logs(), `"status":499`) })
	if u.hits.Load() != p.hits {
		t.Errorf("%d requests reached the upstream", u.hits.Load())
	}
	if strings.Contains(g.Logs(), `"level":"ERROR"`) || g.Metric(t, "penstock_breaker_transitions_total") != 0 {
		t.Error("leaving was taken for a fault")
	}
}

// covers CL-01: a place in the queue comes back as well, mostly as soon.
func TestClientLeavesTheQueue(t *testing.T) {
	harness.Rounds(t, leaveTheQueue)
}

func leaveTheQueue(t *harness.Round) {
	u := newUpstream(hangs)
	g := harness.Start(t, strings.Replace(one(harness.Serve(t, u), "queue: {keepalive: 0}\n"), "api_key:", "limits: {concurrency: 1}, api_key:", 1))
	first := dial(t, g)
	first.post(hello)
	harness.Eventually(t, 30*time.Second, "the upstream is asked", reached(u, 1))
	waiting := func() float64 { return g.Metric(t, "penstock_queue_depth") }
	var took []time.Duration
	for i := range 10 {
		s := dial(t, g)
		s.post(hello)
		harness.Eventually(t, 30*time.Second, "it waits", func() bool { return waiting() == 1 })
		begin := time.Now()
		if i%2 == 0 {
			s.fin()
		} else {
			s.rst()
		}
		harness.Eventually(t, 30*time.Second, "the place comes back", func() bool { return waiting() == 0 })
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.AtMost(backWithin, took[len(took)/2], "mostly, the return of the place")
	if u.hits.Load() != 1 {
		t.Errorf("%d requests reached the upstream", u.hits.Load())
	}
}

// covers RES-02, LIM-01: a thousand streams that are aborted, half of them rudely,
// leave no goroutine, descriptor, slot or memory behind.
func TestAThousandAbortedStreams(t *testing.T) {
	u := newUpstream(streams(100_000, 5*time.Millisecond))
	g := harness.Start(t, strings.Replace(one(harness.Serve(t, u), ""), "api_key:", "limits: {concurrency: 50}, api_key:", 1))
	abort := func(i int) {
		s := dial(t, g)
		s.post(helloStream)
		resp := s.response()
		if _, err := io.ReadFull(resp.Body, make([]byte, (1+i%4)*len(chunk))); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		if i%2 == 0 {
			s.rst()
		} else {
			s.fin()
		}
	}
	run := func(n int) {
		var all sync.WaitGroup
		next := make(chan int)
		for range 40 {
			all.Go(func() {
				for i := range next {
					abort(i)
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		all.Wait()
	}
	run(100) // what is allocated once
	goroutines, descriptors, memory := g.Goroutines(t), g.Descriptors(t), g.Resident(t)
	run(1000)
	harness.Eventually(t, 30*time.Second, "the slots come back", func() bool {
		return g.Metric(t, "penstock_requests_in_flight") == 0 && g.Metric(t, "penstock_concurrency_in_use") == 0
	})
	harness.Eventually(t, 30*time.Second, "goroutines and descriptors are gone", func() bool {
		return g.Goroutines(t) <= goroutines+40 && g.Descriptors(t) <= descriptors+40
	})
	if grown := g.Resident(t) - memory; grown > 48<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if n := g.Metric(t, "penstock_requests_total", `outcome="client_closed"`); n != 1100 {
		t.Errorf("%v of 1100 requests are counted as left:\n%s", n, outcomes(t, g))
	}
	t.Logf("%d goroutines, %d descriptors, %d MiB before; %d, %d, %d after", goroutines, descriptors, memory>>20, g.Goroutines(t), g.Descriptors(t), g.Resident(t)>>20)
}

// outcomes are the lines of the metrics that tell how requests ended.
func outcomes(t testing.TB, g *harness.Gateway) string {
	var b strings.Builder
	for line := range strings.Lines(g.Metrics(t)) {
		if strings.HasPrefix(line, "penstock_requests_total{") {
			b.WriteString(line)
		}
	}
	return b.String()
}
