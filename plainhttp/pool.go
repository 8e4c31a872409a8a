package plainhttp

import (
	"sync"
	"time"
)

// A pool keeps idle connections, at most so many and for so long. It is safe for
// concurrent use.
type pool struct {
	most, mostOfHost int
	timeout          time.Duration // 0 for none

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
	case p.timeout <= 0 || p.size > 1:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.timeout, p.sweep)
	default:
		p.timer.Reset(p.timeout)
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

// sweep closes what has been idle for too long.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, next := time.Now(), p.timeout
	for host, idle := range p.hosts {
		old := 0
		for ; old < len(idle) && now.Sub(idle[old].idleAt) >= p.timeout; old++ {
			idle[old].end()
		}
		if old < len(idle) {
			next = min(next, p.timeout-now.Sub(idle[old].idleAt))
		}
		left := copy(idle, idle[old:])
		if p.keep(host, idle[:left]); left == 0 {
			delete(p.hosts, host)
		}
	}
	if p.size > 0 {
		p.timer.Reset(next)
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
