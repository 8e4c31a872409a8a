package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"penstock/provider"
	"penstock/provider/openai"
)

// A WebSocket is admitted as one request, and holds its slots for as long as it is
// open. What goes through it is not looked at: bytes pass both ways as they come. Only
// where the upstream's frames end is known, so that a client can be told why its
// session ends.

// receiveUpgrade reads a request for a WebSocket into the Call.
func (x *exchange) receiveUpgrade() error {
	r, c := x.r, x.call
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 || x.unread {
		return errUpgrade
	}
	if c.Model == "" { // it may be that of a deployment's path
		model, err := openai.UpgradeModel(c.Path, r.URL.RawQuery)
		if err != nil {
			return err
		}
		c.Model = model
	}
	c.Upgrade = true
	c.Op = provider.Operation{Name: openai.NameWebSocket, Unchecked: c.Model == ""}
	x.rec.Operation = c.Op.Name
	return nil
}

// tunnel takes the client's connection over and passes bytes both ways until one
// side ends, the session's time is up, or the gateway stops. Errors that it returns
// come before anything was written.
func (x *exchange) tunnel(a *answer) error {
	x.rec.TTFT, x.rec.sent = time.Since(x.begin), a.sent
	x.own(a.Header)
	a.Header["Connection"], a.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	for name, values := range x.out.w.Header() {
		if a.Header[name] == nil {
			a.Header[name] = values
		}
	}
	if id := a.Header.Get("X-Request-Id"); id != x.rec.ID {
		x.rec.UpstreamID = id
	}
	x.p.sessions.Add(1)
	defer x.p.sessions.Done()
	conn, early, err := x.out.control.Hijack()
	if err != nil {
		return fmt.Errorf("take the connection over: %w", err)
	}
	x.out.taken()
	defer conn.Close()
	a.watch.stop()
	x.total.Reset(or(a.up.Timeouts.Session, 24*time.Hour))
	x.p.sockets.Add(1)
	defer x.p.sockets.Add(-1)

	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = a.Header.Write(&head) // to memory
	head.WriteString("\r\n")
	x.rec.Status = http.StatusSwitchingProtocols
	client := &socketWriter{conn: conn, timeout: x.s.Settings.WriteTimeout}
	if _, err := client.Write(head.Bytes()); err != nil {
		x.rec.Outcome = "client_closed"
		return nil
	}
	x.pump(conn, early, &frames{Writer: client}, a)
	return nil
}

// pump passes bytes both ways until both directions have ended, and notes how.
func (x *exchange) pump(conn net.Conn, early io.Reader, client *frames, a *answer) {
	up := a.Body.(io.ReadWriteCloser) // by the adapter's word
	over, end := context.WithCancel(context.Background())
	defer end()
	stop := context.AfterFunc(x.ctx, func() {
		up.Close()
		within, done := context.WithTimeout(over, goodbyeFor) // a write may hang
		defer done()
		<-within.Done()
		conn.Close()
	})
	defer stop()
	var left atomic.Bool // by the client
	sent := make(chan error, 1)
	go func() {
		read, write := carry(up, early)
		left.Store(write == nil)
		up.Close()
		sent <- read
	}()
	read, write := carry(client, up)
	clientFirst := left.Load() || errors.Is(x.cause(), errGone) // the server may know it first, and then the upstream was left above
	if !clientFirst && write == nil {
		x.goodbye(conn, client)
	}
	conn.Close()
	clientErr := <-sent
	switch cause := x.cause(); {
	case errors.Is(cause, errCut):
		x.rec.Outcome, x.rec.Error = "truncated", "shutting_down"
	case errors.Is(cause, errTotal):
		x.rec.Outcome, x.rec.Error = "timeout", "session_timeout"
	case clientFirst && clientErr != nil, write != nil:
		x.rec.Outcome = "client_closed"
	case !clientFirst && read != nil:
		x.rec.Outcome, x.rec.Error = "truncated", "upstream_reset"
		x.rec.Failures = append(x.rec.Failures, a.target.State+": reset mid-answer")
		x.p.metrics.Attempt(a.target.Upstream, "broken", "reset")
	default:
		x.rec.Outcome = "ok"
	}
}

// goodbyeFor bounds the end of a session that the gateway or the upstream has ended.
const goodbyeFor = time.Second

// goodbye tells the client why its session ends, unless the upstream has, or broke off
// in the middle of a frame, and waits for a moment so that it is read.
func (x *exchange) goodbye(conn net.Conn, client *frames) {
	if !client.open() {
		return
	}
	code := uint16(closeInternal)
	if cause := x.cause(); errors.Is(cause, errCut) || errors.Is(cause, errTotal) {
		code = closeGoingAway
	}
	_ = conn.SetWriteDeadline(time.Now().Add(goodbyeFor))
	if _, err := conn.Write(closeFrame(code)); err != nil {
		return
	}
	linger(context.Background())
}

// carry copies what comes, as it comes, until one of the two ends. The buffer is
// small, since many connections are silent most of the time.
func carry(dst io.Writer, src io.Reader) (read, write error) {
	buf := small.Get().(*[]byte)
	defer small.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, err := dst.Write((*buf)[:n]); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// socketWriter bounds each write to a client.
type socketWriter struct {
	conn    net.Conn
	timeout time.Duration
	armed   time.Time
}

func (s *socketWriter) Write(b []byte) (int, error) {
	if now := time.Now(); s.timeout > 0 && now.Sub(s.armed) > s.timeout/8 {
		if s.conn.SetWriteDeadline(now.Add(s.timeout)) == nil {
			s.armed = now
		}
	}
	return s.conn.Write(b)
}

// taken notes that the connection is not the server's any more.
func (c *client) taken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.committed = true
}

// AwaitSessions waits until no WebSocket is open. It must not be called while new
// requests can come.
func (p *Proxy) AwaitSessions(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last session, which Cut ends at the latest
		p.sessions.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
