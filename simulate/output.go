package simulate

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// fail answers with an error.
func (c *call) fail(e *apiError) {
	if e.status == http.StatusTooManyRequests {
		c.reason = e.reason
	}
	setRetryAfter(c.w.Header(), e.retryAfter)
	if c.faults.EchoKey {
		e.message += " Authorization: " + c.r.Header.Get("Authorization")
	}
	c.json(e.status, e.body())
}

// json answers with a JSON body.
func (c *call) json(status int, body []byte) { c.bytes(status, "application/json", body) }

// bytes answers with a whole body of declared length. Faults that count events
// count bytes here.
func (c *call) bytes(status int, contentType string, body []byte) {
	if contentType == "application/json" {
		body = c.echoKey(body)
	}
	h := c.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.head(status)
	c.ended(c.body(body))
}

// body sends a whole body, or as much of it as a fault leaves.
func (c *call) body(b []byte) error {
	f := &c.faults
	var part []byte
	var then func() error
	switch {
	case within(f.StallAfter, len(b)):
		part, then = b[:*f.StallAfter], c.stall
	case within(f.TruncateAfter, len(b)):
		part, then = b[:*f.TruncateAfter], func() error { return errCut }
	case within(f.ResetAfter, len(b)):
		part, then = b[:*f.ResetAfter], c.reset
	default:
		if err := c.send(b); err != nil {
			return err
		}
		return c.release()
	}
	if err := c.flushed(part); err != nil {
		return err
	}
	return then()
}

func within(at *int, size int) bool { return at != nil && *at < size }

// head sends status and header fields.
func (c *call) head(status int) {
	h := c.w.Header()
	h["X-Request-Id"] = []string{"req_" + c.id}
	h["Openai-Version"] = []string{"2020-10-01"}
	h["Openai-Organization"] = []string{"simulated"}
	h["Openai-Processing-Ms"] = []string{strconv.FormatInt(time.Since(c.began).Milliseconds(), 10)}
	c.quota.setHeader(h)
	if ask, askMS := c.faults.RetryAfter, c.faults.RetryAfterMS; ask != "" || askMS != "" {
		setOrDelete(h, "Retry-After", ask) // one without the other, if that is what was asked for
		setOrDelete(h, "Retry-After-Ms", askMS)
	}
	if c.faults.EchoKey {
		h["X-Simulate-Authorization"] = []string{c.r.Header.Get("Authorization")}
	}
	c.status = status
	c.w.WriteHeader(status)
}

func setOrDelete(h http.Header, name, value string) {
	if value == "" {
		h.Del(name)
	} else {
		h.Set(name, value)
	}
}

// setHeader writes the x-ratelimit fields of the limits that there are.
func (q *quota) setHeader(h http.Header) {
	if q.limit.Requests > 0 {
		h["X-Ratelimit-Limit-Requests"] = []string{strconv.FormatInt(q.limit.Requests, 10)}
		h["X-Ratelimit-Remaining-Requests"] = []string{strconv.FormatInt(q.remaining.Requests, 10)}
		h["X-Ratelimit-Reset-Requests"] = []string{roundUp(q.resetRequests, time.Millisecond).String()}
	}
	if q.limit.Tokens > 0 {
		h["X-Ratelimit-Limit-Tokens"] = []string{strconv.FormatInt(q.limit.Tokens, 10)}
		h["X-Ratelimit-Remaining-Tokens"] = []string{strconv.FormatInt(q.remaining.Tokens, 10)}
		h["X-Ratelimit-Reset-Tokens"] = []string{roundUp(q.resetTokens, time.Millisecond).String()}
	}
}

// slowPiece is how many bytes slow-body writes at a time.
const slowPiece = 16

// send writes part of the body as the faults on bytes will have it. Without
// any it does not flush.
func (c *call) send(b []byte) error {
	f := &c.faults
	if limit := f.ResetAfterBytes; limit != nil && c.written+len(c.pending)+len(b) >= *limit {
		if err := c.write(append(c.pending, b...)[:*limit-c.written]); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		return c.reset()
	}
	switch {
	case f.Split != nil:
		c.pending = append(c.pending, b...)
		return c.pieces(*f.Split, false)
	case f.SlowBody != nil:
		c.pending = append(c.pending, b...)
		return c.pieces(slowPiece, true)
	}
	return c.write(b)
}

// pieces writes and flushes what is pending in pieces of n bytes. A shorter
// rest is written only if all is asked for.
func (c *call) pieces(n int, all bool) error {
	for len(c.pending) >= n || (all && len(c.pending) > 0) {
		piece := c.pending[:min(n, len(c.pending))]
		if err := c.write(piece); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.pending = c.pending[:copy(c.pending, c.pending[len(piece):])]
		if c.faults.SlowBody != nil && !c.wait(*c.faults.SlowBody) {
			return errGone
		}
	}
	return nil
}

// release writes what split still holds back.
func (c *call) release() error {
	if len(c.pending) == 0 {
		return nil
	}
	return c.pieces(len(c.pending), true)
}

// flushed sends b and everything before it.
func (c *call) flushed(b []byte) error {
	if err := c.send(b); err != nil {
		return err
	}
	if err := c.release(); err != nil {
		return err
	}
	return c.flush()
}

func (c *call) write(b []byte) error {
	n, err := c.w.Write(b)
	c.written += n
	if err != nil {
		return errGone
	}
	return nil
}

func (c *call) flush() error {
	if http.NewResponseController(c.w).Flush() != nil || c.ctx().Err() != nil {
		return errGone
	}
	return nil
}

// stall does nothing until the client leaves.
func (c *call) stall() error {
	<-c.ctx().Done()
	return errGone
}

// reset breaks the connection: with RST where it is TCP, which discards what
// the client has not read yet, and otherwise as abruptly as can be.
func (c *call) reset() error {
	c.ending = cut
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil { // HTTP/2, or a writer that hides its connection
		panic(http.ErrAbortHandler)
	}
	below := conn
	if t, ok := conn.(*tls.Conn); ok {
		below = t.NetConn()
	}
	if t, ok := below.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
		_ = t.Close()
	}
	_ = conn.Close()
	return errCut
}

// ended notes how the answer ended.
func (c *call) ended(err error) {
	switch {
	case err == nil:
	case errors.Is(err, errCut):
		c.ending = cut
	default:
		c.ending = gone
	}
}

// echoKey puts the received credential into a JSON object, if asked to.
func (c *call) echoKey(object []byte) []byte {
	if !c.faults.EchoKey || len(object) < 2 || object[0] != '{' {
		return object
	}
	key, _ := json.Marshal(c.r.Header.Get("Authorization"))
	field := append([]byte(`{"received_authorization":`), key...)
	if object[1] != '}' {
		field = append(field, ',')
	}
	return append(field, object[1:]...)
}

// echoKeyEvent does the same to the data of a stream event.
func (c *call) echoKeyEvent(event []byte) []byte {
	before, object, ok := bytes.Cut(event, []byte("data: {"))
	if !ok || !c.faults.EchoKey {
		return event
	}
	out := append(bytes.Clone(before), "data: "...)
	return append(out, c.echoKey(append([]byte("{"), object...))...)
}
