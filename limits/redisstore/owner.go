package redisstore

import (
	"context"
	"fmt"
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
	turns   int64     // changes of rates
	server  micros    // the server's time…
	at      time.Time // …at the start of the last call
	spoke   time.Time // last reply; zero before the first
	calm    time.Time // no spare slots before: another replica needs them
	settled time.Time // until then replicas that lost their state state it again
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
	return &owner{s: s, group: group, levels: make(map[string]*level), dirty: make(map[*level]struct{}), refused: make(map[waiting]refusal), server: now.UnixMicro(), at: now}
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
		o.levels[limit.ID] = l
	}
	l.limit = limit
	return l
}

// mark notes that the level has something to tell.
func (o *owner) mark(l *level) { o.dirty[l] = struct{}{} }

func (o *owner) forgettable() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for _, l := range o.levels {
		if l.busy(now) {
			return false
		}
	}
	return !o.busy && len(o.asks) == 0 && o.lost == nil
}

// take is Take for the limits of this owner.
func (o *owner) take(id uint64, turn *limits.Turn, charges []limits.Charge) (limits.Verdict, error) {
	o.mu.Lock()
	if o.has(id, charges) {
		o.mu.Unlock()
		return limits.Verdict{OK: true}, nil
	}
	if o.gate.down.Load() {
		v, err := o.takeAlone(id, charges, o.now())
		o.tell(charges)
		o.mu.Unlock()
		return v, err
	}
	if o.takeHere(id, charges) {
		o.mu.Unlock()
		return limits.Verdict{OK: true, Told: true}, nil
	}
	if v, ok := o.known(turn, charges); ok {
		o.tell(charges)
		o.mu.Unlock()
		return v, nil
	}
	a := &ask{turn: turn, charges: charges, id: id, done: make(chan struct{})}
	o.asks = append(o.asks, a)
	first := !o.busy
	o.busy = true
	o.mu.Unlock()
	if first {
		o.run(a)
	}
	<-a.done // a call ends within its timeout
	if !a.lost {
		return a.verdict, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	v, err := o.takeAlone(id, charges, o.now())
	o.tell(charges)
	o.tellWithin(late) // the server may be back already
	return v, err
}

// has reports whether the reservation holds a slot already.
func (o *owner) has(id uint64, charges []limits.Charge) bool {
	for i := range charges {
		if charges[i].Limit.Dimension == limits.Concurrency {
			if _, ok := o.level(charges[i].Limit).ids[id]; ok {
				return true
			}
		}
	}
	return false
}

// takeHere takes from chunks and spare slots, if all charges can be met by them.
func (o *owner) takeHere(id uint64, charges []limits.Charge) bool {
	now, clock := o.now(), time.Now()
	ok := len(o.refused) == 0 && len(o.asks) == 0
	for i := range charges {
		ok = o.metHere(&charges[i], now, clock) && ok
	}
	if !ok {
		return false
	}
	for i := range charges {
		c := &charges[i]
		l := o.level(c.Limit)
		c.Over, c.Told = false, false // what others did lately is not known
		switch l.kind {
		case slots:
			l.ids[id] = struct{}{}
			continue
		case rate:
			c.At = o.reserve(l, l.at(now)-o.early())
		case purse:
			c.At = l.purse.Start
		}
		l.chunk.spend(c.N, l, now)
	}
	return true
}

// metHere reports whether a charge can be met here, and counts that it was asked.
func (o *owner) metHere(c *limits.Charge, now micros, clock time.Time) bool {
	l := o.level(c.Limit)
	if c.Scale > 0 && c.Scale < 1000 {
		return false // a slowed-down upstream is charged one by one
	}
	l.chunk.takes.add(1, clock)
	if l.kind == slots {
		used := int64(len(l.ids))
		l.taken = true
		// A slot that has come back but is not to be kept goes to whose turn it is.
		return l.held > used && l.spareNow(o) > 0 && l.others+used+1 <= c.Slots()-c.Keep
	}
	l.chunk.use.add(float64(c.N), clock)
	left := l.chunk.left(l, now)
	return left >= c.N && l.left(now, c)-c.N >= c.Keep
}

// reserve numbers a charge on a rate, before which so much was left to pay.
func (o *owner) reserve(l *level, ahead micros) int64 {
	o.turns++
	l.past.Note(max(ahead, 0))
	l.past.Reserve(o.turns)
	return o.turns
}

// known repeats a refusal that one of the same team has just had.
func (o *owner) known(turn *limits.Turn, charges []limits.Charge) (limits.Verdict, bool) {
	if turn == nil || len(o.refused) == 0 {
		return limits.Verdict{}, false
	}
	for i := range charges {
		r, ok := o.refused[waiting{turn.Team, turn.Class, charges[i].Limit.ID}]
		left := time.Until(r.until)
		if !ok || left <= 0 {
			continue
		}
		v := r.verdict
		v.After, v.Again, v.Told = 0, left, false
		return v, true
	}
	return limits.Verdict{}, false
}

// give is Give for the limits of this owner.
func (o *owner) give(id uint64, charges []limits.Charge) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, when := o.now(), late
	down := o.gate.down.Load()
	for i := range charges {
		c := &charges[i]
		l := o.level(c.Limit)
		switch {
		case c.Over:
		case l.kind == slots:
			if _, ok := l.ids[id]; ok {
				delete(l.ids, id)
				o.mark(l)
				if l.held-int64(len(l.ids)) > l.spareNow(o) {
					when = soon
				}
			}
		case down:
			o.giveAlone(l, c, c.N, now)
		case l.kind == purse:
			o.givePurse(l, c, now)
		case !o.giveRate(l, c, now):
			when = soon
		}
	}
	if down {
		return
	}
	clear(o.refused)
	o.tellWithin(when)
}

