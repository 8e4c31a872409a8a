package redisstore

import (
	"sync"
	"time"

	"penstock/limits"
)

const (
	// askAgain is when a refused waiter asks again at the latest. The script keeps
	// its place for longer.
	askAgain = 200 * time.Millisecond
	// relyOn is how long a refusal is repeated to others of its team.
	relyOn = 150 * time.Millisecond
	// maxTakes bounds one call.
	maxTakes = 64

	soon = time.Millisecond       // to tell what somebody may wait for
	late = 200 * time.Millisecond // to tell the rest
)

// An owner is the limits that are charged in one step, as this replica knows them.
// One call to it is under way at a time.
type owner struct {
	s     *Store
	group string
	gate  *gate

	mu      sync.Mutex
	levels  map[string]*level   // by the limit's ID
	dirty   map[*level]struct{} // those that may have something to tell
	asks    []*ask              // for the next call
	busy    bool                // a call is under way
	again   bool                // another has to follow
	lost    *call               // its reply did not come; it is told again before anything else
	seq     int64
	heard   int64     // number of the last call that was answered; -1 before the first
	turns   int64     // changes of rates
	server  micros    // the server's time…
	at      time.Time // …at the start of the last call
	spoke   time.Time // last reply; zero before the first
	calm    time.Time // no spare slots before: another replica needs them
	settled time.Time // until then it keeps to its part of the slots; see settle…
	unsure  bool      // …since what it knows of the others may be wrong
	refused map[waiting]refusal
	timer   *time.Timer
	due     time.Time
}

// waiting names those whose refusals are the same.
type waiting struct {
	team  string
	class limits.Class
	limit string
}

type refusal struct {
	verdict limits.Verdict
	until   time.Time
}

// An ask is a take that waits for a call.
type ask struct {
	turn    *limits.Turn
	charges []limits.Charge
	id      uint64
	done    chan struct{}
	verdict limits.Verdict
	lost    bool // nobody knows; decide alone
}

func newOwner(s *Store, group string) *owner {
	now := time.Now()
	return &owner{s: s, group: group, levels: make(map[string]*level), dirty: make(map[*level]struct{}), refused: make(map[waiting]refusal), heard: -1, server: s.wall().UnixMicro(), at: now}
}

// now is the server's time, or a little later.
func (o *owner) now() micros { return o.server + time.Since(o.at).Microseconds() }

// early is the server's time, or a little earlier. What is left to pay of a rate is
// reckoned by it, so that a refund is not cut short by the time of a round trip.
func (o *owner) early() micros {
	if o.spoke.IsZero() {
		return o.now()
	}
	return o.server + time.Since(o.spoke).Microseconds()
}

// maxLevels is how many limits are remembered before those that say nothing are
// forgotten.
const maxLevels = 4096

func (o *owner) level(limit *limits.Limit) *level {
	l := o.levels[limit.ID]
	if l == nil {
		if len(o.levels) >= maxLevels {
			now := o.now()
			for id, old := range o.levels {
				if !old.busy(now) {
					delete(o.levels, id)
				}
			}
		}
		l = &level{kind: kindOf(limit), key: o.s.opt.Prefix + "{" + o.group + "}" + limit.ID, ids: make(map[uint64]struct{})}
		l.own = max(1, o.s.place().share(limit.Amount))
		o.levels[limit.ID] = l
	}
	l.limit = limit
	return l
}

// mark notes that the level has something to tell.
func (o *owner) mark(l *level) { o.dirty[l] = struct{}{} }

// forgettable reports whether nothing is lost with the owner but the number of its
// last call.
func (o *owner) forgettable() (seq int64, yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for _, l := range o.levels {
		if l.busy(now) {
			return 0, false
		}
	}
	return o.seq, !o.busy && len(o.asks) == 0 && o.lost == nil
}

func (o *owner) report(limit *limits.Limit) limits.Level {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now, alone := o.level(limit), o.now(), o.gate.down.Load() && !o.gate.brief.Load()
	out := limits.Level{Remaining: l.left(now, &limits.Charge{Limit: limit})}
	switch {
	case l.kind == purse:
		p := l.spent(now)
		out.Remaining -= l.alone.spentIn(p.Start)
		out.Reset = duration(p.Left(limit, now))
	case l.kind == rate && alone:
		o.begin(l, now)
		out.Remaining = limits.RateOf(limit, 0).Divided(o.s.live.Load()).Level(l.alone.tat, now)
		out.Reset = duration(l.alone.tat - now)
	case l.kind == rate:
		out.Reset = duration(l.at(now) - now)
	}
	return out
}

// tell notes in the charges what is left.
func (o *owner) tell(charges []limits.Charge) {
	now := o.now()
	for i := range charges {
		c := &charges[i]
		c.Left, c.Told = o.level(c.Limit).left(now, c), true
	}
}
