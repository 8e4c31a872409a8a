package redisstore_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/redisstore"
)

// watchApart watches stores until the function that it returns is called with the rate
// that they share. That returns it with the burst that they may use, however busy the
// machine is: at each loss a replica may use its part of one more, and its part of the
// rate for as long as it alone is without the server.
func watchApart(t testing.TB, stores ...*redisstore.Store) func(l *limits.Limit) *limits.Limit {
	ctx, stop := context.WithCancel(t.Context())
	var apart time.Duration
	var work sync.WaitGroup
	work.Go(func() {
		last := time.Now()
		for before := false; ctx.Err() == nil; sleep(time.Millisecond) {
			away := 0
			for _, s := range stores {
				away += s.State().Away
			}
			now, differ := time.Now(), away > 0 && away < len(stores)
			if differ || before {
				apart += now.Sub(last)
			}
			before, last = differ, now
		}
	})
	return func(l *limits.Limit) *limits.Limit {
		stop()
		work.Wait()
		losses := 0
		for _, s := range stores {
			losses += s.Losses()
		}
		more := *l
		more.Burst += int64(losses)*(l.Burst/int64(len(stores))+1) + int64(float64(l.Amount)*float64(apart)/float64(l.Window))
		t.Logf("%d losses, %v apart: a burst of %d in place of %d", losses, apart, more.Burst, l.Burst)
		return &more
	}
}
