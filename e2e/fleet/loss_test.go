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
	f := newFleet(t, 3, "")
	rounds := 0
	for _, fault := range []struct {
		name       string
		begin, end func(testing.TB)
	}{
		{"paused", on(f.redis.Pause), on(f.redis.Resume)},
		{"asleep", f.sleep, on(func() {})},
		{"killed and empty again", on(f.redis.Kill), on(f.redis.Restart)},
		{"cut off", f.fault(harness.Fault{Cut: true}), f.fault(harness.Fault{})},
		{"mute", f.fault(harness.Fault{Mute: true}), f.fault(harness.Fault{})},
		{"slow", f.fault(harness.Fault{Delay: 300 * time.Millisecond}), f.fault(harness.Fault{})},
	} {
		t.Run(fault.name, func(t *testing.T) {
			harness.Rounds(t, func(t *harness.Round) {
				rounds++
				f.lose(t, fault.begin, fault.end)
			})
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
		if logged < 1 || logged > 10*rounds {
			t.Errorf("replica %d has logged %d warnings of %d faults:\n%s", i, logged, rounds, lines(r.Logs(), 30))
		}
	}
}

func on(do func()) func(testing.TB) { return func(testing.TB) { do() } }

// faulty is how long Redis is taken away.
const faulty = 2 * time.Second

// sleep makes Redis do nothing for that time, and does not wait for it.
func (f *fleet) sleep(testing.TB) {
	c := f.redis.Client()
	go func() { _ = c.Do(context.Background(), "DEBUG", "SLEEP", faulty.Seconds()).Err() }() // ends with the client
}

func (f *fleet) fault(x harness.Fault) func(testing.TB) {
	return func(t testing.TB) { f.wire.Set(t, x) }
}

// lose takes Redis away from the fleet under load and gives it back.
func (f *fleet) lose(t *harness.Round, begin, end func(testing.TB)) {
	t.Helper()
	f.slots.reset()
	f.rates.reset()
	c, l := f.load(t), f.look(t)
	harness.Eventually(t, 30*time.Second, "most slots are used", func() bool { return f.slots.within() >= slots*3/4 })
	wait(time.Second)
	before := f.rates.count()
	begin(t)
	began := time.Now()
	if t.Within(1500*time.Millisecond, allNotice, func() bool { return f.away(t) }) {
		for i, r := range f.replicas {
			status, detail, err := r.ready()
			if away := strings.Contains(detail, "away"); err != nil || status != 200 || !away && time.Since(began) < faulty {
				t.Errorf("replica %d says of readiness: %d %s, %v", i, status, detail, err)
			}
		}
	}
	wait(time.Until(began.Add(faulty)))
	if n := f.rates.count() - before; n < perSecond/4 {
		t.Missed("%d requests in %v without Redis", n, faulty)
	}
	end(t)
	ended := time.Now()
	harness.Eventually(t, 30*time.Second, allAreTold, func() bool { return f.back(t) })
	t.AtMost(2*time.Second, time.Since(ended), "telling every replica that Redis is back")
	t.Logf("back after %v", time.Since(ended).Round(10*time.Millisecond))
	wait(time.Second)
	f.judgeLoss(t, c, l)
}

const (
	allNotice  = "every replica notices that Redis is away"
	allAreTold = "every replica is told that Redis is back"
)

// away reports whether every replica says that Redis is away, and back whether every
// one says that it is not.
func (f *fleet) away(t testing.TB) bool { return f.all(t, 1, 0) }
func (f *fleet) back(t testing.TB) bool { return f.all(t, 0, 1) }

func (f *fleet) all(t testing.TB, fallback, up float64) bool {
	for _, r := range f.replicas {
		if r.Metric(t, "penstock_store_fallback_active") != fallback || r.Metric(t, "penstock_store_up") != up {
			return false
		}
	}
	return true
}
