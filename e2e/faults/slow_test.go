package faults

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// Whoever sends its request by the drop is cut off, and others are served meanwhile.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, slowLoris)
}

func slowLoris(t *harness.Round) {
	g := harness.Start(t, one(harness.Serve(t, newUpstream(answers)), "gateway: {read_timeout: 1s}\n"))
	drip := func(s *socket, text string, pause time.Duration) time.Duration {
		begin := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, s.r)
		}()
		for i := 0; ; i = (i + 1) % len(text) {
			select {
			case <-ended:
				return time.Since(begin)
			case <-time.After(pause):
				s.send(text[i : i+1])
			}
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			s := dial(t, g)
			s.send("GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			t.AtMost(12*time.Second, drip(s, "aaaa\r\nX-More: ", 100*time.Millisecond), "reading a head by the drop")
		})
		all.Go(func() {
			s := dial(t, g)
			s.send(head(100_000))
			t.AtMost(5*time.Second, drip(s, " ", 1500*time.Millisecond), "reading a body with pauses of 1.5 s, where the limit is 1 s,")
		})
	}
	for range 10 {
		resp, err := http.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("others are not served: %v", err)
		}
		resp.Body.Close()
	}
	all.Wait()
	harness.Eventually(t, 30*time.Second, "nothing is in flight", func() bool { return g.Metric(t, "penstock_requests_in_flight") == 0 })
}

// A client that never reads holds its slot for as long as one write may take, and
// no memory; its upstream is let go.
func TestClientThatNeverReads(t *testing.T) {
	for name, body := range map[string]string{"stream": helloStream, "JSON": hello} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Rounds(t, func(t *harness.Round) { neverReads(t, body, name == "stream") })
		})
	}
}

func neverReads(t *harness.Round, body string, stream bool) {
	kind, piece := "application/json", strings.Repeat(" ", 1024)
	if stream {
		kind, piece = "text/event-stream", chunk
	}
	u := newUpstream(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", kind)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
		}
	})
	g := harness.Start(t, one(harness.Serve(t, u), "relay: {write_timeout: 1s}\n"))
	memory := g.Resident(t)
	begin := time.Now()
	for range 20 {
		dial(t, g).post(body)
	}
	harness.Eventually(t, 30*time.Second, "the upstream is asked", reached(u, 20))
	harness.Eventually(t, 30*time.Second, "the slots come back", func() bool {
		return g.Metric(t, "penstock_requests_in_flight") == 0 && g.Metric(t, "penstock_concurrency_in_use") == 0 && u.inFlight.Load() == 0
	})
	t.AtMost(10*time.Second, time.Since(begin), "the return of the slots")
	if grown := g.Peak(t) - memory; grown > 48<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if n := g.Metric(t, "penstock_requests_total", `outcome="client_closed"`); n != 20 {
		t.Errorf("%v of 20 are counted as left", n)
	}
	if g.Metric(t, "penstock_breaker_transitions_total") != 0 {
		t.Error("not reading was taken for a fault of the upstream")
	}
}
