package fleet

import (
	"context"
	"strings"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers DIST-03, DIST-04 and DIST-05 (S5): Redis is paused, busy, killed and
// started empty, and the network to it cut, mute and slow, under load. No request
// fails, the fleet keeps within its limits and one burst more of a rate, metrics, readiness and log tell, and the
// shared state is used again soon.
func TestS5RedisAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	for _, fault := range []struct {
		name  string
		begin func()
		end   func()
	}{
		{"paused", f.redis.Pause, f.redis.Resume},
		{"asleep", f.sleep(2 * time.Second), func() {}},
		{"killed and empty again", f.redis.Kill, f.redis.Restart},
		{"cut off", f.fault(harness.Fault{Cut: true}), f.fault(harness.Fault{})},
		{"mute", f.fault(harness.Fault{Mute: true}), f.fault(harness.Fault{})},
		{"slow", f.fault(harness.Fault{Delay: 300 * time.Millisecond}), f.fault(harness.Fault{})},
	} {
		t.Run(fault.name, func(t *testing.T) {
			g := *f
			g.T = t
			g.lose(fault.begin, fault.end)
		})
	}
	for i, r := range f.replicas {
		logged := 0
		for line := range strings.Lines(r.Logs()) {
			if strings.Contains(line, "shared store") || strings.Contains(line, `"ERROR"`) {
				logged++
			}
		}
		t.Logf("replica %d has logged %d warnings", i, logged)
		if logged < 1 || logged > 60 {
			t.Errorf("replica %d has logged %d warnings of 6 faults:\n%s", i, logged, lines(r.Logs(), 30))
		}
	}
}

// sleep makes Redis do nothing for a time, and does not wait for it.
func (f *fleet) sleep(d time.Duration) func() {
	return func() {
		c := f.redis.Client()
		go func() { _ = c.Do(context.Background(), "DEBUG", "SLEEP", d.Seconds()).Err() }() // ends with the client
	}
}

func (f *fleet) fault(x harness.Fault) func() { return func() { f.wire.Set(f, x) } }

// lose takes Redis away from the fleet under load and gives it back.
func (f *fleet) lose(begin, end func()) {
	f.Helper()
	f.slots.reset()
	f.rates.reset()
	c := f.load()
	harness.Eventually(f, 10*time.Second, "most slots are used", func() bool { return f.slots.within() >= slots*3/4 })
	wait(time.Second)
	before := f.rates.count()
	begin()
	began := time.Now()
	f.eventuallyAway(true, 1500*time.Millisecond)
	for i, r := range f.replicas {
		if status, detail := r.ready(f.T); status != 200 || !strings.Contains(detail, "away") {
			f.Errorf("replica %d says of readiness: %d %s", i, status, detail)
		}
	}
	wait(time.Until(began.Add(2 * time.Second)))
	if n := f.rates.count() - before; n < perSecond/4 {
		f.Errorf("%d requests in 2 s without Redis", n)
	}
	end()
	ended := time.Now()
	f.eventuallyAway(false, 2*time.Second)
	f.Logf("back after %v", time.Since(ended).Round(10*time.Millisecond))
	wait(time.Second)
	f.judge(c, 1)
}

// eventuallyAway waits until every replica says that Redis is away, or is not.
func (f *fleet) eventuallyAway(away bool, within time.Duration) {
	f.Helper()
	what, want := "every replica is told that Redis is back", 0.0
	if away {
		what, want = "every replica notices that Redis is away", 1
	}
	harness.Eventually(f, within, what, func() bool {
		for _, r := range f.replicas {
			if r.Metric(f, "penstock_store_fallback_active") != want || r.Metric(f, "penstock_store_up") == want {
				return false
			}
		}
		return true
	})
}
