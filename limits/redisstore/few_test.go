package redisstore_test

import (
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// covers DIST-03: where there are fewer slots than replicas, those that are free when
// the server goes away are used at once, and no more than those by what the replicas
// were told; who is left over has one when the leases of that time have ended.
func TestFewerSlotsThanReplicas(t *testing.T) {
	t.Parallel()
	const lease = 4 * time.Second
	for name, c := range map[string]struct {
		who, hold int           // one replica holds slots
		over      bool          // but not at the loss any more
		idle      time.Duration // for which nobody has asked before the loss
		want      [3]int        // slots that each uses then
	}{
		"nobody holds any":        {0, 0, false, 2 * time.Second, [3]int{1, 1, 0}},
		"the rush is over":        {0, 2, true, 2 * time.Second, [3]int{1, 1, 0}},
		"one holds both":          {0, 2, false, 0, [3]int{2, 0, 0}},
		"the last one holds one":  {2, 1, false, 0, [3]int{1, 0, 1}},
		"the first one holds one": {0, 1, false, 0, [3]int{1, 0, 0}}, // what is free would be its own
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limitstest.Rounds(t, func(t testing.TB) {
				server := redistest.Start(t)
				at, p, l := redisstore.Server{Addresses: []string{server.Addr}}, prefix(), limitstest.Slots("a", 2)
				var stores []*redisstore.Store
				for _, name := range []string{"a", "b", "c"} {
					stores = append(stores, open(t, at, redisstore.Options{Prefix: p, Replica: name, Lease: lease, Timeout: 300 * time.Millisecond}))
				}
				for _, s := range stores {
					within(t, 10*time.Second, "all know of all", func() bool { return s.State().Replicas == 3 })
				}
				var held []*held
				for range c.hold {
					h, v := take(t, stores[c.who], 1, l)
					if !v.OK {
						t.Fatal("refused")
					}
					held = append(held, h)
				}
				for _, s := range stores { // all are told of it
					s.Look(t.Context(), []*limits.Limit{l})
				}
				for i := 0; c.over && i < len(held); i++ {
					held[i].settle(0)
				}
				sleep(c.idle)
				server.Kill()
				ask := func(s *redisstore.Store, most int) (n int) {
					for range most {
						if _, v := take(t, s, 1, l); v.OK {
							n++
						}
					}
					return n
				}
				var got [3]int
				if !c.over {
					got[c.who] = c.hold
				}
				for i, s := range stores {
					got[i] += ask(s, 3-got[i])
				}
				if got != c.want {
					t.Fatalf("the replicas use %v slots of 2, want %v", got, c.want)
				}
				if got[2] == 0 {
					within(t, 3*lease, "the last one has a slot", func() bool { return ask(stores[2], 1) == 1 })
				}
			})
		})
	}
}