func (o *owner) givePurse(l *level, c *limits.Charge, now micros) {
	if c.N == 0 || c.At != l.purse.At(l.limit, now).Start {
		return
	}
	l.pay(-c.N, now)
	o.mark(l)
}

// giveRate notes what a rate gets back, or is charged in addition, as limits.Memory
// does. It reports whether there is time to tell.
func (o *owner) giveRate(l *level, c *limits.Charge, now micros) bool {
	r, back, more := limits.RateOf(c.Limit, c.Scale), max(c.N+c.Late, 0), max(c.Late, 0)
	if c.N+c.Late < 0 {
		more = -c.N
	}
	l.past.Note(max(l.at(now)-o.early(), 0))
	switch most := l.past.Refund(c.At, worthDown(r, back), c.Ends); {
	case most < worthDown(r, back):
		l.pending.add(-most)
	case back == more:
		return true // nothing changes
	case back > 0:
		l.pending.add(-worthDown(r, l.chunk.refund(back, l, now)))
	}
	switch {
	case more == 0:
	case l.chunk.left(l, now) >= more:
		l.chunk.spend(more, l, now)
	default:
		l.pending.add(worth(r, more))
	}
	if l.pending.empty() {
		return true
	}
	o.mark(l)
	return chunkable(c.Limit) && r.Level(l.at(now), now) > r.Burst()/chunkFloor
}

func (o *owner) lower(limit *limits.Limit, units int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now, r := o.level(limit), o.now(), limits.RateOf(limit, 0)
	if l.left(now, &limits.Charge{Limit: limit}) <= units {
		return
	}
	l.chunk.units, l.chunk.until = 0, 0
	l.past.Note(max(l.at(now)-o.early(), 0))
	l.pending.least = max(l.pending.least, min(maxMicros, r.Lower(now, now, units)-now))
	o.mark(l)
	if o.gate.down.Load() {
		replicas := o.s.live.Load()
		o.begin(l, now)
		l.alone.tat = r.Divided(replicas).Lower(l.alone.tat, now, units/replicas)
		return
	}
	o.tellWithin(soon)
}

// restore raises what a budget has spent.
func (o *owner) restore(limit *limits.Limit, start, spent int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now := o.level(limit), o.now()
	if l.purse.At(limit, now).Start != start || l.spent(now).Spent >= spent {
		return
	}
	l.pay(0, now)
	l.pending.least = max(l.pending.least, min(spent, maxMicros))
	o.mark(l)
	o.tellWithin(soon)
}

func (o *owner) report(limit *limits.Limit) limits.Level {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, now, down := o.level(limit), o.now(), o.gate.down.Load()
	out := limits.Level{Remaining: l.left(now, &limits.Charge{Limit: limit})}
	switch {
	case l.kind == purse:
		p := l.spent(now)
		out.Remaining -= l.alone.spentIn(p.Start)
		out.Reset = duration(p.Left(limit, now))
	case l.kind == rate && down:
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

// tellWithin sees to it that the server is told within a time.
func (o *owner) tellWithin(d time.Duration) {
	at := time.Now().Add(d)
	if !o.due.IsZero() && !o.due.After(at) {
		return
	}
	o.due = at
	if o.timer == nil {
		o.timer = time.AfterFunc(d, func() { o.s.spawn(o.flush) })
		return
	}
	o.timer.Reset(d)
}

// flush tells the server what there is to tell.
func (o *owner) flush() {
	o.mu.Lock()
	o.due = time.Time{}
	o.again = o.busy
	if o.busy {
		o.mu.Unlock()
		return
	}
	o.busy = true
	o.mu.Unlock()
	o.run(nil)
}

// resume tells the server what has happened while it was away.
func (o *owner) resume() {
	o.mu.Lock()
	clear(o.refused)
	for _, l := range o.levels {
		if l.held > 0 || len(l.ids) > 0 {
			l.told = time.Time{}
			o.mark(l)
		}
	}
	o.mu.Unlock()
	o.s.spawn(o.flush)
}

// run makes calls while there is something to ask or tell: the first for its own
// ask, the rest in the background. The caller has set busy.
func (o *owner) run(own *ask) {
	for {
		o.mu.Lock()
		o.again = false
		c := o.next()
		if c == nil {
			o.busy = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		reply, err := o.s.call(c)
		o.mu.Lock()
		if err == nil {
			err = o.answered(c, reply)
		}
		heal := func() {}
		if err != nil {
			heal = o.failed(c, err)
		}
		more := o.again || len(o.asks) > 0
		o.busy = more
		o.mu.Unlock()
		heal()
		if !more {
			return
		}
		if own != nil && own.ended() && o.s.trySpawn(func() { o.run(nil) }) {
			return
		}
	}
}

func (a *ask) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// failed: nobody knows whether the call has run. It is told again, and those who
// asked decide alone. What it returns is to be called without the mutex.
func (o *owner) failed(c *call, err error) (heal func()) {
	if o.lost == nil {
		o.lost = c
	}
	heal = o.gate.trip(err)
	o.giveUp(c.asks)
	o.giveUp(o.asks)
	o.asks = nil
	return heal
}

func (o *owner) giveUp(asks []*ask) {
	for _, a := range asks {
		a.lost = true
		close(a.done)
	}
}

// probe reports whether the owner's server takes calls again.
func (o *owner) probe(ctx context.Context) error {
	key := o.s.opt.Prefix + "{" + o.group + "}probe"
	if err := o.s.client.Set(ctx, key, 1, time.Second).Err(); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}
