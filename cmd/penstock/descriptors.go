package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"penstock/config"
)

// descriptors is how many files the process may have open.
func descriptors() int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 8192
	}
	return int(min(lim.Cur, 1<<21))
}

// idleConnections is how many connections to upstreams may lie idle in a pool.
// There are one or two pools: of connections with TLS, and without.
func idleConnections() int { return max(8, descriptors()/16) }

// connections is how many client connections may be open: each request needs a
// descriptor for its upstream too.
func connections(cfg *config.Config) int {
	if n := cfg.Gateway.MaxConnections; n > 0 {
		return int(n)
	}
	return max(8, (descriptors()-2*idleConnections()-32)/2)
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// A dialGate bounds the connections to all upstreams. A transport goes on dialling for
// requests that were given up, and counts a connection as gone before it has closed
// it; so where descriptors are few, each is counted until it is really free. The nil
// gate bounds nothing. It is safe for concurrent use.
type dialGate chan struct{}

// newDialGate returns a gate for a process that may open so many files.
func newDialGate(files int) dialGate {
	if files >= 8192 {
		return nil
	}
	return make(dialGate, files/2)
}

// dial waits for a place, as long as connecting may take, and connects.
func (g dialGate) dial(connect time.Duration, dial dialFunc) dialFunc {
	if g == nil {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		timer := time.NewTimer(connect)
		defer timer.Stop()
		select {
		case g <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, fmt.Errorf("all connections to upstreams that the limit on open files allows are in use: %w", syscall.EMFILE)
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			<-g
			return nil, err
		}
		return &gatedConn{Conn: c, free: sync.OnceFunc(func() { <-g })}, nil
	}
}

// A gatedConn gives its place back once it is closed.
type gatedConn struct {
	net.Conn
	free func()
}

// SyscallConn implements syscall.Conn, by which an idle connection is checked.
func (c *gatedConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
