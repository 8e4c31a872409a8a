package redisstore_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/redisstore"
)

// A watch is how a server was lost to stores.
type watch struct {
	stores int
	losses int           // of all stores together
	apart  time.Duration // for which some were without it and others were not
}

// watchApart watches stores until the function that it returns is called.
func watchApart(t testing.TB, stores ...*redisstore.Store) (end func() watch) {
	ctx, stop := context.WithCancel(t.Context())
	w := watch{stores: len(stores)}
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
				w.apart += now.Sub(last)
			}
			before, last = differ, now
		}
	})
	return func() watch {
		stop()
		work.Wait()
		for _, s := range stores {
			w.losses += s.Losses()
		}
		t.Logf("%d losses, %v apart", w.losses, w.apart)
		return w
	}
}

// bound is a rate with the burst that the stores may use of it, however busy the machine
// is: at each loss a store may use its part of one more, and its part of the rate for as
// long as it alone is without the server.
func (w watch) bound(l *limits.Limit) *limits.Limit {
	more := *l
	more.Burst += int64(w.losses)*(l.Burst/int64(w.stores)+1) + int64(float64(l.Amount)*float64(w.apart)/float64(l.Window))
	return &more
}
