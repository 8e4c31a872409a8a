package faults

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers UP-06: with one upstream hanging and its queue full of requests, those to
// another are answered as if it were alone.
func TestDeadUpstreamStarvesNoOther(t *testing.T) {
	harness.Rounds(t, besideADeadOne)
}

func besideADeadOne(t *harness.Round) {
	const clients, asks, each = 8, 10, 150 * time.Millisecond
	dead := newUpstream(hangs)
	good := newUpstream(answersAfter(each))
	g := harness.Start(t, fmt.Sprintf(`
upstreams:
  dead: {base_url: "%s/v1", limits: {concurrency: 20}}
  good: {base_url: "%s/v1", limits: {concurrency: 20}}
models: {dead: dead, good: good}
log: {access: false}
`, harness.Serve(t, dead), harness.Serve(t, good)))
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 50}}
	defer client.CloseIdleConnections()
	p99 := func() time.Duration {
		var mu sync.Mutex
		var took []time.Duration
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for range asks {
					begin := time.Now()
					resp, err := client.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(strings.Replace(hello, `"m"`, `"good"`, 1)))
					if err != nil {
						t.Errorf("a request failed: %v", err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					mu.Lock()
					took = append(took, time.Since(begin))
					mu.Unlock()
					if resp.StatusCode != 200 {
						t.Errorf("answered %d", resp.StatusCode)
					}
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	p99() // connections
	alone := min(p99(), p99(), p99())
	for range 300 {
		dial(t, g).post(strings.Replace(hello, `"m"`, `"dead"`, 1))
	}
	harness.Eventually(t, 30*time.Second, "the queue of the dead one fills", func() bool { return g.Metric(t, "penstock_queue_depth", `upstream="dead"`) == 280 })
	beside := min(p99(), p99(), p99())
	if beside > alone*6/5 {
		t.Missed("p99 of %v beside the dead one, %v alone", beside, alone)
	}
	if n := dead.peak.Load(); n != 20 {
		t.Errorf("%d at once reached the dead one", n)
	}
	t.Logf("p99 of %v beside the dead one, %v alone", beside.Round(100*time.Microsecond), alone.Round(100*time.Microsecond))
}
