package limits

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// covers LIM-09: one key that floods at 50 times its share neither takes all places
// of its team, nor makes another key of it take twice its time alone.
func TestFloodingKeyStarvesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := testConfig()
		cfg.PerTeam = 500
		w.q.Configure(cfg)
		up := w.target("a", slotsOf("a", 10))
		ask := func(ctx context.Context, key string) (time.Duration, error) {
			begin := time.Now()
			r := request("t", 1, 10, up)
			r.Key = key
			g, err := w.q.Acquire(ctx, r)
			if err != nil {
				return 0, err
			}
			time.Sleep(time.Second)
			g.Settle(Cost{Requests: 1, Input: 10})
			return time.Since(begin), nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var mu sync.Mutex
		full := 0
		// The upstream serves 10 a second, so a fair share of two keys is 5.
		flood := time.NewTicker(time.Second / 250)
		defer flood.Stop()
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-flood.C:
				}
				all.Go(func() {
					_, err := ask(ctx, "flood")
					if e := (*Exceeded)(nil); errors.As(err, &e) && e.Reason == ReasonQueueFull {
						mu.Lock()
						full++
						mu.Unlock()
					}
				})
			}
		})
		time.Sleep(10 * time.Second)
		var took []time.Duration
		var calm sync.WaitGroup
		for range 200 {
			time.Sleep(250 * time.Millisecond)
			calm.Go(func() {
				d, err := ask(ctx, "calm")
				if err != nil {
					t.Errorf("the calm key was refused: %v", err)
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			})
		}
		calm.Wait()
		cancel()
		all.Wait()
		slices.Sort(took)
		if p95 := took[len(took)*95/100]; p95 >= 2*time.Second {
			t.Errorf("p95 of the calm key %v, alone it takes 1 s", p95)
		}
		if full == 0 {
			t.Error("the flood filled nothing")
		}
		if !w.q.CheckEmpty() {
			t.Error("something was left behind")
		}
	})
}
