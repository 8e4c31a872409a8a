package proxy

import (
	"net/http"
	"sync"
	"time"
)

// A client is the side of the exchange to which the answer goes. Commit is the
// instant at which the status goes out: before it everything may be retried, after
// it nothing. Its methods are safe for concurrent use, because keep-alive comments
// are written by a timer.
type client struct {
	w       http.ResponseWriter
	control http.ResponseController
	timeout time.Duration // of one write

	mu        sync.Mutex
	committed bool
	alive     bool // committed by a keep-alive comment alone
	bytes     int64
	err       error // first failed write: the client has gone
	armed     time.Time
	beat      *time.Timer
	every     time.Duration
	beating   bool
}

func (c *client) open(w http.ResponseWriter, id string, timeout time.Duration) {
	h, ids := w.Header(), []string{id}
	h["X-Request-Id"], h["X-Penstock-Request-Id"] = ids, ids
	c.w, c.control, c.timeout = w, *http.NewResponseController(w), timeout
}

// begin commits. A length below 0 is unknown. It does nothing when a keep-alive
// comment has committed already.
func (c *client) begin(status int, length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.committed {
		return
	}
	c.committed = true
	if length >= 0 {
		c.w.Header()["Content-Length"] = []string{itoa(length)}
	}
	c.w.WriteHeader(status)
}

// Write implements io.Writer. An error means that the client has gone.
func (c *client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(b)
}

func (c *client) write(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if now := time.Now(); c.timeout > 0 && now.Sub(c.armed) > c.timeout/8 {
		if c.control.SetWriteDeadline(now.Add(c.timeout)) == nil {
			c.armed = now
		}
	}
	n, err := c.w.Write(b)
	c.bytes += int64(n)
	c.err = err
	return n, err
}

// flush sends what was written. An error means that the client has gone.
func (c *client) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *client) flushLocked() error {
	if c.err == nil {
		c.err = c.control.Flush()
	}
	return c.err
}

// written reports whether the status has gone out, and whether that was a
// keep-alive comment's doing.
func (c *client) written() (committed, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.committed, c.alive
}

var comment = []byte(": keepalive\n\n")

// keepAlive begins to send an SSE comment every so often, until quiet is called.
func (c *client) keepAlive(every time.Duration) {
	if every <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.every, c.beating = every, true
	if c.beat == nil {
		c.beat = time.AfterFunc(every, c.tick)
		return
	}
	c.beat.Reset(every)
}

func (c *client) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.beating || c.err != nil {
		return
	}
	if !c.committed {
		c.committed, c.alive = true, true
		streamHeader(c.w.Header())
		c.w.WriteHeader(http.StatusOK)
	}
	if _, err := c.write(comment); err == nil {
		_ = c.flushLocked()
	}
	c.beat.Reset(c.every)
}

// quiet ends the comments; none is being written when it returns.
func (c *client) quiet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beating = false
	if c.beat != nil {
		c.beat.Stop()
	}
}

// pause ends the comments unless one has committed: then the client relies on
// them until the answer begins.
func (c *client) pause() {
	if _, alive := c.written(); !alive {
		c.quiet()
	}
}

func streamHeader(h http.Header) {
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Del("Content-Length")
}
