package limits

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// anothersTurn is a store of another process that has room for nobody, and says to
// all but one team that it is the turn of that one.
type anothersTurn struct {
	farAway
	team string
}

func (s anothersTurn) Take(_ context.Context, _ uint64, turn *Turn, charges []Charge) (Verdict, error) {
	v := Verdict{By: charges[0].Limit, N: charges[0].N, Again: time.Hour}
	if turn.Team == s.team {
		time.Sleep(s.delay / 10)
		return v, nil
	}
	time.Sleep(s.delay)
	v.Turn = s.team
	return v, nil
}

// While a request that nobody is ahead of is asked for, one of another team comes,
// and it is that one's turn: the first one waits as well.
func TestOvertakenAtTheFirstAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		w := &world{NewQueue(anothersTurn{farAway{m, 10 * time.Millisecond}, "other"}, testConfig()), m}
		up := w.target("a", slotsOf("a", 1))
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			time.Sleep(time.Millisecond)
			_, err := w.q.Acquire(ctx, request("other", 1, 10, up))
			left <- err
		}()
		ticket, err := w.q.Join(request("one", 1, 10, up))
		if err != nil {
			t.Fatal(err)
		}
		if ticket.Admitted() {
			g, err := ticket.Wait(ctx)
			t.Errorf("admitted, with %v and %v", g, err)
		}
		cancel()
		if _, err := ticket.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the first one left with %v", err)
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the other left with %v", err)
		}
		w.q.Close()
	})
}
