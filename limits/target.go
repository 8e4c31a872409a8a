package limits

import (
	"math"
	"slices"
	"sync"
	"time"
)

// The slow-down of an upstream that answers 429 or 529 (additive increase,
// multiplicative decrease).
const (
	slowSamples  = 50               // answers that make a window…
	slowDwell    = 30 * time.Second // …or this much time
	slowFloor    = full / 20
	slowIncrease = full / 50
)

// A Target is what one upstream × model allows right now: its configured limits,
// what was learned from its answers, a pause, a slow-down. It outlives reloads
// and is safe for concurrent use.
type Target struct {
	Name     string // state key, "upstream/model"
	Upstream string // whose queue it belongs to

	store Store

	mu         sync.Mutex
	configured []*Limit // model first, then upstream
	learned    [2]*Limit
	learn      bool
	corrected  [2]time.Time // by dimension, when a level was last corrected
	base       *Limit       // concurrency to slow down where nothing else is limited
	pace       *Limit       // requests, likewise
	all        []*Limit     // learned, base, pace and configured
	scale      int64        // thousandths of the limits in force
	until      time.Time

	samples, rejects int64
	since            time.Time

	inUse, peak int64
	hold        float64 // moving mean of how long a lease is held, seconds
	typical     float64 // moving mean of tokens used by a request
	fulfilled   float64 // moving mean of the share of predicted output that was used
	holds       int64

	counting counting
	surplus  surplus
}

// NewTarget returns a target without limits.
func NewTarget(name, upstream string, store Store) *Target {
	return &Target{Name: name, Upstream: upstream, store: store, scale: full, since: time.Now()}
}

// Configure sets the limits, from the model's to the upstream's, and whether
// headers may correct them. What was learned stays.
func (t *Target) Configure(limits []*Limit, learn bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configured, t.learn = limits, learn
	if !learn {
		t.learned = [2]*Limit{}
	}
	t.merge()
}

// Limits are the limits in force, the narrowest first, before any slow-down.
func (t *Target) Limits() []*Limit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// merge lists the limits anew after one has come or gone.
func (t *Target) merge() {
	t.all = make([]*Limit, 0, len(t.configured)+3)
	for _, l := range t.learned {
		if l != nil {
			t.all = append(t.all, l)
		}
	}
	for _, l := range []*Limit{t.base, t.pace} {
		if l != nil {
			t.all = append(t.all, l)
		}
	}
	t.all = append(t.all, t.configured...)
}

// never is the limit that can never hold the cost, or nil.
func (t *Target) never(cost Cost) *Limit {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.all {
		if _, fits := l.charge(cost); !fits {
			return l
		}
	}
	return nil
}

// charges are what cost takes now, with headroom percent of each limit kept for
// higher classes. It reports the limit that can never hold the cost.
func (t *Target) charges(dst []Charge, cost Cost, headroom int64) ([]Charge, *Limit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.all {
		n, fits := l.charge(cost)
		if !fits {
			return dst, l
		}
		dst = append(dst, Charge{Limit: l, N: n, Keep: t.keep(l, headroom), Scale: t.scale})
	}
	return dst, nil
}

// marginTime is how much later than we think a request may reach the provider.
const marginTime = 100 * time.Millisecond

// keep is what stays behind of a limit. Rates keep about one request's cost, or
// what they earn in marginTime, so that the provider's own bucket, which sees
// arrivals shifted by the network, never runs dry before ours. That makes the
// burst smaller, not the rate, as long as most of the burst stays: where it is
// small it makes up for wake-ups that come late.
func (t *Target) keep(l *Limit, headroom int64) int64 {
	if l.Dimension == Concurrency {
		return l.Amount * headroom / 100
	}
	margin := int64(1)
	if l.Dimension != Requests {
		margin = int64(t.typical)
	}
	earned := int64(float64(l.Amount) * float64(marginTime) / float64(l.Window))
	return max(margin, min(earned, l.Burst/4), l.Burst*headroom/100)
}

// Paused is how long nothing may start, 0 when it may.
func (t *Target) Paused() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, time.Until(t.until))
}

// Pause holds everything back until the time given, unless it is already held
// longer.
func (t *Target) Pause(until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until.After(t.until) {
		t.until = until
	}
}

