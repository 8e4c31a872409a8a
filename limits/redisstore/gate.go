package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// The pauses between probes of a server that is away.
const (
	probeFirst = 20 * time.Millisecond
	probeLast  = 250 * time.Millisecond
	// probeSlow is the longest first pause, for a server that keeps going away.
	probeSlow = time.Second
	flapping  = 2 * time.Second  // away again within this, it keeps going away
	steady    = 10 * time.Second // up for so long, it counts as well again; being away sooner is not logged…
	lasting   = time.Second      // …unless it lasts
	// blip is how long a loss may be this replica's alone, for all that it knows.
	blip = 400 * time.Millisecond
)

// A gate stands before a server: one for all owners, or for each owner of a
// Cluster. It closes at the first call that fails, so that no second one waits for
// nothing, and a probe in the background opens it.
type gate struct {
	s     *Store
	name  string
	probe func(context.Context) error
	down  atomic.Bool
	loss  atomic.Uint64 // how often it has closed
	// brief: no probe has failed yet so late that the loss cannot be a blip. A server
	// that has gone away many times in a row is not given that time again.
	brief atomic.Bool

	mu     sync.Mutex
	closed time.Time
	opened time.Time
	pause  time.Duration // before the first probe
	told   bool          // the log knows that it is closed
}

// since is when it closed last.
func (g *gate) since() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// trip closes the gate because a call has failed. What it returns begins to look
// for the server; it takes the store's lock.
func (g *gate) trip(err error) (heal func()) {
	g.mu.Lock()
	if g.down.Load() {
		g.mu.Unlock()
		return func() {}
	}
	now := time.Now()
	g.pause = min(2*g.pause, probeSlow)
	if g.pause == 0 || now.Sub(g.opened) > flapping {
		g.pause = probeFirst
	}
	pause, flaps := g.pause, !g.opened.IsZero() && now.Sub(g.opened) < steady
	g.closed = now
	g.loss.Add(1)
	g.brief.Store(pause < probeSlow)
	g.down.Store(true)
	g.mu.Unlock()
	if !flaps {
		g.tell(err)
	}
	g.s.wake()
	return func() { g.s.spawn(func() { g.heal(pause) }) }
}

// tell logs that the server is away: at once, or where it had just come back, when
// it has been away for a while. Many gates may close at once; one in a second is
// logged.
func (g *gate) tell(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told || !g.s.mayLog() {
		return
	}
	g.told = true
	g.s.opt.Log.Warn("the shared store is away: limits follow on_store_loss until it is back",
		"store", g.name, "failure", failure(err), "error", err.Error(), "replicas", g.s.live.Load())
}

// mayLog reports whether a line may be logged: one in a second.
func (s *Store) mayLog() bool {
	now, last := time.Now().UnixNano(), s.logged.Load()
	return now-last >= int64(time.Second) && s.logged.CompareAndSwap(last, now)
}

// heal probes until the server answers, and opens the gate.
func (g *gate) heal(pause time.Duration) {
	for {
		timer := time.NewTimer(pause)
		select {
		case <-g.s.life.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(g.s.life, g.s.opt.Timeout)
		err := g.probe(ctx)
		cancel()
		if err == nil {
			break
		}
		pause = min(max(2*pause, probeFirst), probeLast)
		if time.Since(g.since()) >= g.s.blip && g.brief.CompareAndSwap(true, false) {
			g.s.wake()
		}
		if time.Since(g.since()) > lasting {
			g.tell(err)
		}
	}
	g.mu.Lock()
	g.opened = time.Now()
	away := g.opened.Sub(g.closed)
	told := g.told
	g.told = false
	g.down.Store(false)
	g.mu.Unlock()
	g.s.uninspected.Store(true) // it may be another server now
	if told {
		g.s.opt.Log.Info("the shared store is back", "store", g.name, "away", away.Round(time.Millisecond).String())
	}
	g.s.each(func(o *owner) {
		if o.gate == g {
			o.resume()
		}
	})
	g.s.wake()
}

// A State says how the store fares.
type State struct {
	Away     int   // owners whose server is away; all of one server count as one
	Replicas int64 // that live, as last known
}

// State reports how the store fares.
func (s *Store) State() State {
	out := State{Replicas: s.live.Load()}
	if s.shared != nil {
		if s.shared.down.Load() {
			out.Away = 1
		}
		return out
	}
	s.each(func(o *owner) {
		if o.gate.down.Load() {
			out.Away++
		}
	})
	return out
}
