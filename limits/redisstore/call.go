package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"penstock/limits"
)

// A call is one run of the script for an owner. Its arguments are, in this order:
//
//	replica, number of the call, lease, channel, group, limits, takes
//	for each limit: kind, a, b, c, floor, life, chunk, most
//	  b (rate):  refund, charge, lower; what refunds leave; how long a chunk lives; the chunk, if at most this is charged after it
//	  m (money): refund, charge, least spent; start and end of the window; the chunk, if at most this is spent after it
//	  s (slots): held, of them spare, 0; 0; 0; the chunk, if at most this is held after it
//	for each take: mode, team, class, weight, price, owed, more, charges
//	  for each charge: limit, shadow, and cost, slack, charge of a rate, or amount, budget, 0, or slots, own slots, 0
//
// The reply is the server's time, whether the number had come before, whether any
// had, what the last call granted; for each limit its arrival time and 0, or what is
// spent and since when, or the slots of others and the own ones, and the chunk; for each take whether it was
// granted, the wait, the refusing charge, the shadow charges, whose turn it is.
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
	if o.asks = o.collect(c); len(c.levels) == 0 {
		return nil
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
	if len(o.refused) > 0 || time.Now().Before(o.calm) {
		return 0
	}
	return l.spareSlots(o.s.live.Load())
}

func (o *owner) build(c *call) {
	s := o.s
	tag := s.opt.Prefix + "{" + o.group + "}"
	c.keys = append(make([]string, 0, len(c.levels)+2), tag+"call/"+s.opt.Replica, tag+"queue")
	c.args = append(make([]any, 0, 7+8*len(c.levels)+16*len(c.asks)),
		s.opt.Replica, c.seq, s.opt.Lease.Microseconds(), s.channel(), o.group, len(c.levels), len(c.asks))
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
			all, own := ch.Slots(), int64(0)
			if time.Now().Before(c.o.settled) {
				own = max(1, all/c.o.s.live.Load())
			}
			c.args = append(c.args, all-min(ch.Keep, all-1), own, 0)
		case purse:
			c.args = append(c.args, min(ch.N, maxMicros), min(ch.Limit.Amount, maxMicros), 0)
		case rate:
			r := limits.RateOf(ch.Limit, ch.Scale)
			cost, slack := r.Price(ch.N, ch.Keep)
			c.args = append(c.args, min(cost, maxMicros), min(slack, maxMicros), worth(r, ch.N))
		}
	}
}

// call runs the script.
func (s *Store) call(c *call) ([]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
	defer cancel()
	c.began = time.Now()
	reply, err := callScript.Run(ctx, s.client, c.keys, c.args...).Slice()
	s.opt.Called(time.Since(c.began), failure(err))
	return reply, err
}

var errReply = errors.New("the script's reply is not understood; do all replicas run the same version of penstock?")

// answered takes a reply into account.
func (o *owner) answered(c *call, reply []any) error {
	p := parser{reply: reply}
	server, again, known, granted := p.int(), p.int() == 1, p.int() == 1, p.text()
	if p.bad || len(reply) != 4+3*len(c.levels)+5*len(c.asks) {
		return fmt.Errorf("%d values: %w", len(reply), errReply)
	}
	before := o.now()
	forgot := !known && !o.spoke.IsZero() && time.Since(o.spoke) < time.Minute
	if forgot {
		o.remember(before)
	}
	o.server, o.at, o.spoke = server, c.began, time.Now()
	if o.lost != nil {
		o.refundLost(again, granted)
		o.lost = nil
	}
	for _, l := range c.levels {
		value, own, chunk := p.int(), p.int(), p.int()
		if forgot {
			l.atop(chunk)
		}
		l.sent, l.told = change{}, c.began
		mark := value
		switch l.kind {
		case slots:
			l.others, l.held = value, own
			continue
		case purse:
			l.purse, mark = limits.Purse{Start: own, Spent: value}, own
		case rate:
			l.tat = value
			l.past.Note(max(value-server-chunk-c.charged(l), 0))
		}
		if chunk > 0 {
			l.gotChunk(chunk, mark, server)
			o.mark(l)
			o.tellWithin(duration(l.chunk.until-server) + soon)
		}
	}
	for _, a := range c.asks {
		o.verdict(a, &p)
	}
	if p.bad {
		return errReply
	}
	if forgot {
		o.takenAtop(c)
	}
	for _, a := range c.asks {
		o.tell(a.charges)
		close(a.done)
	}
	return nil
}

