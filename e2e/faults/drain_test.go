package faults

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// fresh is a client that never uses a connection twice.
var fresh = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func status(url string) int {
	resp, err := fresh.Get(url)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// covers LIFE-01: on SIGTERM readiness fails first, then new work is refused, what
// is in flight ends whole, and the process exits 0 when the last of it is done.
func TestDrain(t *testing.T) {
	t.Parallel()
	const events = 30
	u := newUpstream(streams(events, 100*time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), "drain: {delay: 1s, limit: 20s}\n"))
	bodies := make([]string, 20)
	var all sync.WaitGroup
	for i := range bodies {
		s := dial(t, g)
		s.post(helloStream)
		body := s.response().Body
		all.Go(func() {
			b, err := io.ReadAll(body)
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
			bodies[i] = string(b)
		})
	}
	idle := dial(t, g) // a connection that was used and is kept
	idle.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = io.Copy(io.Discard, idle.response().Body)

	begin := time.Now()
	g.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 500*time.Millisecond, "readiness fails", func() bool { return status(g.Admin+"/readyz") == 503 })
	if status(g.Admin+"/healthz") != 200 || status(g.URL+"/readyz") != 503 {
		t.Error("not alive, or ready on the data listener")
	}
	idle.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp := idle.response(); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("in the pause before the listener closes: %d, Connection: close is %v", resp.StatusCode, resp.Close)
	}
	harness.Eventually(t, 2*time.Second, "new work is refused", func() bool {
		code := status(g.URL + "/v1/models")
		return code == 0 || code == 503
	})
	code := g.Wait(t, 10*time.Second)
	took := time.Since(begin)
	all.Wait()
	for i, b := range bodies {
		if b != whole(events) {
			t.Errorf("stream %d is not whole: …%q", i, b[max(0, len(b)-200):])
		}
	}
	if code != 0 || took > 4500*time.Millisecond {
		t.Errorf("exit code %d after %v; the last stream ended after 3 s", code, took)
	}
	if n := strings.Count(g.Logs(), `"outcome":"ok"`); n < len(bodies) {
		t.Errorf("%d requests are logged", n)
	}
}

// covers LIFE-03: at the drain limit streams are told and cut, the log says how
// many, the exit code is 0.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	u := newUpstream(streams(100_000, 50*time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), "drain: {limit: 1s}\n"))
	var all sync.WaitGroup
	for i := range 10 {
		s := dial(t, g)
		s.post(helloStream)
		body := s.response().Body
		all.Go(func() {
			b, err := io.ReadAll(body)
			text := string(b)
			if err == nil || !strings.Contains(text, `"code":"shutting_down"`) || strings.Contains(text, "[DONE]") {
				t.Errorf("stream %d ended with %v: …%q", i, err, text[max(0, len(text)-200):])
			}
		})
	}
	begin := time.Now()
	g.Signal(t, syscall.SIGTERM)
	if code, took := g.Wait(t, 10*time.Second), time.Since(begin); code != 0 || took < time.Second || took > 4*time.Second {
		t.Errorf("exit code %d after %v", code, took)
	}
	all.Wait()
	if !strings.Contains(g.Logs(), `"cut":10`) {
		t.Errorf("the log does not say how many were cut: %s", g.Logs())
	}
}

// covers LIFE-03: a second signal ends the process at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	u := newUpstream(streams(100_000, 50*time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), "drain: {delay: 30s, limit: 60s}\n"))
	s := dial(t, g)
	s.post(helloStream)
	s.response()
	g.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 2*time.Second, "it drains", func() bool { return status(g.Admin+"/readyz") == 503 })
	begin := time.Now()
	g.Signal(t, syscall.SIGTERM)
	if code, took := g.Wait(t, 5*time.Second), time.Since(begin); code == 0 || took > time.Second {
		t.Errorf("exit code %d after %v", code, took)
	}
}

// A balancer sends each request to one of the gateways that say that they are
// ready, as load balancers do.
type balancer struct {
	gateways []*harness.Gateway
	ready    []atomic.Bool
	next     atomic.Int64
}

func (b *balancer) watch(stop <-chan struct{}) {
	for {
		for i, g := range b.gateways {
			b.ready[i].Store(status(g.Admin+"/readyz") == 200)
		}
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *balancer) url() string {
	n := int(b.next.Add(1))
	for i := range b.gateways {
		if k := (n + i) % len(b.gateways); b.ready[k].Load() {
			return b.gateways[k].URL
		}
	}
	return b.gateways[0].URL
}

// covers LIFE-02: ten restarts of two gateways, one after the other, under 200
// requests a second over kept connections: not one request fails.
func TestRollingRestart(t *testing.T) {
	u := newUpstream(answersAfter(20 * time.Millisecond))
	url := harness.Serve(t, u)
	b := &balancer{ready: make([]atomic.Bool, 2)}
	for range 2 {
		b.gateways = append(b.gateways, harness.Start(t, one(url, "log: {access: false}\ndrain: {delay: 300ms, limit: 10s}\n")))
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { b.watch(stop) })
	harness.Eventually(t, 5*time.Second, "both are ready", func() bool { return b.ready[0].Load() && b.ready[1].Load() })

	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	begin := time.Now()
	var asked, failed atomic.Int64
	var mu sync.Mutex
	var first []string
	all.Go(func() {
		begin := time.Now()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Until(begin.Add(time.Duration(i) * 5 * time.Millisecond))):
			}
			all.Go(func() {
				asked.Add(1)
				resp, err := client.Post(b.url()+"/v1/chat/completions", "application/json", strings.NewReader(hello))
				text := fmt.Sprint(err)
				if err == nil {
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if resp.StatusCode == 200 && err == nil && string(body) == answer {
						return
					}
					text = fmt.Sprintf("%d %v %.200s", resp.StatusCode, err, body)
				}
				failed.Add(1)
				mu.Lock()
				first = append(first, text)
				mu.Unlock()
			})
		}
	})
	for i := range 10 {
		g := b.gateways[i%2]
		g.Signal(t, syscall.SIGTERM)
		if code := g.Wait(t, 15*time.Second); code != 0 {
			t.Errorf("exit code %d", code)
		}
		g.Restart(t)
		harness.Eventually(t, 5*time.Second, "the balancer sees it", b.ready[i%2].Load)
	}
	close(stop)
	all.Wait()
	client.CloseIdleConnections()
	if failed.Load() != 0 {
		t.Errorf("%d of %d requests failed, such as %q", failed.Load(), asked.Load(), first[:min(5, len(first))])
	}
	if took := time.Since(begin); float64(asked.Load()) < 150*took.Seconds() {
		t.Errorf("only %d requests in %v", asked.Load(), took)
	}
	t.Logf("%d requests", asked.Load())
}
