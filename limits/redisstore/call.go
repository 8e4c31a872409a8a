package redisstore

import (
	"context"
	"time"

	"penstock/limits"
)

// A call is one run of the script for an owner. Its arguments are, in this order:
//
//	replica, number of the call, lease, channel, group, how long the number is kept, limits, takes
//	for each limit: kind, a, b, c, floor, life, chunk, most
//	  b (rate):  refund, charge, lower; what refunds leave; how long a chunk lives; the chunk, if at most this is charged after it
//	  m (money): refund, charge, least spent; start and end of the window; the chunk, if at most this is spent after it
//	  s (slots): held, of them spare, 0; 0; 0; the chunk, if at most this is held after it
//	for each take: mode, team, class, weight, price, owed, more, charges
//	  for each charge: limit, shadow, and cost, slack, charge of a rate, or amount, budget, 0, or slots, own slots, 0
//
// The reply is the server's time alone when a window is not in force by it. Else it
// is that time, whether the number had come before, the last one that had or -1,
// what was granted then: a digit for each take, and after a blank the chunks; for each limit its arrival time and 0, or what is
// spent and since when, or the slots of others and the own ones, and the chunk; for each take whether it was
// granted, the wait, the refusing charge, the one that the wait is of, the shadow charges, whose turn it is.
type call struct {
	o      *owner
	seq    int64
	levels []*level
	asks   []*ask
	asked  map[*level]bool // levels that asks concern
	keys   []string
	args   []any
	began  time.Time
}

// markLife is how long the server keeps the number of a replica's last call.
const markLife = 10 * time.Minute

// The modes of a take.
const (
	modeNone  = 0 // nobody waits
	modeWake  = 1 // whoever is refused waits to be woken
	modeQueue = 2 // and has a place in the fair queue
)

// next makes the next call, or nil when there is nothing to tell or ask. Whoever
// asks while the gate is down is told that it is.
func (o *owner) next() *call {
	if o.gate.down.Load() {
		o.giveUp(o.asks)
		o.asks = nil
		return nil
	}
	c := &call{o: o}
	if o.lost != nil {
		// What was lost goes again under its own number, and nothing with it.
		c.seq, c.levels = o.lost.seq, o.lost.levels
		o.build(c)
		return c
	}
	for o.asks = o.collect(c); len(c.levels) == 0; o.asks = o.collect(c) {
		if len(c.asks) == 0 {
			return nil
		}
		for _, a := range c.asks { // looks whose limits went with the call before
			close(a.done)
		}
	}
	o.seq++
	c.seq = o.seq
	now := o.now()
	for _, l := range c.levels {
		if c.asked[l] || now >= l.chunk.until {
			l.dropChunk(now)
		}
		l.sent, l.pending = l.pending, change{}
	}
	o.build(c)
	return c
}

// collect puts the asks into the call, and the limits that they concern or that
// have something to tell. It returns the asks that have no room.
func (o *owner) collect(c *call) (rest []*ask) {
	c.asks, c.asked = o.asks, make(map[*level]bool)
	if len(c.asks) > maxTakes {
		c.asks, rest = c.asks[:maxTakes:maxTakes], c.asks[maxTakes:]
	}
	for _, a := range c.asks {
		for i := range a.charges {
			if l := o.level(a.charges[i].Limit); !c.asked[l] {
				c.asked[l] = true
				c.levels = append(c.levels, l)
			}
		}
	}
	now, server := time.Now(), o.now()
	for l := range o.dirty {
		l.settleAlone(server)
		look := l.look
		l.look = false
		switch later := l.chunk.units > 0 && server < l.chunk.until && l.pending.empty(); {
		case later && look && !c.asked[l]:
			c.levels = append(c.levels, l)
			continue
		case later:
			continue // to be given back later
		case c.asked[l]:
		case look, !l.pending.empty(), l.chunk.units > 0, l.kind == slots && l.outdated(now, o):
			c.levels = append(c.levels, l)
		}
		delete(o.dirty, l)
	}
	return rest
}

// outdated reports whether the server's view of the slots needs a word.
func (l *level) outdated(now time.Time, o *owner) bool {
	spare := l.held - int64(len(l.ids))
	return spare < 0 || spare > l.spareNow(o) || l.held > 0 && now.Sub(l.told) >= o.s.opt.Lease/4
}

// spareNow is how many spare slots the replica keeps.
func (l *level) spareNow(o *owner) int64 {
	now := time.Now()
	if len(o.refused) > 0 || now.Before(o.calm) {
		return 0
	}
	return l.spareSlots(now, o.s.live.Load())
}

