package redisstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/limits"
)

// The parts of the slots that replicas use when they know nothing of each other are
// together all, and no more.
func TestPartsOfSlots(t *testing.T) {
	for _, x := range []struct {
		name  string
		slots int64
		held  []int64
	}{
		{"idle", 24, []int64{0, 0, 0}},
		{"used up evenly", 24, []int64{8, 8, 8}},
		{"used up by one", 24, []int64{24, 0, 0}},
		{"some are free", 24, []int64{12, 4, 0}},
		{"fewer than replicas", 2, []int64{0, 0, 0, 0}},
		{"all of a few", 2, []int64{1, 0, 1}},
		{"one of a few", 2, []int64{0, 0, 1}},
		{"what cannot be divided", 11, []int64{2, 0, 1, 0}},
		{"made fewer meanwhile", 5, []int64{8, 4, 0}},
	} {
		sum, most, used := int64(0), x.slots, int64(0)
		for _, h := range x.held {
			used += h
		}
		for i, h := range x.held {
			l := &level{held: h, others: used - h}
			p := l.part(x.slots, place{int64(len(x.held)), int64(i)})
			if p < h {
				t.Errorf("%s: a part of %d where %d are held", x.name, p, h)
			}
			sum += p
		}
		if most = max(most, used); sum != most {
			t.Errorf("%s: parts of %d slots of %d", x.name, sum, most)
		}
	}
}

func newStore(t *testing.T) *Store {
	s := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), Options{Replicas: 3})
	t.Cleanup(func() { s.client.Close() })
	return s
}

// A replica keeps to its part while the others may not have stated theirs.
func TestSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		o := s.owner("upstream/a")
		l := o.level(&limits.Limit{ID: "a", Scope: limits.ScopeUpstream, Owner: "a", Dimension: limits.Concurrency, Amount: 24})
		own := func(want int64, when string) {
			t.Helper()
			if n := o.ownSlots(l, 24); n != want {
				t.Errorf("%s: at most %d own slots, want %d", when, n, want)
			}
		}
		own(24, "before anything")
		l.held, l.others = 3, 12
		o.settle(time.Second, false)
		own(6, "after a second")
		l.held, l.others = 20, 0
		o.settle(0, false)
		o.settle(0, true)
		own(6, "while it settles, the first part holds")
		time.Sleep(4 * time.Second)
		own(24, "settled")
		l.held, l.others = 8, 16
		o.settle(0, true)
		own(8, "after a blip")
		l.others = 10
		o.settle(0, true)
		own(10, "after another, by what is known now")
		time.Sleep(settleBlip + time.Millisecond)
		own(24, "settled after blips")
		o.settle(time.Hour, false)
		own(8, "after a loss that outlived the leases")
	})
}

// Fewer replicas are believed only after those that a server has forgotten have had
// time to come back.
func TestCountOfReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		step := func(n int64, missing bool, want int64, when string) {
			t.Helper()
			before := s.place()
			s.counted(n, n-1, missing)
			if got := s.live.Load(); got != want {
				t.Errorf("%s: %d replicas, want %d", when, got, want)
			}
			if got, believed := s.place(), n == want; believed && got.rank != n-1 || !believed && got != before {
				t.Errorf("%s: place %+v after %+v", when, got, before)
			}
		}
		step(1, true, 3, "at the start, as configured")
		step(4, false, 4, "more are there")
		time.Sleep(6 * time.Second)
		step(2, false, 2, "two have left")
		step(3, false, 3, "one has come")
		step(1, true, 3, "the server was emptied")
		time.Sleep(4 * time.Second)
		step(2, false, 3, "the others still come back")
		time.Sleep(2 * time.Second)
		step(2, false, 2, "one did not")
	})
}
