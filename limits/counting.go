package limits

import (
	"context"
	"time"
)

// A counting tells whether a provider counts what a request may write at most, and
// not what it writes, as far as its answers show.
type counting struct {
	maximum bool
	signs   int // that it is not as maximum says
	last    time.Time
	changed time.Time // when maximum did
}

// What changes the mind: so many answers, none of them later than signTime after the
// one before. One alone may come of an estimate of the input that was wrong.
const (
	enoughSigns = 2
	signTime    = 5 * time.Minute
)

// sign notes what an answer speaks for, and reports whether it changed the mind.
func (c *counting) sign(maximum bool) bool {
	if time.Since(c.last) > signTime || c.maximum == maximum {
		c.signs = 0
	}
	if c.maximum == maximum {
		return false
	}
	c.last = time.Now()
	if c.signs++; c.signs < enoughSigns {
		return false
	}
	c.maximum, c.signs, c.changed = maximum, 0, time.Now()
	return true
}

// CountsMaximum reports whether the target's provider was seen to count requests' own
// maxima of output.
func (t *Target) CountsMaximum() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counting.maximum
}

// Outcome counts an answer to the grant's request at its target. A refusal of what was
// admitted before it was known what the provider counts says nothing new.
func (g *Grant) Outcome(rejected bool) {
	g.Target.Outcome(rejected && !g.outdated())
}

// CountedMaximum reports whether the provider counted the maximum of output of the
// grant's request, and that was known when it was admitted.
func (g *Grant) CountedMaximum() bool { return g.Target.CountsMaximum() && !g.outdated() }

func (g *Grant) outdated() bool {
	t := g.Target
	t.mu.Lock()
	defer t.mu.Unlock()
	return !g.start.After(t.counting.changed) && !t.counting.changed.IsZero()
}

// RefusedFor draws the conclusion from a 429 that states how many tokens are left.
// When that is enough for the input and the output that was predicted, and not for
// the request's own maximum of output, the provider must have counted the latter.
func (g *Grant) RefusedFor(s Stated, maximum int64) {
	reserved := g.Reserved()
	most := Cost{Input: reserved.Input, Output: maximum}.Tokens()
	if s.Remaining < reserved.Tokens() || s.Remaining >= most || s.Limit > 0 && most > s.Limit {
		return
	}
	t := g.Target
	t.mu.Lock()
	changed := t.learn && t.counting.sign(true)
	var l *Limit
	if changed {
		// What it was slowed down for is known now.
		t.scale, t.base, t.pace = full, nil, nil
		t.samples, t.rejects, t.since = 0, 0, time.Now()
		t.merge()
		l = t.counterpart(s)
	}
	t.mu.Unlock()
	if l != nil { // what is under way has been counted there, more than here
		_ = t.store.Lower(context.Background(), l, s.Remaining)
	}
}

// AdmittedFor draws the conclusion from what an answer that has just begun states to
// be left. When that is more than a full bucket would hold without the request's own
// maximum of output, the provider did not count it.
func (g *Grant) AdmittedFor(s Stated, maximum int64) {
	if s.Limit <= 0 {
		return
	}
	window := s.window()
	if window == 0 {
		window = time.Second // the fastest that it may have filled up again
	}
	filled := int64(float64(s.Limit) * float64(time.Since(s.Sent)) / float64(window))
	t := g.Target
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Remaining > s.Limit-maximum+filled {
		t.counting.sign(false)
	}
}

// A surplus is how much more is left at a provider than here, as far as each of
// several answers shows: it has given back what was not written, or counts less than
// we do. What one answer shows may be what is still on its way there.
type surplus struct {
	least   int64 // of the answers seen
	answers int
	since   time.Time // of what was sent before, the answers count no more
	credit  int64     // what is to be given back
}

const (
	surplusAnswers = 8
	surplusTime    = time.Second
)

// note compares what has been used of a limit here with what was there. Excess is how
// much more was left here than there.
func (p *surplus) note(l *Limit, s Stated, excess int64) {
	if s.Limit != l.Amount {
		return // where less is configured than allowed, less is to be used
	}
	earned := int64(float64(l.Amount) * float64(time.Since(s.Sent)) / float64(l.Window))
	more := l.Burst - s.Limit - excess - earned
	switch {
	case more <= 0:
		*p = surplus{since: time.Now()}
		return
	case p.credit > 0 || s.Sent.Before(p.since):
		return
	}
	if p.answers == 0 || more < p.least {
		p.least = more
	}
	if p.answers++; p.answers >= surplusAnswers && time.Since(p.since) >= surplusTime {
		p.credit = p.least
	}
}

// Credit takes up to n tokens of what a provider was seen to have left beyond what was
// thought, for a request that ends to be charged less.
func (t *Target) Credit(n int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.surplus
	n = min(n, p.credit)
	if p.credit > 0 && n == p.credit {
		*p = surplus{since: time.Now()}
	} else {
		p.credit -= n
	}
	return n
}
