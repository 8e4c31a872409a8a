package faults

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers RES-03: with 256 descriptors and 400 more clients, running streams go on,
// nothing spins, and service returns when they leave.
func TestDescriptorsRunOut(t *testing.T) {
	harness.Rounds(t, descriptorsRunOut)
}

func descriptorsRunOut(t *harness.Round) {
	const running, crowd = 40, 400
	u := newUpstream(streams(100_000, 100*time.Millisecond))
	g := harness.StartUnder(t, "ulimit -n 256", one(harness.Serve(t, u), "log: {access: false}\n"))
	var events atomic.Int64
	var all sync.WaitGroup
	for range running {
		s := dial(t, g)
		s.post(helloStream)
		body := s.response().Body
		all.Go(func() {
			buf := make([]byte, len(chunk))
			for {
				if _, err := io.ReadFull(body, buf); err != nil {
					return
				}
				events.Add(1)
			}
		})
	}
	harness.Eventually(t, 30*time.Second, "the streams run", func() bool { return events.Load() > running })
	rate := func(span time.Duration) float64 { // of events, a second
		n, begin := events.Load(), time.Now()
		<-time.After(span)
		return float64(events.Load()-n) / time.Since(begin).Seconds()
	}
	alone := rate(2 * time.Second)

	var clients []net.Conn
	for range crowd {
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(g.URL, "http://"), 5*time.Second)
		if err != nil {
			t.Fatalf("client %d: %v", len(clients), err)
		}
		clients = append(clients, c)
		_, _ = io.WriteString(c, head(len(helloStream))+helloStream)
	}
	<-time.After(time.Second) // let them be taken in
	cpu, begin := g.CPU(t), time.Now()
	beside := rate(3 * time.Second)
	took := time.Since(begin)
	served := float64(u.inFlight.Load()) // each of them costs what a stream costs
	if beside < 0.7*alone {
		t.Missed("the running streams slowed down: %.0f events a second, and %.0f before the crowd came", beside, alone)
	}
	if share := (g.CPU(t) - cpu).Seconds() / took.Seconds(); share > 0.2 {
		t.Missed("%.0f %% of a core for %.0f slow streams", 100*share, served)
	}
	if open := g.Descriptors(t); open >= 256 {
		t.Errorf("%d descriptors are open", open)
	}
	if served <= running {
		t.Errorf("no descriptors were left for upstreams: %.0f streams are served", served)
	}
	t.Logf("%.0f streams are served, %d descriptors, %.1f %% of a core", served, g.Descriptors(t), 100*(g.CPU(t)-cpu).Seconds()/took.Seconds())

	for _, c := range clients {
		_ = c.Close()
	}
	u.use(answers)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	harness.Eventually(t, 30*time.Second, "service returns", func() bool {
		resp, err := client.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if n := g.Metric(t, "penstock_attempts_total", `code="descriptors"`); n != 0 {
		t.Errorf("descriptors ran out after all, in %v attempts", n)
	}
	if n := g.Metric(t, "penstock_breaker_transitions_total"); n != 0 {
		t.Errorf("the breaker changed %v times for what is no fault of the upstream", n)
	}
	g.Signal(t, 9)
	all.Wait()
}
