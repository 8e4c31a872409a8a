package fleet

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// A balancer gives every request to one of the replicas that are ready, in turn.
type balancer struct {
	replicas []*replica
	ready    []atomic.Bool
	next     atomic.Int64
}

func newBalancer(t *testing.T, replicas []*replica) *balancer {
	b := &balancer{replicas: replicas, ready: make([]atomic.Bool, len(replicas))}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, r := range replicas {
		all.Go(func() {
			for {
				resp, err := http.Get(r.Admin + "/readyz")
				b.ready[i].Store(err == nil && resp.StatusCode == http.StatusOK)
				if err == nil {
					resp.Body.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		all.Wait()
	})
	return b
}

func (b *balancer) url() string {
	n := int(b.next.Add(1))
	for i := range b.replicas {
		if k := (n + i) % len(b.replicas); b.ready[k].Load() {
			return b.replicas[k].URL
		}
	}
	return b.replicas[n%len(b.replicas)].URL
}

// covers LIFE-02 (S9): three replicas are restarted one after the other under load
// by clients that keep their connections. No request fails, the fleet keeps within
// its limits, and no stream is cut.
func TestS9RollingRestart(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	b := newBalancer(t, f.replicas)
	c := newCrowd(t)
	for _, model := range []string{"slots", "rates"} {
		for range 40 {
			c.all.Go(func() {
				for c.ctx.Err() == nil {
					c.note(ask{team: "free", model: model, prompt: 10, output: 10}.send(t.Context(), b.url()))
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
	harness.Eventually(t, 10*time.Second, "the upstream is busy", func() bool { return f.slots.within() >= slots*2/3 })
	for i, r := range f.replicas {
		r.Signal(t, syscall.SIGTERM)
		if code := r.Wait(t, 20*time.Second); code != 0 {
			t.Errorf("replica %d ended with %d", i, code)
		}
		r.Restart(t)
		harness.Eventually(t, 5*time.Second, "the balancer sees it", b.ready[i].Load)
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
