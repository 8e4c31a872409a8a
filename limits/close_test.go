package limits

import (
	"errors"
	"testing"
	"time"
)

// A queue that is closed does nothing by itself any more: whoever waits for a refill
// does so until its time is up.
func TestCloseStopsTheTimers(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		up := w.target("a", rateLimit("a", Requests, 60, time.Minute))
		join := func() *Ticket {
			ticket, err := w.q.Join(request("search", 1, 1, up))
			if err != nil {
				t.Fatal(err)
			}
			return ticket
		}
		ticket := join()
		for ticket.Admitted() {
			ticket = join()
		}
		begin := time.Now()
		w.q.Close()
		_, err := ticket.Wait(t.Context())
		var e *Exceeded
		if !errors.As(err, &e) || e.Reason != ReasonTimeout || time.Since(begin) < 59*time.Minute {
			t.Errorf("%v after %v, want its time to be up after an hour", err, time.Since(begin))
		}
	})
}
