package fleet

import (
	"testing"
	"time"

	"penstock/e2e/harness"
)

// lease is after how long the slots of a replica that is gone come back.
const lease = 10 * time.Second

// covers DIST-01 and DIST-07 (S4): one of three replicas is killed under load. The
// fleet is never over a limit, the slots it held come back within the lease, and no
// request of the others fails.
func TestS4KilledReplica(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, killedReplica)
}

func killedReplica(t *harness.Round) {
	f := newFleet(t, 3, patient)
	c := f.load(t)
	harness.Eventually(t, 30*time.Second, "all slots are used", f.full)
	wait(2 * time.Second)
	harness.Eventually(t, 30*time.Second, "the third holds some", func() bool { return f.slots.of(2) >= slots/6 })
	f.replicas[2].kill(t)
	killed := time.Now()
	wait(time.Second)
	most := 0
	for time.Since(killed) < 2*time.Second {
		most = max(most, f.slots.within())
		wait(5 * time.Millisecond)
	}
	if most >= slots-2 {
		t.Missed("%d slots are used a second after one of three replicas was killed; it held none", most)
	}
	harness.Eventually(t, lease+30*time.Second, "the slots are used again", f.full)
	back := time.Since(killed)
	t.AtMost(lease+5*time.Second, back, "the return of the slots")
	t.Logf("at most %d of %d slots were used after the kill, and %d again after %v", most, slots, slots-2, back.Round(10*time.Millisecond))
	harness.Eventually(t, 30*time.Second, "two replicas are known", func() bool { return f.replicas[0].Metric(t, "penstock_store_replicas") == 2 })
	wait(time.Second)
	f.judge(t, c, 0)
}
