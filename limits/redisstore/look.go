package redisstore

import (
	"context"
	"sync"
	"time"

	"penstock/limits"
)

const (
	// lookAfter is how old what was told of a limit may be before it is asked for.
	lookAfter = 200 * time.Millisecond
	// lookers is how many owners are asked at once.
	lookers = 16
)

// Look implements limits.Remote: it asks for the limits that this replica has heard
// nothing of lately. Each call is bounded by the timeout.
func (s *Store) Look(ctx context.Context, all []*limits.Limit) {
	stale := make(map[*owner][]*limits.Limit)
	for _, l := range all {
		if l.Scope != limits.ScopeGateway {
			o := s.owner(groupOf(l))
			stale[o] = append(stale[o], l)
		}
	}
	var work sync.WaitGroup
	free := make(chan struct{}, lookers)
	for o, some := range stale {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			work.Wait()
			return
		}
		work.Go(func() {
			o.look(ctx, some)
			<-free
		})
	}
	work.Wait()
}

// look asks for limits of this owner. It is an ask for nothing, in a call that has
// the limits in it.
func (o *owner) look(ctx context.Context, all []*limits.Limit) {
	o.mu.Lock()
	any := false
	for _, limit := range all {
		if l := o.level(limit); time.Since(l.told) > lookAfter {
			l.look, any = true, true
			o.mark(l)
		}
	}
	if !any || o.gate.down.Load() {
		o.mu.Unlock()
		return
	}
	a := &ask{done: make(chan struct{})}
	o.asks = append(o.asks, a)
	first := !o.busy
	o.busy = true
	o.mu.Unlock()
	if first {
		o.run(a)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}
