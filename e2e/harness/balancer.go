package harness

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// A Balancer sends each request to one of the gateways that say that they are ready, in
// turn, as load balancers do. It trusts no answer of readiness that is old, so that a
// busy machine, on which it comes to ask late, has it send nothing to a gateway that has
// begun to drain meanwhile. It is safe for concurrent use.
type Balancer struct {
	gateways []*Gateway

	mu    sync.Mutex
	asked []time.Time // of each gateway: when it was asked last and was ready
	next  int
}

const (
	askPause = 50 * time.Millisecond
	// trusted is how old an answer of readiness may be. A gateway that leaves has to
	// take requests for longer.
	trusted = 200 * time.Millisecond
)

// NewBalancer returns a balancer that asks until the test ends.
func NewBalancer(t testing.TB, gateways ...*Gateway) *Balancer {
	b := &Balancer{gateways: gateways, asked: make([]time.Time, len(gateways))}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, g := range gateways {
		all.Go(func() {
			for {
				at := time.Now()
				resp, err := client.Get(g.Admin + "/readyz")
				if err == nil {
					resp.Body.Close()
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					at = time.Time{}
				}
				b.mu.Lock()
				b.asked[i] = at
				b.mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(askPause):
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

// Ready reports whether a gateway was ready a moment ago.
func (b *Balancer) Ready(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.asked[i]) < trusted
}

// URL is where the next request goes. It waits until a gateway is ready, and returns
// "" if stop is closed first.
func (b *Balancer) URL(stop <-chan struct{}) string {
	for {
		b.mu.Lock()
		b.next++
		n := b.next
		b.mu.Unlock()
		for i := range b.gateways {
			if k := (n + i) % len(b.gateways); b.Ready(k) {
				return b.gateways[k].URL
			}
		}
		select {
		case <-stop:
			return ""
		case <-time.After(5 * time.Millisecond):
		}
	}
}
