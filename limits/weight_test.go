package limits

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// covers LIM-09: a reload that changes a team's weight changes its share at once,
// also where many wait that came before it.
func TestSharesFollowChangedWeights(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		up := w.target("a", rateLimit("a/tokens", Tokens, 60_000, time.Minute), slotsOf("a/c", 50))
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		var weight atomic.Int64
		weight.Store(1)
		begin := time.Now()
		var mu sync.Mutex
		served := map[string]*[6]float64{"changed": {}, "same": {}} // by minute
		var all sync.WaitGroup
		for team, tokens := range served {
			for i := range 100 {
				r := rand.New(rand.NewPCG(uint64(i), uint64(len(team))))
				all.Go(func() {
					for ctx.Err() == nil {
						request := request(team, 1, int64(100+r.IntN(300)), up)
						if team == "changed" {
							request.Weight = int(weight.Load())
						}
						g, err := w.q.Acquire(ctx, request)
						if err != nil {
							return
						}
						mu.Lock()
						tokens[min(5, int(time.Since(begin).Minutes()))] += float64(request.Cost.Input)
						mu.Unlock()
						time.Sleep(time.Second)
						g.Settle(Cost{Requests: 1, Input: request.Cost.Input})
					}
				})
			}
		}
		for minute, factor := range []float64{1, 1, 4, 4, 1, 1} {
			weight.Store(int64(factor))
			time.Sleep(time.Minute)
			mu.Lock()
			ratio := served["changed"][minute] / served["same"][minute]
			mu.Unlock()
			if minute > 0 && (ratio < factor*0.9 || ratio > factor*1.1) { // one request is 2 % of a minute's share
				t.Errorf("minute %d: shares are %.2f : 1, want %v : 1", minute, ratio, factor)
			}
		}
		all.Wait()
	})
}
