package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// memory counts the bytes of bodies that are held.
type memory struct{ used atomic.Int64 }

// take reserves n bytes, or reports that the cap does not allow it.
func (m *memory) take(n, limit int64) bool {
	if m.used.Add(n) > limit {
		m.used.Add(-n)
		return false
	}
	return true
}

func (m *memory) give(n int64) { m.used.Add(-n) }

// parkFor is how long a refused credential is avoided while there are others.
const parkFor = 30 * time.Second

// parking remembers which upstreams refused our credential. Keys are upstreams and
// targets of the configuration.
type parking struct {
	any   atomic.Bool // something is parked; mostly nothing is
	mu    sync.Mutex
	until map[string]time.Time
}

// park reports whether name was not parked already.
func (p *parking) park(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = make(map[string]time.Time)
	}
	now := time.Now()
	fresh := !now.Before(p.until[name])
	p.until[name] = now.Add(parkFor)
	p.any.Store(true)
	return fresh
}

func (p *parking) parked(name string) bool {
	if !p.any.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[name]
	if ok && time.Now().After(until) {
		delete(p.until, name)
		p.any.Store(len(p.until) > 0)
		return false
	}
	return ok
}

func (p *parking) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.until)
	p.any.Store(false)
}

// budgetWindow is the time over which retries are weighed against requests.
const budgetWindow = 10

// budgets are the retry budgets of all upstreams.
type budgets struct {
	start time.Time
	mu    sync.Mutex
	all   map[string]*budget
}

// A budget counts requests and retries of an upstream in slots of a second.
type budget struct{ slots [budgetWindow]attempts }

// attempts are what happened in a second.
type attempts struct {
	second   int64
	requests int64
	retries  int64 // of ours
	told     int64 // that clients said they were making
}

func (b *budget) slot(now int64) *attempts {
	s := &b.slots[now%budgetWindow]
	if s.second != now {
		*s = attempts{second: now}
	}
	return s
}

// left is how many retries are left. What clients say takes at most half of the
// budget, so that none of them can spend it for all.
func (b *budget) left(now, percent, floor int64) int64 {
	var sum attempts
	for _, s := range b.slots {
		if now-s.second < budgetWindow {
			sum.requests += s.requests
			sum.retries += s.retries
			sum.told += s.told
		}
	}
	all := max(floor, sum.requests*percent/100)
	return max(0, all-sum.retries-min(sum.told, all/2))
}

// second counts from start, on the monotonic clock; the first one is not 0, which
// empty slots have.
func (b *budgets) second() int64 { return int64(time.Since(b.start)/time.Second) + budgetWindow }

func (b *budgets) of(upstream string) *budget {
	if b.all == nil {
		b.all = make(map[string]*budget)
	}
	if b.all[upstream] == nil {
		b.all[upstream] = &budget{}
	}
	return b.all[upstream]
}

// request counts a request that is sent to an upstream for the first time, or by
// a client that says that it is retrying.
func (b *budgets) request(upstream string, clientRetry bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(upstream).slot(b.second())
	s.requests++
	if clientRetry {
		s.told++
	}
}

// retry asks for another attempt at the same upstream.
func (b *budgets) retry(upstream string, percent, floor int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, u := b.second(), b.of(upstream)
	if u.left(now, percent, floor) == 0 {
		return false
	}
	u.slot(now).retries++
	return true
}

// left is how many retries each upstream has left.
func (b *budgets) left(percent, floor int64) map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]int64, len(b.all))
	for name, u := range b.all {
		out[name] = u.left(b.second(), percent, floor)
	}
	return out
}
