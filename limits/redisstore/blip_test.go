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
	testing.TB
	t     *testing.T // for what holds at any speed
	at    time.Time
	known bool // the server knows who holds what
	blip  time.Duration
	wire  *lossy
	alone *redisstore.Store
	kicks atomic.Int64 // of its queue
	slots *limits.Limit
	mine  []*held
}

func newCut(whole *testing.T, t testing.TB, blip time.Duration) *cut {
	server := redistest.Start(t)
	c := &cut{TB: t, t: whole, blip: blip, wire: newLossy(t, server.Addr), slots: limitstest.Slots("a", 24)}
	p := prefix()
	c.alone = redisstore.New(redisstore.Connect(redisstore.Server{Addresses: []string{c.wire.Addr().String()}}, 500*time.Millisecond),
		redisstore.Options{Prefix: p, Timeout: 500 * time.Millisecond, Replicas: 3})
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
	c.at, c.known = time.Now(), c.alone.Losses() == 0 && others[0].Losses() == 0 && others[1].Losses() == 0
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
	h, v := takeTurn(c, c.alone, left, 1, c.slots)
	if v.OK {
		c.mine = append(c.mine, h)
	}
	return v
}

// tooMany fails the test: a slot was given that somebody else has. A machine so busy that
// a replica had lost the server before, and decided alone, or that the blip is over, spoils
// the round alone.
func (c *cut) tooMany(what string) {
	c.Helper()
	if c.known && c.alone.Losses() == 1 && time.Since(c.at) < min(c.blip, 5*time.Second) {
		c.t.Error(what)
	}
	c.Error(what)
}

// takeTurn asks for one charge of a limit for somebody who can wait for so long.
func takeTurn(t testing.TB, s *redisstore.Store, left time.Duration, n int64, l *limits.Limit) (*held, limits.Verdict) {
	t.Helper()
	h := &held{s: s, id: lastID.Add(1), charges: []limits.Charge{{Limit: l, N: n}}}
	v, err := s.Take(t.Context(), h.id, &limits.Turn{Team: "a", Weight: 1, Left: left}, h.charges)
	if err != nil {
		t.Fatal(err)
	}
	return h, v
}

// covers DIST-01: a replica that is cut off takes no more than what the server knows
// it to hold while others may still reach the server and take the rest. Whoever can
// wait is woken when it has ended, or when it has lasted for too long.
func TestBlipTakesNothing(t *testing.T) {
	t.Parallel()
	whole := t
	limitstest.Rounds(t, func(t testing.TB) {
		c := newCut(whole, t, time.Minute)
		for range 3 {
			v := c.ask(time.Minute)
			if v.OK {
				c.tooMany("a slot in a blip with all slots taken")
			}
			if v.OK || v.Again <= 0 || v.Again > time.Second {
				t.Fatalf("%+v in a blip with all slots taken, want to be asked again soon", v)
			}
		}
		c.mine[0].settle(1)
		if v := c.ask(time.Minute); !v.OK {
			t.Errorf("%+v for a slot that the replica holds", v)
		}
		if v := c.ask(time.Minute); v.OK {
			c.tooMany("a slot beyond those that the replica holds")
		}
		kicks := c.kicks.Load()
		c.wire.set(false, 0)
		within(t, 10*time.Second, "the queue is told that the server is back", func() bool { return answers(c.alone)() && c.kicks.Load() > kicks })
		if v := c.ask(time.Minute); v.OK {
			c.tooMany("a slot beyond the limit after the blip")
		}
		c.mine[1].settle(1)
		within(t, 10*time.Second, "a slot that came back is used", func() bool { return c.ask(time.Minute).OK })
	})
}

