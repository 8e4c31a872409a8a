package plainhttp

import (
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// A conn is a connection to an upstream. In a burst it reads ahead into a large buffer,
// so that it takes fewer system calls; that is pooled, and not held while nothing comes.
type conn struct {
	net.Conn
	host   string
	raw    syscall.RawConn // nil where there is none, and the connection cannot be checked
	check  func(fd uintptr)
	silent bool // what check has found

	used   bool      // it has given an answer
	idleAt time.Time // when it became idle

	sent int64 // bytes written for the request
	cut  bool  // writing failed
	left int64 // bytes that may still be read for the answer
	eof  bool

	full  bool    // the last read filled the reader's buffer: more may have come
	ahead *[]byte // what was read ahead is in it; nil while that is nothing
	rest  []byte  // of it
}

// readSize is the size of the buffers that answers are read through, in bytes: that of
// net/http's, as it bounds the line before a chunk and the trailer behind the last.
const readSize = 4 << 10

// aheads are buffers to read ahead into.
var aheads = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// unlimited is what may be read of an answer behind its head.
const unlimited = math.MaxInt64

var errHead = errors.New("the head of the answer is too long")

func newConn(c net.Conn, host string) *conn {
	out := &conn{Conn: c, host: host}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			out.raw, out.check = raw, out.look
		}
	}
	return out
}

// end closes the connection, from whichever goroutine.
func (c *conn) end() { _ = c.Close() }

// quiet reports whether an idle connection is open and has nothing to be read. Whatever
// is there is no answer, as nothing has been asked.
func (c *conn) quiet() bool {
	if c.raw == nil {
		return false
	}
	c.silent = false
	return c.raw.Control(c.check) == nil && c.silent
}

// spoilt reports whether an idle connection is known to be of no more use.
func (c *conn) spoilt() bool { return c.raw != nil && !c.quiet() }

// Write implements io.Writer, and counts.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	c.cut = c.cut || err != nil
	return n, err
}

// Read implements io.Reader. It is called by one goroutine at a time.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHead
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.read(p)
	c.left -= int64(n)
	c.eof = c.eof || errors.Is(err, io.EOF)
	return n, err
}

func (c *conn) read(p []byte) (int, error) {
	if c.ahead == nil && !c.full {
		n, err := c.Conn.Read(p)
		c.full = n == len(p) && n >= readSize
		return n, err
	}
	if c.ahead == nil {
		buf := aheads.Get().(*[]byte)
		n, err := c.Conn.Read(*buf)
		if c.full = n >= readSize; n == 0 {
			aheads.Put(buf)
			return 0, err
		}
		c.ahead, c.rest = buf, (*buf)[:n] // an error comes again
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.drop()
	}
	return n, nil
}

// drop forgets what was read ahead.
func (c *conn) drop() {
	if c.ahead != nil {
		aheads.Put(c.ahead)
		c.ahead, c.rest = nil, nil
	}
}
