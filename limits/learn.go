package limits

import (
	"context"
	"time"
)

// A Stated limit is what an upstream's headers say of its own bucket.
type Stated struct {
	Dimension Dimension // Requests or Tokens
	Limit     int64     // units per window, 0 when not stated
	Remaining int64     // units left, -1 when not stated
	Reset     time.Duration
	Sent      time.Time // when the request that it answers was sent
	// Whole says that the provider counted all of the request when it arrived, so
	// that what remains is told apart by nothing that is still under way.
	Whole bool
}

// Learn corrects the limits by what the answer to the grant's request stated: a
// limit is adopted where none is configured or the configured one is wider, and what
// remains there lowers what remains here.
func (g *Grant) Learn(s Stated) {
	t := g.Target
	t.mu.Lock()
	if !t.learn {
		t.mu.Unlock()
		return
	}
	l := t.counterpart(s)
	excess := int64(0)
	known := false
	if l != nil && s.Remaining >= 0 {
		excess, known = g.excess(l, s.Remaining)
		if known && s.Whole && t.scale == full {
			t.surplus.note(l, s, excess)
		}
		if excess > 0 && s.Sent.Before(t.corrected[s.Dimension]) {
			excess = 0 // what it saw has been taken into account
		}
		if excess > 0 {
			t.corrected[s.Dimension] = time.Now()
		}
	}
	t.mu.Unlock()
	switch {
	case l == nil || s.Remaining < 0:
	case excess > 0:
		_ = t.store.Give(context.Background(), nextID(), []Charge{{Limit: l, N: -excess}})
	case !known:
		// What was stated is as old as the request; the provider has refilled since.
		units := s.Remaining
		if s.Limit > 0 {
			units += int64(float64(s.Limit) * float64(time.Since(s.Sent)) / float64(l.Window))
		}
		if units < l.Burst {
			_ = t.store.Lower(context.Background(), l, units)
		}
	}
}

// excess is by how much more was left here than there when the request was
// admitted: what others use of the same account, or what the provider counts and
// we do not. It is not known where the limit was not charged.
func (l *Lease) excess(limit *Limit, remaining int64) (n int64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.charges {
		if c := &l.charges[i]; c.Limit.ID == limit.ID && c.Told {
			return c.Left - remaining, true
		}
	}
	return 0, false
}

// counterpart is the limit here that the stated one is about: the configured one
// of about a minute, or a learned one.
func (t *Target) counterpart(s Stated) *Limit {
	var best *Limit
	for _, l := range t.configured {
		if l.Dimension != s.Dimension || l.Shadow {
			continue
		}
		window := s.window()
		if window != 0 && l.Window != window {
			continue
		}
		if best == nil || l.Scope < best.Scope {
			best = l
		}
	}
	if best != nil {
		return t.narrower(s, best)
	}
	for _, l := range t.configured {
		if l.Dimension == s.Dimension {
			return nil // configured for another window: leave it to its owner
		}
	}
	return t.adopt(s)
}

// narrower is the stated limit where it is less than the configured one: then the
// provider refuses what the configuration allows, so both are kept to.
func (t *Target) narrower(s Stated, configured *Limit) *Limit {
	learned := t.learned[s.Dimension]
	switch {
	case s.window() == 0:
		if learned != nil {
			return learned
		}
		return configured
	case s.Limit < configured.Amount:
		return t.adopt(s)
	case learned != nil:
		t.learned[s.Dimension] = nil
		t.merge()
	}
	return configured
}

func (t *Target) adopt(s Stated) *Limit {
	if s.Limit <= 0 {
		return t.learned[s.Dimension]
	}
	window := s.window()
	if old := t.learned[s.Dimension]; old != nil && old.Amount == s.Limit && (window == 0 || window == old.Window) {
		return old
	}
	if window == 0 {
		window = time.Minute
	}
	l := &Limit{
		ID: "target/" + t.Name + "/learned/" + s.Dimension.String(), Scope: ScopeModel, Owner: t.Name,
		Dimension: s.Dimension, Amount: s.Limit, Window: window, Burst: s.Limit, Wait: true,
	}
	t.learned[s.Dimension] = l
	t.merge()
	return l
}

// window infers the length of the provider's window: Reset is the time to earn
// what is used, so limit/used × Reset is the time to earn all of it. It is 0 when
// the header does not tell.
func (s Stated) window() time.Duration {
	used := s.Limit - s.Remaining
	if s.Limit <= 0 || s.Remaining < 0 || used <= 0 || s.Reset <= 0 {
		return 0
	}
	w := s.Reset.Seconds() * float64(s.Limit) / float64(used)
	for _, known := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		if r := w / known.Seconds(); r > 0.5 && r < 2 {
			return known
		}
	}
	return 0
}
