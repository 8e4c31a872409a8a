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
	master, _, sentinel := redistest.Sentinel(t)
	f := &fleet{T: t, redis: master}
	f.start(3, fmt.Sprintf("{addresses: [%q], master_name: %q}", sentinel, redistest.MasterName))
	c := f.load()
	harness.Eventually(t, 10*time.Second, "most slots are used", func() bool { return f.slots.within() >= slots*3/4 })
	wait(time.Second)
	master.Kill()
	killed := time.Now()
	f.eventuallyAway(true, 1500*time.Millisecond)
	f.eventuallyAway(false, 15*time.Second)
	t.Logf("back after %v", time.Since(killed).Round(10*time.Millisecond))
	wait(time.Second)
	f.judge(c, 1)
}
