package proxy

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
)

// A request that began before a reload may be the first at a target, by a failover
// or after a long wait. What it leaves behind serves those that come later.
func TestOldRequestMakesTarget(t *testing.T) {
	for name, gone := range map[string]bool{"changed": false, "gone": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil, nil)
				limit := func(n int64) []*limits.Limit {
					return []*limits.Limit{{ID: "upstream/a/requests", Scope: limits.ScopeUpstream, Owner: "a", Dimension: limits.Requests, Amount: n, Window: time.Minute, Burst: n}}
				}
				old, next := *w.s, *w.s
				old.Upstreams, next.Upstreams = maps.Clone(w.s.Upstreams), maps.Clone(w.s.Upstreams)
				before, after := *w.s.Upstreams["a"], *w.s.Upstreams["a"]
				before.Limits, after.Limits = limit(1), limit(2)
				old.Upstreams["a"], next.Upstreams["a"] = &before, &after
				want := int64(2)
				if gone {
					delete(next.Upstreams, "a")
					want = 1
				}
				w.p.Swap(&next)
				target := w.s.Routes.Default
				if got := w.p.target(&old, &target).Limits(); len(got) != 1 || got[0].Amount != want {
					t.Errorf("the target has limits %v, want %d requests", got, want)
				}
			})
		})
	}
}
