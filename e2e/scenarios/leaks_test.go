package scenarios

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// A leaver is a client that hangs up in the middle.
type leaver struct {
	chat   chat
	half   bool          // after half of the body
	events int           // after so many events of the answer
	after  time.Duration // and then so long
	all    chan struct{} // and when this is closed, if there is one
}

// leave connects, gets as far as it should and hangs up, half of the time by a
// reset.
func (l leaver) leave(t testing.TB, g *harness.Gateway, reset bool) {
	c, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	var b bytes.Buffer
	body := l.chat.body()
	fmt.Fprintf(&b, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Simulate: %s\r\n\r\n",
		len(body), l.chat.Simulate)
	if l.half {
		body = body[:len(body)/2]
	}
	b.Write(body)
	if _, err := c.Write(b.Bytes()); err != nil {
		t.Error(err)
		return
	}
	for seen, buf := 0, make([]byte, 4096); seen < l.events; {
		n, err := c.Read(buf)
		seen += bytes.Count(buf[:n], []byte("data: "))
		if err != nil {
			t.Errorf("the answer ended after %d events: %v", seen, err)
			return
		}
	}
	<-time.After(l.after)
	if l.all != nil {
		<-l.all
	}
	if reset {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
}

// resources are what a process holds.
type resources struct {
	goroutines, descriptors int
	memory                  float64 // bytes
}

// like reports that nothing much has been added. The race detector keeps memory of
// its own.
func (r resources) like(before resources) bool {
	more := 48.0 * (1 << 20)
	if os.Getenv("PENSTOCK_RACE") == "1" {
		more *= 10
	}
	return r.goroutines <= before.goroutines+40 && r.descriptors <= before.descriptors+40 && r.memory <= before.memory+more
}

func holds(t testing.TB, g *harness.Gateway) resources {
	t.Helper()
	transport.CloseIdleConnections()
	return resources{g.Goroutines(t), g.Descriptors(t), g.Metric(t, "process_resident_memory_bytes")}
}

// quiet reports whether nothing of any request is left.
func quiet(t testing.TB, g *harness.Gateway) bool {
	for _, m := range []string{"requests_in_flight", "queue_depth", "concurrency_in_use", "buffered_bytes"} {
		if g.Metric(t, "penstock_"+m) != 0 {
			return false
		}
	}
	return true
}

// spent is what has been taken of an upstream's limit.
func spent(t testing.TB, g *harness.Gateway, dimension string) float64 {
	t.Helper()
	labels := []string{`scope="upstream"`, `owner="up"`, fmt.Sprintf("dimension=%q", dimension)}
	return g.Metric(t, "penstock_limit_capacity", labels...) - g.Metric(t, "penstock_limit_level", labels...)
}

func less(a, b simulate.Amounts) simulate.Amounts {
	return simulate.Amounts{Requests: a.Requests - b.Requests, Tokens: a.Tokens - b.Tokens}
}

// covers CL-01, CL-02, CL-03, LIM-01, LIM-03: a thousand clients hang up in every
// phase of a request. Nothing is left of them, and what they used is what the
// provider counted.
func TestS7ClientsHangUp(t *testing.T) {
	const each = 167
	p := simulate.New(simulate.Config{TTFT: 5 * time.Millisecond, TokenTime: 10 * time.Millisecond})
	narrow := simulate.New(simulate.Config{})
	url := harness.Serve(t, p)
	config := `
upstreams:
  up:
    base_url: "%s/v1"
    limits:
      concurrency: 200
      requests: {limit: 1000000, per: 720h, burst: 1000000}
      tokens: {limit: 1000000, per: 720h, burst: 1000000}
  narrow: {base_url: "%s/v1", limits: {concurrency: 2}}
models: {m: up, narrow: narrow}
relay: {on_disconnect: %s, drain_for: 5s}
`
	cancels := start(t, config, url, harness.Serve(t, narrow), "cancel")
	drains := start(t, config, url, harness.Serve(t, narrow), "drain")
	begin := time.Now()
	var seen tally
	crowd := func(g *harness.Gateway) { // as many at once as there are slots
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { seen.add(chat{Simulate: "tokens=4,ttft=500ms"}.send(t.Context(), g.URL)) })
		}
		all.Wait()
	}
	crowd(drains)
	drained := p.Stats().Admitted
	crowd(cancels)
	before, drainsBefore := holds(t, cancels), holds(t, drains)

	slowest := time.Duration(0)
	phase := func(name string, g *harness.Gateway, l leaver) {
		var all sync.WaitGroup
		for i := range each {
			all.Go(func() { l.leave(t, g, i%2 == 0) })
		}
		if l.all != nil {
			harness.Eventually(t, 30*time.Second, name+": all are there", func() bool { return g.Metric(t, "penstock_requests_in_flight") == each })
			close(l.all)
		}
		all.Wait()
		left := time.Now()
		harness.Eventually(t, 30*time.Second, name+": everything is given back", func() bool {
			return quiet(t, g) && p.Stats().Open == 0 && narrow.Stats().Open == 0
		})
		slowest = max(slowest, time.Since(left))
	}
	stream := func(simulate string) chat { return chat{Stream: true, Simulate: simulate} }
	gone := func(g *harness.Gateway) float64 {
		return g.Metric(t, "penstock_requests_total", `outcome="client_closed"`)
	}

	phase("sending", cancels, leaver{chat: chat{Prompt: 1000}, half: true, after: 200 * time.Millisecond})
	sent := gone(cancels)
	phase("queued", cancels, leaver{chat: chat{Model: "narrow", Simulate: "hang"}, all: make(chan struct{})})
	phase("waiting for the answer", cancels, leaver{chat: stream("ttft=60s"), all: make(chan struct{})})
	phase("mid-stream", cancels, leaver{chat: stream("tokens=2000"), events: 20})
	phase("in a silent gap", cancels, leaver{chat: stream("stall-after=10"), events: 10, after: 200 * time.Millisecond})
	if n := gone(cancels) - sent; n != 4*each {
		t.Errorf("%v requests are recorded as left by the client, want %d", n, 4*each)
	}
	crowd(cancels)
	for _, g := range []*harness.Gateway{cancels, drains} {
		if n := spent(t, g, "concurrency"); n != 0 {
			t.Errorf("%v slots are gone", n)
		}
	}
	cancelled := less(p.Stats().Admitted, drained)
	phase("draining", drains, leaver{chat: stream("tokens=60"), events: 5})
	seen.allOK(t)

	if peak := p.Stats().PeakInFlight; peak > 200 {
		t.Errorf("%d in flight at the provider, the limit is 200", peak)
	}
	for _, g := range []*harness.Gateway{cancels, drains} {
		if n := g.Metric(t, "penstock_breaker_transitions_total"); n != 0 {
			t.Errorf("clients that leave moved the breaker %v times", n)
		}
		if strings.Contains(g.Logs(), `"level":"ERROR"`) {
			t.Error("clients that leave are logged as errors")
		}
	}

	// What both sides counted. A drained stream ends with the provider's own count.
	// What was cut is estimated at four bytes for a token, and the provider's words
	// are longer; and it has made a few more than arrived here.
	drained = less(p.Stats().Admitted, cancelled)
	wrong := 0.0
	for _, c := range []struct {
		name         string
		ours, theirs float64
		off          float64 // allowed share, besides what is earned back meanwhile
	}{
		{"requests", spent(t, cancels, "requests"), float64(cancelled.Requests), 0},
		{"tokens", spent(t, cancels, "tokens"), float64(cancelled.Tokens), 0.2},
		{"requests of drained streams", spent(t, drains, "requests"), float64(drained.Requests), 0},
		{"tokens of drained streams", spent(t, drains, "tokens"), float64(drained.Tokens), 0},
	} {
		t.Logf("%s: %v here, %v at the provider", c.name, c.ours, c.theirs)
		earned := 1_000_000 / (720 * 3600.0) * (time.Since(begin).Seconds() + 1)
		if math.Abs(c.ours-c.theirs) > c.off*c.theirs+earned {
			t.Errorf("%s: %v here, %v at the provider", c.name, c.ours, c.theirs)
		}
		wrong = max(wrong, math.Abs(c.ours-c.theirs)/c.theirs)
	}

	var leaks []string
	for _, c := range []struct {
		g      *harness.Gateway
		before resources
	}{{cancels, before}, {drains, drainsBefore}} {
		now := holds(t, c.g)
		for deadline := time.Now().Add(30 * time.Second); !now.like(c.before) && time.Now().Before(deadline); now = holds(t, c.g) {
			<-time.After(100 * time.Millisecond)
		}
		if !now.like(c.before) {
			t.Errorf("the gateway holds %+v, and held %+v before", now, c.before)
		}
		leaks = append(leaks, fmt.Sprintf("%+d goroutines, %+d descriptors, %+.0f MiB",
			now.goroutines-c.before.goroutines, now.descriptors-c.before.descriptors, (now.memory-c.before.memory)/(1<<20)))
	}
	record(figures{Scenario: "S7 1,000 clients hang up", Success: seen.success(), Leaks: strings.Join(leaks, "; "),
		Note: fmt.Sprintf("all given back within %v; tokens differ by at most %.2f %% from the provider's", slowest.Round(10*time.Millisecond), 100*wrong)})
}
