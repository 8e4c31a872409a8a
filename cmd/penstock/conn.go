package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// A conn is a connection to an upstream without TLS. net/http reads into a small
// buffer and writes out of one, both of which it keeps for as long as the connection
// lasts. In a burst a conn reads ahead into a large one, so that it takes fewer
// system calls, and a large body is written through one. Both are pooled: a
// connection that is silent holds neither.
type conn struct {
	net.Conn
	full  bool    // the last read filled the reader's buffer: more may have come
	ahead *[]byte // what was read ahead is in it; nil while that is nothing
	rest  []byte  // of it
}

// burst is the size of a read from which on the next one is made ahead, in bytes: that
// of net/http's buffer.
const burst = 4 << 10

// conns are the buffers of connections to upstreams.
var conns = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// dialPlain makes connections to upstreams that speak no TLS.
func dialPlain(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c}, nil
	}
}

// Read implements io.Reader. Like that of every connection of net/http's it is called
// by one goroutine at a time.
func (c *conn) Read(p []byte) (int, error) {
	if c.ahead == nil && !c.full {
		n, err := c.Conn.Read(p)
		c.full = n == len(p) && n >= burst
		return n, err
	}
	if c.ahead == nil {
		buf := conns.Get().(*[]byte)
		n, err := c.Conn.Read(*buf)
		if c.full = n >= burst; n == 0 {
			conns.Put(buf)
			return 0, err
		}
		c.ahead, c.rest = buf, (*buf)[:n] // an error comes again
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		conns.Put(c.ahead)
		c.ahead, c.rest = nil, nil
	}
	return n, nil
}

// ReadFrom implements io.ReaderFrom.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	buf := conns.Get().(*[]byte)
	defer conns.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c.Conn}, r, *buf)
}
