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
	harness.Rounds(t, drain)
}

func drain(t *harness.Round) {
	const events, delay = 30, time.Second
	u := newUpstream(streams(events, 100*time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), fmt.Sprintf("drain: {delay: %v, limit: 20s}\n", delay)))
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
	t.Within(500*time.Millisecond, "readiness fails", func() bool { return status(g.Admin+"/readyz") == 503 })
	wrong := inTheDelay(g, idle)
	if took := time.Since(begin); wrong != "" && took < delay {
		t.Error(wrong)
	} else if wrong != "" {
		t.Missed("it was looked %v after the signal, when the delay of %v was over: %s", took, delay, wrong)
	}
	t.Within(2*time.Second, "new work is refused", func() bool {
		code := status(g.URL + "/v1/models")
		return code == 0 || code == 503
	})
	code := g.Wait(t, 30*time.Second)
	t.AtMost(4500*time.Millisecond, time.Since(begin), "a drain whose last stream ended after 3 s")
	all.Wait()
	for i, b := range bodies {
		if b != whole(events) {
			t.Errorf("stream %d is not whole: …%q", i, b[max(0, len(b)-200):])
		}
	}
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(g.Logs(), `"outcome":"ok"`); n < len(bodies) {
		t.Errorf("%d requests are logged", n)
	}
}

// inTheDelay tells what is wrong of a gateway that has failed its readiness and still
// takes requests.
func inTheDelay(g *harness.Gateway, idle *socket) string {
	if live, ready := status(g.Admin+"/healthz"), status(g.URL+"/readyz"); live != 200 || ready != 503 {
		return fmt.Sprintf("/healthz says %d, and /readyz on the data listener %d", live, ready)
	}
	idle.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(idle.r, nil)
	if err != nil {
		return fmt.Sprintf("a kept connection is not answered: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || !resp.Close {
		return fmt.Sprintf("a kept connection is answered with %d, Connection: close is %v", resp.StatusCode, resp.Close)
	}
	return ""
}

// covers LIFE-03: at the drain limit streams are told and cut, the log says how
// many, the exit code is 0.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, drainLimit)
}

func drainLimit(t *harness.Round) {
	const limit = time.Second
	u := newUpstream(streams(100_000, 50*time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), fmt.Sprintf("drain: {limit: %v}\n", limit)))
	ends := make([]string, 10) // how each stream ended, empty if as it should
	var all sync.WaitGroup
	for i := range ends {
		s := dial(t, g)
		s.post(helloStream)
		body := s.response().Body
		all.Go(func() {
			b, err := io.ReadAll(body)
			text := string(b)
			if err == nil || !strings.Contains(text, `"code":"shutting_down"`) || strings.Contains(text, "[DONE]") {
				ends[i] = fmt.Sprintf("stream %d ended with %v: …%q", i, err, text[max(0, len(text)-200):])
			}
		})
	}
	begin := time.Now()
	g.Signal(t, syscall.SIGTERM)
	code, took := g.Wait(t, 30*time.Second), time.Since(begin)
	all.Wait()
	if code != 0 || took < limit {
		t.Errorf("exit code %d after %v", code, took)
	}
	t.AtMost(4*time.Second, took, "the drain")
	for _, wrong := range ends {
		if wrong != "" && took < limit+2*time.Second { // the time for telling is not over
			t.Error(wrong)
		} else if wrong != "" {
			t.Missed("%s", wrong)
		}
	}
	if !strings.Contains(g.Logs(), `"cut":10`) {
		t.Errorf("the log does not say how many were cut: %s", g.Logs())
	}
}

// covers LIFE-03: a second signal ends the process at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, func(t *harness.Round) {
		u := newUpstream(streams(100_000, 50*time.Millisecond))
		g := harness.Start(t, one(harness.Serve(t, u), "drain: {delay: 60s, limit: 60s}\n"))
		s := dial(t, g)
		s.post(helloStream)
		s.response()
		g.Signal(t, syscall.SIGTERM)
		harness.Eventually(t, 30*time.Second, "it drains", func() bool { return status(g.Admin+"/readyz") == 503 })
		begin := time.Now()
		g.Signal(t, syscall.SIGTERM)
		code := g.Wait(t, 30*time.Second)
		t.AtMost(time.Second, time.Since(begin), "the end after a second signal")
		if code == 0 {
			t.Error("exit code 0")
		}
	})
}

// covers LIFE-02: ten restarts of two gateways, one after the other, under 200
// requests a second over kept connections: not one request fails.
func TestRollingRestart(t *testing.T) {
	u := newUpstream(answersAfter(20 * time.Millisecond))
	url := harness.Serve(t, u)
	var gateways []*harness.Gateway
	for range 2 {
		gateways = append(gateways, harness.Start(t, one(url, "log: {access: false}\ndrain: {delay: 500ms, limit: 10s}\n")))
	}
	b := harness.NewBalancer(t, gateways...)
	stop := make(chan struct{})
	var all sync.WaitGroup
	harness.Eventually(t, 30*time.Second, "both are ready", func() bool { return b.Ready(0) && b.Ready(1) })

	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
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
				base := b.URL(stop)
				if base == "" {
					return
				}
				asked.Add(1)
				resp, err := client.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(hello))
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
		g := gateways[i%2]
		g.Signal(t, syscall.SIGTERM)
		if code := g.Wait(t, 30*time.Second); code != 0 {
			t.Errorf("exit code %d", code)
		}
		g.Restart(t)
		harness.Eventually(t, 30*time.Second, "the balancer sees it", func() bool { return b.Ready(i % 2) })
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
