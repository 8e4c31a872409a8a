package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"penstock/limits"
)

var errReply = errors.New("the script's reply is not understood; do all replicas run the same version of penstock?")

// answered takes a reply into account.
func (o *owner) answered(c *call, reply []any) error {
	p := parser{reply: reply}
	server, again, last, granted := p.int(), p.int() == 1, p.int(), p.text()
	if p.bad || len(reply) != 4+3*len(c.levels)+6*len(c.asks) {
		return fmt.Errorf("%d values: %w", len(reply), errReply)
	}
	verdicts := parser{reply: reply[4+3*len(c.levels):]}
	for _, a := range c.asks {
		o.verdict(a, &verdicts)
	}
	if verdicts.bad {
		return errReply
	}
	before := o.now()
	forgot := last < o.heard // it does not know the last call that it answered
	if forgot {
		o.remember(before)
	}
	o.server, o.at, o.spoke, o.heard = server, c.began, time.Now(), c.seq
	if o.lost != nil {
		if again {
			o.refundLost(granted)
		}
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
			l.past.Note(max(max(l.at(server)-server, 0)+l.owed()-chunk-c.charged(l), 0))
		}
		if chunk > 0 {
			l.gotChunk(chunk, mark, server)
			o.mark(l)
			o.tellWithin(duration(l.chunk.until-server) + soon)
		}
	}
	if p.bad {
		return errReply
	}
	if forgot {
		o.takenAtop(c)
	}
	for _, a := range c.asks {
		if a.verdict.OK {
			o.granted(a)
		}
		o.tell(a.charges)
		close(a.done)
	}
	return nil
}

// remember: the server has lost what it knew, or the last of it. It is told the
// levels that were known here, and until every replica has done so, each keeps to
// its part of the slots. After a long silence it has forgotten the number alone,
// most likely, and is told the levels all the same.
func (o *owner) remember(now micros) {
	if time.Since(o.spoke) < markLife-time.Minute {
		o.settle(0, false)
		if o.s.mayLog() {
			o.s.opt.Log.Warn("the shared store has lost its state, or the last of it; levels are restored from what the replicas know", "owner", o.group)
		}
	}
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
func (o *owner) refundLost(granted string) {
	takes, chunks, _ := strings.Cut(granted, " ")
	for i, chunk := range strings.Fields(chunks) {
		n, err := strconv.ParseInt(chunk, 10, 64)
		if err != nil || n == 0 || i >= len(o.lost.levels) {
			continue
		}
		switch l := o.lost.levels[i]; l.kind {
		case purse:
			l.pay(-n, o.now())
			o.mark(l)
		case rate:
			l.pending.add(-n)
			o.mark(l)
		case slots: // what is held was told anew
		}
	}
	for i, a := range o.lost.asks {
		if i >= len(takes) || takes[i] != '1' {
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

// verdict reads the result of one take.
func (o *owner) verdict(a *ask, p *parser) {
	granted, wait, by, last, over, turn := p.int() == 1, p.int(), p.int(), p.int(), p.text(), p.text()
	v := limits.Verdict{OK: granted, Told: true, Turn: turn}
	if n := int64(len(a.charges)); !granted && (by < 1 || by > n || last < 1 || last > n) {
		p.bad = true
		by, last = 1, 1
	}
	for i := range a.charges {
		a.charges[i].Over = granted && i < len(over) && over[i] == '1'
	}
	if !granted {
		c := &a.charges[last-1]
		v.By, v.Last, v.N, v.Again = a.charges[by-1].Limit, c.Limit, c.N, askAgain
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

// granted notes what a take has got.
func (o *owner) granted(a *ask) {
	for i := range a.charges {
		ch := &a.charges[i]
		if ch.Over {
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
}

// charged is what the takes of the call have charged on a rate.
func (c *call) charged(l *level) (sum micros) {
	for _, a := range c.asks {
		for i := range a.charges {
			if ch := &a.charges[i]; a.verdict.OK && !ch.Over && ch.Limit.ID == l.limit.ID {
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