// covers DIST-03: a loss that lasts, and whoever cannot wait, get the part of what
// was free when the server was heard last.
func TestLossOutlivesABlip(t *testing.T) {
	t.Parallel()
	whole := t
	limitstest.Rounds(t, func(t testing.TB) {
		c := newCut(whole, t, time.Second)
		if v := c.ask(100 * time.Millisecond); !v.OK {
			t.Errorf("%+v for somebody who cannot wait for the end of a blip", v)
		}
		if _, v := take(t, c.alone, 1, c.slots); !v.OK {
			t.Errorf("%+v for somebody who cannot wait at all", v)
		}
		if v := c.ask(time.Minute); v.OK {
			c.tooMany("a slot for somebody who can wait")
		}
		kicks := c.kicks.Load()
		within(t, 10*time.Second, "the queue is told that the loss lasts", func() bool { return c.kicks.Load() > kicks })
		within(t, 10*time.Second, "the part of the slots is used", func() bool { return c.ask(time.Minute).OK })
	})
}

// covers DIST-01: in a blip nothing is taken of a rate but the chunk in hand, and what
// was taken of that and comes back is not lost.
func TestBlipOfRates(t *testing.T) {
	t.Parallel()
	whole := t // for what holds at any speed
	limitstest.Rounds(t, func(t testing.TB) {
		server := redistest.Start(t)
		wire := newLossy(t, server.Addr)
		s := redisstore.New(redisstore.Connect(redisstore.Server{Addresses: []string{wire.Addr().String()}}, 500*time.Millisecond),
			redisstore.Options{Prefix: prefix(), Timeout: 500 * time.Millisecond, Replicas: 3})
		s.Blip(time.Minute)
		s.Run(func() {})
		t.Cleanup(func() { s.Close() })
		small := limitstest.Bucket("small", limits.Requests, 100, time.Second, 30)
		big := limitstest.Bucket("big", limits.Tokens, 1_000_000, time.Hour, 1_000_000)
		charged := int64(300_000) // a bucket that is nearly full takes no refund while there is a chunk
		take(t, s, charged, big)
		for charged < 320_000 { // until there is a chunk
			if _, v := take(t, s, 1000, big); !v.OK {
				t.Fatal("refused")
			}
			charged += 1000
		}
		if _, v := takeTurn(t, s, time.Minute, 1, small); !v.OK {
			t.Fatal("refused")
		}
		known := s.Losses() == 0
		wire.set(true, 0)
		// tooMuch tells of units that the server was not asked for. A machine so busy that
		// the server was lost before spoils the round alone.
		tooMuch := func(v limits.Verdict, what string) {
			if v.OK && known && s.Losses() == 1 {
				whole.Error(what)
			} else if v.OK {
				t.Error(what)
			}
		}
		_, v := takeTurn(t, s, time.Minute, 1, small)
		tooMuch(v, "a unit of a small rate in a blip")
		if v.Again <= 0 || v.Again > time.Second {
			t.Errorf("%+v in a blip, want to be asked again soon", v)
		}
		if _, v := take(t, s, 1, small); !v.OK {
			t.Errorf("%+v for somebody who cannot wait", v)
		}
		h, v := takeTurn(t, s, time.Minute, 2000, big)
		if !v.OK || s.State().Away != 1 {
			t.Fatalf("%+v for a part of the chunk, state %+v", v, s.State())
		}
		charged += 500
		h.settle(500)
		_, v = takeTurn(t, s, time.Minute, 900_000, big)
		tooMuch(v, "more than the chunk")
		wire.set(false, 0)
		within(t, 10*time.Second, "the rate goes on", func() bool { _, v := takeTurn(t, s, time.Minute, 1, small); return v.OK })
		var got int64
		within(t, 10*time.Second, "what was charged is what was used", func() bool {
			s.Look(t.Context(), []*limits.Limit{big})
			levels, _ := s.Levels(t.Context(), []*limits.Limit{big})
			got = levels[0].Remaining
			return got >= 1_000_000-charged && got < 1_000_000-charged+3000 // what ten seconds bring
		})
		t.Logf("%d left", got)
	})
}
