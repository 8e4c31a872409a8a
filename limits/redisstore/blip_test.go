package redisstore_test

import (
	"sync/atomic"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// A cut is three replicas with two slots each of 24, of which the first is cut off
// from the server a moment ago, and the others have taken all that was free.
type cut struct {
	*testing.T
	wire  *lossy
	alone *redisstore.Store
	kicks atomic.Int64 // of its queue
	slots *limits.Limit
	mine  []*held
}

func newCut(t *testing.T, blip time.Duration) *cut {
	server := redistest.Start(t)
	c := &cut{T: t, wire: newLossy(t, server.Addr), slots: limitstest.Slots("a", 24)}
	p := prefix()
	c.alone = redisstore.New(redisstore.Connect(redisstore.Server{Addresses: []string{c.wire.Addr().String()}}, 100*time.Millisecond),
		redisstore.Options{Prefix: p, Timeout: 100 * time.Millisecond, Replicas: 3})
	c.alone.Blip(blip)
	c.alone.Run(func() { c.kicks.Add(1) })
	t.Cleanup(func() { c.alone.Close() })
	at := redisstore.Server{Addresses: []string{server.Addr}}
	others := []*redisstore.Store{open(t, at, redisstore.Options{Prefix: p}), open(t, at, redisstore.Options{Prefix: p})}
	for range 2 {
		for _, s := range others {
			take(t, s, 1, c.slots)
		}
		h, v := take(t, c.alone, 1, c.slots)
		if !v.OK {
			t.Fatal("refused")
		}
		c.mine = append(c.mine, h)
	}
	c.wire.set(true, 0)
	for n := 0; n < 18; n++ {
		if _, v := take(t, others[n%2], 1, c.slots); !v.OK {
			t.Fatalf("slot %d is refused", n)
		}
	}
	return c
}

// ask takes a slot for somebody who can wait for so long.
func (c *cut) ask(left time.Duration) limits.Verdict {
	c.Helper()
	h := &held{s: c.alone, id: lastID.Add(1), charges: []limits.Charge{{Limit: c.slots, N: 1}}}
	v, err := c.alone.Take(c.Context(), h.id, &limits.Turn{Team: "a", Weight: 1, Left: left}, h.charges)
	if err != nil {
		c.Fatal(err)
	}
	if v.OK {
		c.mine = append(c.mine, h)
	}
	return v
}

// covers DIST-01: a replica that is cut off takes no more than what the server knows
// it to hold while others may still reach the server and take the rest. Whoever can
// wait is woken when it has ended, or when it has lasted for too long.
func TestBlipTakesNothing(t *testing.T) {
	t.Parallel()
	c := newCut(t, time.Minute)
	for range 3 {
		if v := c.ask(time.Minute); v.OK || v.Again <= 0 || v.Again > time.Second {
			t.Fatalf("%+v in a blip with all slots taken, want to be asked again soon", v)
		}
	}
	c.mine[0].settle(1)
	if v := c.ask(time.Minute); !v.OK {
		t.Errorf("%+v for a slot that the replica holds", v)
	}
	if v := c.ask(time.Minute); v.OK {
		t.Error("a slot beyond those that the replica holds")
	}
	kicks := c.kicks.Load()
	c.wire.set(false, 0)
	within(t, 2*time.Second, "the queue is told that the server is back", func() bool { return answers(c.alone)() && c.kicks.Load() > kicks })
	if v := c.ask(time.Minute); v.OK {
		t.Error("a slot beyond the limit after the blip")
	}
	c.mine[1].settle(1)
	within(t, 2*time.Second, "a slot that came back is used", func() bool { return c.ask(time.Minute).OK })
}

// covers DIST-03: a loss that lasts, and whoever cannot wait, get the part of what
// was free when the server was heard last.
func TestLossOutlivesABlip(t *testing.T) {
	t.Parallel()
	c := newCut(t, time.Second)
	if v := c.ask(100 * time.Millisecond); !v.OK {
		t.Errorf("%+v for somebody who cannot wait for the end of a blip", v)
	}
	if _, v := take(t, c.alone, 1, c.slots); !v.OK {
		t.Errorf("%+v for somebody who cannot wait at all", v)
	}
	if v := c.ask(time.Minute); v.OK {
		t.Error("a slot for somebody who can wait")
	}
	kicks := c.kicks.Load()
	within(t, 3*time.Second, "the queue is told that the loss lasts", func() bool { return c.kicks.Load() > kicks })
	within(t, 2*time.Second, "the part of the slots is used", func() bool { return c.ask(time.Minute).OK })
}
