package fleet

import (
	"fmt"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/limits/redisstore/redistest"
)

// covers DIST-05 (S5): the Redis that the replicas share dies under load, and the
// sentinel makes its copy the master. No request fails, the fleet keeps within its
// limits and one burst more of a rate, and goes on with the new master by itself.
func TestS5SentinelFailsOver(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, sentinelFailsOver)
}

func sentinelFailsOver(t *harness.Round) {
	master, _, sentinel := redistest.Sentinel(t)
	f := &fleet{redis: master}
	f.start(t, 3, fmt.Sprintf("{addresses: [%q], master_name: %q}", sentinel, redistest.MasterName))
	c, l := f.load(t), f.look(t)
	harness.Eventually(t, 30*time.Second, "most slots are used", func() bool { return f.slots.within() >= slots*3/4 })
	wait(time.Second)
	master.Kill()
	killed := time.Now()
	t.Within(1500*time.Millisecond, allNotice, func() bool { return f.away(t) })
	harness.Eventually(t, 60*time.Second, allAreTold, func() bool { return f.back(t) })
	t.AtMost(16*time.Second, time.Since(killed), "going on with the new master")
	t.Logf("back after %v", time.Since(killed).Round(10*time.Millisecond))
	wait(time.Second)
	f.judgeLoss(t, c, l)
}