func (o *owner) build(c *call) {
	s := o.s
	tag := s.opt.Prefix + "{" + o.group + "}"
	c.keys = append(make([]string, 0, len(c.levels)+2), tag+"call/"+s.opt.Replica, tag+"queue")
	c.args = append(make([]any, 0, 8+8*len(c.levels)+16*len(c.asks)),
		s.opt.Replica, c.seq, s.opt.Lease.Microseconds(), s.channel(), o.group, markLife.Milliseconds(), len(c.levels), len(c.asks))
	index := make(map[*level]int, len(c.levels))
	for i, l := range c.levels {
		index[l] = i + 1
		c.keys = append(c.keys, l.key)
		switch l.kind {
		case slots:
			c.slots(l)
		case purse:
			c.purse(l)
		case rate:
			c.rate(l)
		}
	}
	for _, a := range c.asks {
		c.take(a, index)
	}
}

func (c *call) rate(l *level) {
	r := limits.RateOf(l.limit, 0)
	floor, life := micros(0), micros(0)
	if chunkable(l.limit) {
		floor, life = min(r.Room()/chunkFloor, maxMicros), chunkTime(l.limit)
	}
	c.args = append(c.args, string(l.kind), l.sent.refund, l.sent.charge, l.sent.least, floor, life,
		worth(r, c.chunk(l)), min(r.Room()-r.Room()/chunkFloor, maxMicros))
}

func (c *call) purse(l *level) {
	start, end := l.limit.WindowAt(c.o.now())
	s := l.sent
	if s.window != start {
		s = change{} // its window has passed
	}
	c.args = append(c.args, string(l.kind), s.refund, s.charge, s.least, start, end,
		c.chunk(l), min(l.limit.Amount-l.limit.Amount/chunkFloor, maxMicros))
}

// chunk is what to withdraw in addition, in units.
func (c *call) chunk(l *level) int64 {
	if !c.asked[l] {
		return 0
	}
	return l.wantChunk(time.Now(), c.o.s.live.Load())
}

func (c *call) slots(l *level) {
	used, keep := int64(len(l.ids)), l.spareNow(c.o)
	spare, chunk := max(0, l.held-used), int64(0)
	if spare > keep {
		spare = keep / 2 // so that the next ones to come back need no call
	}
	if c.asked[l] && l.chunk.takes.sum(time.Now()) >= chunkTakes {
		chunk = max(0, keep-spare)
	}
	l.held = used + spare
	c.args = append(c.args, string(l.kind), l.held, spare, 0, 0, 0, chunk, l.limit.Amount-l.limit.Amount/chunkFloor)
}

func (c *call) take(a *ask, index map[*level]int) {
	mode, t := modeNone, a.turn
	if t == nil {
		t = &limits.Turn{Team: "-", Weight: 1}
	} else if mode = modeWake; queued(a.charges) {
		mode = modeQueue
	}
	more := 0
	if t.More {
		more = 1
	}
	c.args = append(c.args, mode, t.Team, int(t.Class), max(1, t.Weight), t.Price, t.Owed, more, len(a.charges))
	for i := range a.charges {
		ch := &a.charges[i]
		shadow := 0
		if ch.Limit.Shadow {
			shadow = 1
		}
		c.args = append(c.args, index[c.o.levels[ch.Limit.ID]], shadow)
		switch kindOf(ch.Limit) {
		case slots:
			all := ch.Slots()
			c.args = append(c.args, all-min(ch.Keep, all-1), c.o.ownSlots(c.o.levels[ch.Limit.ID], all), 0)
		case purse:
			c.args = append(c.args, min(ch.N, maxMicros), min(ch.Limit.Amount, maxMicros), 0)
		case rate:
			r := limits.RateOf(ch.Limit, ch.Scale)
			cost, slack := r.Price(ch.N, ch.Keep)
			c.args = append(c.args, min(cost, maxMicros), min(slack, maxMicros), worth(r, ch.N))
		}
	}
}

// call runs the script, and once more where the server's time is another than was
// thought.
func (s *Store) call(c *call) ([]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
	defer cancel()
	reply, err := s.callOnce(ctx, c)
	if err == nil && len(reply) == 1 {
		c.o.setClock(c, reply)
		reply, err = s.callOnce(ctx, c)
	}
	return reply, err
}

func (s *Store) callOnce(ctx context.Context, c *call) ([]any, error) {
	c.began = time.Now()
	reply, err := callScript.Run(ctx, s.client, c.keys, c.args...).Slice()
	s.opt.Called(time.Since(c.began), failure(err))
	return reply, err
}

// setClock takes the server's time from a reply that is nothing else, and makes the
// call anew.
func (o *owner) setClock(c *call, reply []any) {
	p := parser{reply: reply}
	o.mu.Lock()
	defer o.mu.Unlock()
	if server := p.int(); !p.bad {
		o.server, o.at = server, c.began
	}
	o.build(c)
}