// remember: the server has lost what it knew. It is told the levels that were
// known here, and until every replica has done so, each keeps to its part of the
// slots.
func (o *owner) remember(now micros) {
	o.settled = time.Now().Add(3 * beatEvery)
	for _, l := range o.levels {
		o.mark(l)
		switch l.kind {
		case slots:
			l.told = time.Time{}
		case purse:
			l.raise(l.spent(now).Spent, now)
		case rate:
			l.raise(l.at(now)-now, now)
		}
	}
	o.again = true
	o.s.opt.Log.Warn("the shared store has lost its state; levels are restored from what the replicas know", "owner", o.group)
}

// takenAtop adds what a call took to what the server, which had forgotten the levels,
// is told of the time before. What else stands there was told by other replicas, of
// the same time before: added to it, every replica would raise it again.
func (o *owner) takenAtop(c *call) {
	for _, a := range c.asks {
		for i := range a.charges {
			ch := &a.charges[i]
			l := o.level(ch.Limit)
			switch {
			case !a.verdict.OK || ch.Over || l.kind == slots:
			case l.kind == purse:
				l.atop(ch.N)
			default:
				l.atop(worth(limits.RateOf(ch.Limit, ch.Scale), ch.N))
			}
		}
	}
}

// atop adds n to the least that is to be charged on a level, if there is one.
func (l *level) atop(n int64) {
	if l.pending.least > 0 {
		l.pending.least = min(l.pending.least+n, maxMicros)
	}
}

// raise sees to it that at least so much is charged on a level.
func (l *level) raise(least int64, now micros) {
	if least <= 0 {
		return
	}
	if l.kind == purse {
		l.pay(0, now)
	}
	l.pending.least = min(max(l.pending.least, least), maxMicros)
}

// refundLost gives back what a lost call was granted, since nobody has used it.
func (o *owner) refundLost(again bool, granted string) {
	for i, a := range o.lost.asks {
		if !again || i >= len(granted) || granted[i] != '1' {
			continue
		}
		for j := range a.charges {
			ch := &a.charges[j]
			l := o.level(ch.Limit)
			o.mark(l)
			switch {
			case l.kind == slots || ch.Limit.Shadow:
			case l.kind == purse:
				l.pay(-ch.N, o.now())
			default:
				l.pending.add(-worth(limits.RateOf(ch.Limit, ch.Scale), ch.N))
			}
		}
	}
}

// verdict takes the result of one take.
func (o *owner) verdict(a *ask, p *parser) {
	granted, wait, by, over, turn := p.int() == 1, p.int(), p.int(), p.text(), p.text()
	v := limits.Verdict{OK: granted, Told: true, Turn: turn}
	if !granted && (by < 1 || by > int64(len(a.charges))) {
		p.bad = true
		by = 1
	}
	for i := range a.charges {
		ch := &a.charges[i]
		ch.Over = granted && i < len(over) && over[i] == '1'
		if !granted || ch.Over {
			continue
		}
		switch l := o.level(ch.Limit); l.kind {
		case slots:
			l.ids[a.id] = struct{}{}
		case purse:
			ch.At = l.purse.Start
		case rate:
			o.turns++
			l.past.Reserve(o.turns)
			ch.At = o.turns
		}
	}
	if !granted {
		c := &a.charges[by-1]
		v.By, v.N, v.Again = c.Limit, c.N, askAgain
		if turn == "" {
			v.After = duration(wait)
		} else {
			v.Again = min(v.Again, duration(wait))
		}
		if a.turn != nil {
			o.refuse(a.turn, v)
		}
	}
	a.verdict = v
}

// charged is what takes of the call charge on a rate at most.
func (c *call) charged(l *level) (sum micros) {
	for _, a := range c.asks {
		for i := range a.charges {
			if ch := &a.charges[i]; ch.Limit.ID == l.limit.ID {
				sum += worth(limits.RateOf(ch.Limit, ch.Scale), ch.N)
			}
		}
	}
	return sum
}

// maxRefused bounds the refusals that are remembered.
const maxRefused = 1000

func (o *owner) refuse(t *limits.Turn, v limits.Verdict) {
	if len(o.refused) >= maxRefused {
		clear(o.refused)
	}
	until := relyOn
	if v.After > 0 {
		until = min(until, v.After)
	}
	if v.Turn != "" {
		until = min(until, v.Again)
	}
	o.refused[waiting{t.Team, t.Class, v.By.ID}] = refusal{verdict: v, until: time.Now().Add(until)}
}

// A parser reads a reply.
type parser struct {
	reply []any
	bad   bool
}

func (p *parser) next() any {
	if len(p.reply) == 0 {
		p.bad = true
		return nil
	}
	v := p.reply[0]
	p.reply = p.reply[1:]
	return v
}

func (p *parser) int() int64 {
	n, ok := p.next().(int64)
	p.bad = p.bad || !ok
	return n
}

func (p *parser) text() string {
	s, ok := p.next().(string)
	p.bad = p.bad || !ok
	return s
}
