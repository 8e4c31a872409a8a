package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

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
	o.settle(time.Since(o.gate.since()), o.gate.brief.Load())
	for _, l := range o.levels {
		if l.held > 0 || len(l.ids) > 0 {
			l.told = time.Time{}
			o.mark(l)
		}
	}
	o.mu.Unlock()
	o.s.spawn(o.flush)
}

// errLate is of a reply that was read only after the slots in it had expired, by a
// process that stood still.
var errLate = errors.New("the reply is older than a lease")

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
		if err == nil && time.Since(c.began) >= o.s.opt.Lease {
			err = errLate
		}
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
		o.lost = c.kept()
	}
	heal = o.gate.trip(err)
	o.giveUp(c.asks)
	o.giveUp(o.asks)
	o.asks = nil
	return heal
}

// kept is a call as it was made: the charges of those who asked are theirs again once
// they are given up, and they change them.
func (c *call) kept() *call {
	k := *c
	k.asks = make([]*ask, 0, len(c.asks))
	for _, a := range c.asks {
		k.asks = append(k.asks, &ask{charges: slices.Clone(a.charges)})
	}
	return &k
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
