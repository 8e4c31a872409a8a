package plainhttp

import (
	"sync"
	"time"
)

// Idle connections are looked at every few seconds, which takes a system call each: of
// very many only those of a host that are idle for the longest, as the others are used
// next.
const (
	lookEvery = 5 * time.Second
	looks     = 500
)

// A pool keeps idle connections, at most so many and for so long, and not much longer
// than the upstream does. It is safe for concurrent use.
type pool struct {
	most, mostOfHost int
	timeout          time.Duration // 0 for none
	every            time.Duration // between two looks

	mu      sync.Mutex
	hosts   map[string][]*conn // by host, the one that is idle for the longest first
	size    int
	timer   *time.Timer // runs while there are connections
	closing bool
}

// take removes the connection to a host that was used last, or returns nil.
func (p *pool) take(host string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = false
	idle := p.hosts[host]
	if len(idle) == 0 {
		return nil
	}
	c := idle[len(idle)-1]
	p.keep(host, idle[:len(idle)-1])
	return c
}

// put keeps a connection, or closes it if there is no room for it. Of all that are kept
// the one that is idle for the longest makes room.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(p.hosts[c.host]) >= p.mostOfHost || p.most <= 0 {
		c.end()
		return
	}
	if p.size >= p.most {
		p.evict()
	}
	c.idleAt = time.Now()
	p.keep(c.host, append(p.hosts[c.host], c))
	switch {
	case p.size > 1:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.next(p.timeout), p.sweep)
	default:
		p.timer.Reset(p.next(p.timeout))
	}
}

// keep notes what is idle of a host.
func (p *pool) keep(host string, idle []*conn) {
	was := p.hosts[host]
	p.size += len(idle) - len(was)
	if len(idle) < len(was) {
		clear(was[len(idle):])
	}
	if p.hosts == nil {
		p.hosts = make(map[string][]*conn)
	}
	p.hosts[host] = idle
}

// evict closes the connection that is idle for the longest.
func (p *pool) evict() {
	var oldest *conn
	for _, idle := range p.hosts {
		if len(idle) > 0 && (oldest == nil || idle[0].idleAt.Before(oldest.idleAt)) {
			oldest = idle[0]
		}
	}
	oldest.end()
	idle := p.hosts[oldest.host]
	copy(idle, idle[1:])
	p.keep(oldest.host, idle[:len(idle)-1])
}

// next is how long until the next sweep, where the first connection times out after left.
func (p *pool) next(left time.Duration) time.Duration {
	if p.timeout <= 0 {
		return p.every
	}
	return min(p.every, left)
}

// sweep closes what has been idle for too long, and what the upstream has closed: as no
// goroutine waits for that, nobody else would see it before the next use.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, first, seen := time.Now(), p.timeout, 0
	for host, idle := range p.hosts {
		kept := 0
		for _, c := range idle {
			left := p.timeout - now.Sub(c.idleAt)
			seen++
			if p.timeout > 0 && left <= 0 || seen <= looks && c.spoilt() {
				c.end()
				continue
			}
			first = min(first, left)
			idle[kept] = c
			kept++
		}
		if p.keep(host, idle[:kept]); kept == 0 {
			delete(p.hosts, host)
		}
	}
	if p.size > 0 {
		p.timer.Reset(p.next(first))
	}
}

// close closes all, and until the next is taken also those that come.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	for host, idle := range p.hosts {
		for _, c := range idle {
			c.end()
		}
		p.keep(host, nil)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
}
