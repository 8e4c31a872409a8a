package fleet

import (
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers DIST-01 and DIST-07: one of three replicas stands still under load for longer
// than its slots are kept, as a frozen machine does, and then goes on. The others get
// its slots and fail nothing; it goes on with what is its part now, and does not rely
// on the slots that it held.
func TestStoppedReplica(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, stoppedReplica)
}

func stoppedReplica(t *harness.Round) {
	f := newFleet(t, 3, patient)
	c := f.load(t)
	still := f.replicas[2]
	harness.Eventually(t, 30*time.Second, "all slots are used", f.full)
	wait(time.Second)
	harness.Eventually(t, 30*time.Second, "the third holds some", func() bool { return f.slots.of(2) >= slots/6 })
	still.Signal(t, syscall.SIGSTOP)
	stopped := time.Now()
	t.Within(lease+5*time.Second, "the others have its slots", func() bool { return f.slots.of(0)+f.slots.of(1) >= slots-2 })
	t.Logf("the others use %d of %d slots after %v", slots-2, slots, time.Since(stopped).Round(10*time.Millisecond))
	wait(time.Until(stopped.Add(lease + 2*time.Second)))
	f.judgeSlots(t)
	f.slots.reset()
	still.Signal(t, syscall.SIGCONT)
	went := time.Now()
	t.Within(4*time.Second, "it has slots again", func() bool { return f.slots.of(2) >= slots/6 })
	t.Logf("it uses %d slots %v after it went on", slots/6, time.Since(went).Round(10*time.Millisecond))
	for _, r := range f.replicas {
		harness.Eventually(t, 30*time.Second, "all three are known", func() bool { return r.Metric(t, "penstock_store_replicas") == 3 })
	}
	wait(time.Second)
	answers := c.end()
	allOK(t, answers)
	// It may send what it was about to send when it was stopped, which is more on a busy
	// machine, but never more than what it held.
	all, capped := f.peaks()
	if all > slots+slots/2 || capped > 2*cappedSlots {
		t.Errorf("up to %d in flight at the upstream, of %d, and %d of the capped team, of %d", all, slots, capped, cappedSlots)
	}
	if all > slots+3 || capped > cappedSlots+3 {
		t.Missed("up to %d in flight at the upstream, of %d, and %d of the capped team, of %d", all, slots, capped, cappedSlots)
	}
	f.judgeRates(t, answers, 0)
}
