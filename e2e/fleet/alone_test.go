package fleet

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// A lookout notes when each replica says that Redis is away. One for which it is away
// alone takes its part of the limits beside what the others take of all, once that has
// lasted longer than a blip (docs/shared-quotas.md); answers of Redis that come late on
// a busy machine are enough for that.
type lookout struct {
	stop context.CancelFunc
	all  sync.WaitGroup
	seen [][]sight // by replica
}

// A sight is what a replica said at some time between two.
type sight struct {
	from, to time.Time
	away     bool
}

// blip is how long a replica that is alone takes no more than what it has.
const blip = 400 * time.Millisecond

func (f *fleet) look(t testing.TB) *lookout {
	ctx, stop := context.WithCancel(t.Context())
	l := &lookout{stop: stop, seen: make([][]sight, len(f.replicas))}
	t.Cleanup(func() { stop(); l.all.Wait() })
	for i, r := range f.replicas {
		l.all.Go(func() {
			for ctx.Err() == nil {
				from := time.Now()
				if _, detail, err := r.ready(); err == nil {
					l.seen[i] = append(l.seen[i], sight{from, time.Now(), strings.Contains(detail, "away")})
				}
				wait(30 * time.Millisecond)
			}
		})
	}
	return l
}

// end returns the longest time for which Redis may have been away for some replicas,
// and not for others.
func (l *lookout) end() (longest time.Duration) {
	l.stop()
	l.all.Wait()
	const step = 10 * time.Millisecond
	next := make([]int, len(l.seen)) // the first sight behind now
	first, last := l.seen[0][0].to, l.seen[0][len(l.seen[0])-1].from
	apart := time.Duration(0)
	for now := first; now.Before(last); now = now.Add(step) {
		away, here := false, false
		for i, sights := range l.seen {
			for next[i] < len(sights)-1 && sights[next[i]].from.Before(now) {
				next[i]++
			}
			// Between two sights that differ it may be either.
			for _, s := range sights[max(0, next[i]-1) : next[i]+1] {
				away, here = away || s.away, here || !s.away
			}
		}
		if away && here {
			apart += step
		} else {
			apart = 0
		}
		longest = max(longest, apart)
	}
	return longest
}

// judgeLoss ends the load and checks what has reached the upstreams while Redis was
// away: no more than the slots, and one burst more of a rate.
func (f *fleet) judgeLoss(t *harness.Round, c *crowd, l *lookout) {
	t.Helper()
	apart := l.end()
	t.Logf("Redis was away for some and not for others for up to %v", apart)
	if apart <= blip {
		f.judge(t, c, 1)
		return
	}
	t.Missed("Redis was away for some and not for others for %v", apart)
	answers := c.end()
	allOK(t, answers)
	// The parts of all but one beside everything, and of a rate a burst for each of three losses.
	if all, capped := f.peaks(); all > slots+slots*2/3 || capped > cappedSlots+cappedSlots*2/3 {
		t.Errorf("up to %d in flight at the upstream, of %d, and %d of the capped team, of %d", all, slots, capped, cappedSlots)
	}
	f.judgeRates(t, answers, 3)
}
