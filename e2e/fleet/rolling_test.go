package fleet

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers LIFE-02 (S9): three replicas are restarted one after the other under load
// by clients that keep their connections. No request fails, the fleet keeps within
// its limits, and no stream is cut.
func TestS9RollingRestart(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, rollingRestart)
}

func rollingRestart(t *harness.Round) {
	f := newFleet(t, 3, patient)
	var gateways []*harness.Gateway
	for _, r := range f.replicas {
		gateways = append(gateways, r.Gateway)
	}
	b := harness.NewBalancer(t, gateways...)
	c := newCrowd(t)
	for _, model := range []string{"slots", "rates"} {
		for range 40 {
			c.all.Go(func() {
				for c.ctx.Err() == nil {
					if base := b.URL(c.ctx.Done()); base != "" {
						c.note(ask{team: "free", model: model, prompt: 10, output: 10}.send(t.Context(), base))
					}
				}
			})
		}
	}
	var streams sync.WaitGroup
	for i, r := range f.replicas {
		streams.Go(func() {
			if err := stream(r.URL); err != nil {
				t.Errorf("the stream at replica %d: %v", i, err)
			}
		})
	}
	harness.Eventually(t, 30*time.Second, "the upstream is busy", func() bool { return f.slots.within() >= slots*2/3 })
	for i, r := range f.replicas {
		r.Signal(t, syscall.SIGTERM)
		if code := r.Wait(t, 30*time.Second); code != 0 {
			t.Errorf("replica %d ended with %d", i, code)
		}
		r.Restart(t)
		harness.Eventually(t, 30*time.Second, "the balancer sees it", func() bool { return b.Ready(i) })
	}
	streams.Wait()
	wait(500 * time.Millisecond)
	answers := c.end()
	allOK(t, answers)
	if peak := f.slots.provider.Stats().PeakInFlight; peak > slots {
		t.Errorf("%d in flight at the upstream, want at most %d", peak, slots)
	}
	for _, r := range rules {
		r.check(t, f.rates.admissions(answers))
	}
	t.Logf("%d requests", len(answers))
}

// stream reads a stream that takes three seconds, and reports how it was cut.
func stream(base string) error {
	body := `{"model":"long","stream":true,"max_tokens":60,"messages":[{"role":"user","content":"hi"}]}`
	r, err := http.NewRequest(http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+keyOf("free"))
	r.Header.Set(idHeader, "0")
	r.Header.Set("X-Simulate", "tokens=60;token-time=50ms")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	last := ""
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text := lines.Text(); text != "" {
			last = text
		}
	}
	if err := lines.Err(); err != nil || resp.StatusCode != http.StatusOK || last != "data: [DONE]" {
		return fmt.Errorf("status %d, %w, ends with %.200q", resp.StatusCode, err, last)
	}
	return nil
}