// Scale is the share of its limits that the target may use, 1 unless it was
// slowed down.
func (t *Target) Scale() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(t.scale) / full
}

// InUse is the number of requests in flight.
func (t *Target) InUse() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inUse
}

// Load is the share of its concurrency that is in use; without a limit, a number
// below one that grows with what is in flight.
func (t *Target) Load() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := int64(math.MaxInt64)
	for _, l := range t.all {
		if l.Dimension == Concurrency {
			slots = min(slots, l.Amount)
		}
	}
	if slots == math.MaxInt64 {
		return float64(t.inUse) / float64(t.inUse+1000)
	}
	return float64(t.inUse) / float64(slots)
}

// Outcome counts an answer: rejected when the upstream had no capacity (429, 529,
// 503 with Retry-After). A window with more than 10 % rejects slows the target
// down by a fifth, one with less than 3 % speeds it up by 2 points. Where no limit
// is known, the window's rate is taken for the upstream's.
func (t *Target) Outcome(rejected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples++
	if rejected {
		t.rejects++
	}
	if t.samples < slowSamples && time.Since(t.since) < slowDwell {
		return
	}
	switch ratio := float64(t.rejects) / float64(t.samples); {
	case ratio > 0.10:
		t.slowDown()
	case ratio < 0.03 && t.scale < full:
		t.scale = min(full, t.scale+slowIncrease)
		if t.scale == full {
			t.base, t.pace = nil, nil
			t.merge()
		}
	}
	if t.pace != nil && float64(t.rejects) <= 0.10*float64(t.samples) {
		// It may be its slots that the upstream has too few of, and not its rate.
		t.setPace(float64(t.pace.Amount) * 1.05)
	}
	t.samples, t.rejects, t.since, t.peak = 0, 0, time.Now(), t.inUse
}

func (t *Target) slowDown() {
	t.scale = max(slowFloor, t.scale*8/10)
	if len(t.all) == 0 {
		t.base = &Limit{
			ID: "target/" + t.Name + "/adaptive", Scope: ScopeModel, Owner: t.Name,
			Dimension: Concurrency, Amount: max(1, t.peak), Wait: true,
		}
		t.merge()
	}
	if t.base != nil && t.samples >= slowSamples && t.samples > t.rejects {
		// What it accepts while it refuses the rest is its own rate, once its burst is
		// used up.
		accepted := float64(t.samples-t.rejects) / max(time.Since(t.since), time.Millisecond).Minutes()
		t.setPace(accepted * full / float64(t.scale))
	}
}

// setPace limits requests in a minute.
func (t *Target) setPace(perMinute float64) {
	n := max(1, int64(math.Ceil(min(perMinute, 1e12))))
	t.pace = &Limit{
		ID: "target/" + t.Name + "/pace", Scope: ScopeModel, Owner: t.Name,
		Dimension: Requests, Amount: n, Window: time.Minute, Burst: max(1, n/12), Wait: true,
	}
	t.merge()
}

// started and ended keep the figures that predictions rest on.
func (t *Target) started() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inUse++
	t.peak = max(t.peak, t.inUse)
}

func (t *Target) ended(held time.Duration, reserved, actual Cost) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inUse--
	if actual.Requests == 0 {
		return // nothing reached the upstream
	}
	t.holds++
	w := max(1/float64(t.holds), 0.1)
	t.hold += w * (held.Seconds() - t.hold)
	if n := actual.Tokens(); n > 0 {
		if t.typical == 0 {
			t.typical = float64(n)
		}
		t.typical += 0.1 * (float64(n) - t.typical)
	}
	if reserved.Predicted > 0 {
		t.fulfilled += w * (float64(actual.Output)/float64(reserved.Predicted) - t.fulfilled)
	}
}

// likely is what a cost will probably come to in a dimension, as far as is known.
func (t *Target) likely(c Cost, d Dimension) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(c.of(d)) - float64(c.predicted(d))*(1-min(t.fulfilled, 1))
}

// meanHold is how long a slot is held on average, 0 while unknown.
func (t *Target) meanHold() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holds < 3 {
		return 0
	}
	return time.Duration(t.hold * float64(time.Second))
}
