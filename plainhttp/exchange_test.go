package plainhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestConnectionsAreUsedAgain(t *testing.T) {
	u := serving(t, answering)
	tr := transport(t, nil)
	for range 5 {
		if got := must(t, tr, get(t, u)); got != "1" {
			t.Errorf("connection %s, want 1", got)
		}
		if got := must(t, tr, post(t, u, "{}")); got != "1" {
			t.Errorf("connection %s, want 1", got)
		}
	}
	if n := tr.idleNow(); n != 1 {
		t.Errorf("%d connections are idle, want 1", n)
	}
	tr.CloseIdleConnections()
	if got := must(t, tr, get(t, u)); got != "2" {
		t.Errorf("connection %s after all were closed, want 2", got)
	}
	if got := must(t, tr, post(t, u, strings.Repeat("x", 1<<20))); got != "2" {
		t.Errorf("a long request: connection %s, want 2", got)
	}
}

// What an upstream has closed, or sent without being asked, is seen before a request is
// sent there: not even one that may not be repeated fails.
func TestSpoiltConnectionsAreNotUsed(t *testing.T) {
	for name, spoil := range map[string]func(p *peer){
		"closed":        func(p *peer) { p.Close() },
		"half closed":   func(p *peer) { _ = p.Conn.(*net.TCPConn).CloseWrite() },
		"reset":         func(p *peer) { _ = p.Conn.(*net.TCPConn).SetLinger(0); p.Close() },
		"unasked bytes": func(p *peer) { p.say("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := make(chan *peer, 1)
			u := serving(t, func(p *peer) {
				if p.number > 1 {
					answering(p)
					return
				}
				if _, err := p.request(); err == nil {
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
					spoilt <- p
					_, _ = io.Copy(io.Discard, p)
				}
			})
			tr := transport(t, nil)
			must(t, tr, post(t, u, "{}"))
			spoil(<-spoilt)
			c := tr.idle.take(u.Addr().String())
			for c.quiet() { // what was sent has yet to come
				if t.Context().Err() != nil {
					t.Fatal("nothing of it is seen")
				}
			}
			tr.idle.put(c)
			if got := must(t, tr, post(t, u, "{}")); got != "2" {
				t.Errorf("connection %s, want 2", got)
			}
		})
	}
}

// Bytes behind an answer would be taken for the next one.
func TestLeftoversEndAConnection(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"HTTP/1.1 204 No Content\r\n\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20_001),
	} {
		u := serving(t, func(p *peer) {
			if _, err := p.request(); err == nil {
				p.say(answer)
				_, _ = io.Copy(io.Discard, p)
			}
		})
		tr := transport(t, nil)
		must(t, tr, get(t, u))
		if c := tr.idle.take(u.Addr().String()); c != nil {
			for c.quiet() { // the last byte comes, and is seen before the next request
				if t.Context().Err() != nil {
					t.Fatalf("%.60q: what follows is not seen", answer)
				}
			}
			c.end()
		}
	}
}

// A request that a used connection gave no answer to is repeated where it changes
// nothing, once, and only there; as with net/http.
func TestWhatIsSentAgain(t *testing.T) {
	for _, c := range []struct {
		method string
		first  bool // already the first request fails
		say    string
		want   int32 // requests that arrive
	}{
		{http.MethodGet, false, "", 3}, {http.MethodHead, false, "", 3}, {http.MethodOptions, false, "", 3},
		{http.MethodPost, false, "", 2}, {http.MethodPut, false, "", 2}, {http.MethodDelete, false, "", 2},
		{http.MethodGet, true, "", 1}, {http.MethodPost, true, "", 1},
		{http.MethodGet, false, "HTTP/1.1 2", 2},
	} {
		var arrived atomic.Int32
		u := serving(t, func(p *peer) {
			for {
				if _, err := p.request(); err != nil {
					return
				}
				if n := arrived.Add(1); c.first || n > 1 {
					p.say(c.say)
					return
				}
				p.say("HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		for _, ours := range []bool{false, true} {
			arrived.Store(0)
			var rt http.RoundTripper
			tr := transport(t, nil)
			if rt = tr; !ours {
				rt = tr.base
			}
			if !c.first {
				must(t, rt, get(t, u))
			}
			_, _, err := ask(rt, request(t, t.Context(), c.method, u, ""))
			if want := c.want; err == nil || arrived.Load() != want {
				t.Errorf("%+v, ours %v: %d requests arrived and %v, want %d", c, ours, arrived.Load(), err, want)
			}
			if c.say == "" && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%+v, ours %v: %v", c, ours, err)
			}
		}
	}
}

// An upstream that refuses before it has read the request is heard, however long that
// is, and whether it closes its side or reads no further. The connection of a request that
// was not written to its end is not used again.
func TestEarlyAnswersAreHeard(t *testing.T) {
	for _, size := range []int{1, direct, direct + 1, 8 << 20} {
		for _, closes := range []bool{true, false} {
			u := serving(t, func(p *peer) {
				_ = p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				if _, err := p.br.Peek(1); err != nil {
					return
				}
				p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
				if closes {
					_ = p.Conn.(*net.TCPConn).CloseWrite()
				}
				<-t.Context().Done()
			})
			tr := transport(t, nil)
			ctx, cancel := context.WithTimeoutCause(t.Context(), long, errTest)
			defer cancel()
			status, body, err := ask(tr, request(t, ctx, http.MethodPost, u, strings.Repeat("x", size)))
			if err != nil || status != http.StatusRequestEntityTooLarge || body != "no" {
				t.Errorf("%d bytes, closes %v: %d %q %v", size, closes, status, body, err)
			}
			if n := tr.idleNow(); n != 0 && size > 1<<20 {
				t.Errorf("%d bytes, closes %v: the connection is kept", size, closes)
			}
		}
	}
}

// The end of a request's context, or of the interest in its answer, ends the connection
// at once, at whatever point the exchange is.
func TestEndingTheContext(t *testing.T) {
	for _, c := range []struct {
		name, say string
		size      int
		close     bool // Close, and not the context
	}{
		{"before the answer", "", 10, false},
		{"while a long request is written", "", 8 << 20, false},
		{"within the head", "HTTP/1.1 200 OK\r\nConte", 10, false},
		{"within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", 10, false},
		{"within the stream", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 10, false},
		{"closed within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", 10, true},
		{"closed within the stream", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 10, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked, left, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
			u := serving(t, func(p *peer) {
				defer close(gone)
				_, _ = p.br.Peek(1)
				p.say(c.say)
				close(asked)
				<-left
				_, _ = io.Copy(io.Discard, p.br)
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			tr := transport(t, nil)
			failed := make(chan error, 1)
			go func() {
				resp, err := tr.RoundTrip(request(t, ctx, http.MethodPost, u, strings.Repeat("x", c.size)))
				if err == nil {
					one := make([]byte, 1)
					_, _ = resp.Body.Read(one)
					if c.close {
						resp.Body.Close()
					}
					_, err = resp.Body.Read(one)
					resp.Body.Close()
				}
				failed <- err
			}()
			<-asked
			want := errClosed
			if !c.close {
				want = errTest
				cancel(errTest)
			}
			if err := <-failed; !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			close(left)
			within(t, "the upstream is released", gone)
			if n := tr.idleNow(); n != 0 {
				t.Errorf("%d connections were kept", n)
			}
		})
	}
}

// A context that ends behind the answer touches no connection any more.
func TestEndingTheContextAfterwards(t *testing.T) {
	u := serving(t, answering)
	tr := transport(t, nil)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, body, err := ask(tr, request(t, ctx, http.MethodGet, u, "")); err != nil || body != "1" {
			t.Fatalf("%q, %v; want the first connection", body, err)
		}
		cancel()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errTest)
	if _, _, err := ask(tr, request(t, ctx, http.MethodGet, u, "")); !errors.Is(err, errTest) {
		t.Errorf("asked after the end: %v", err)
	}
}

// Close from another goroutine ends a Read that waits.
func TestClosingWhileReading(t *testing.T) {
	u := serving(t, func(p *peer) {
		_, _ = p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
		_, _ = io.Copy(io.Discard, p)
	})
	resp, err := transport(t, nil).RoundTrip(get(t, u)) //nolint:bodyclose // it is closed while it is read
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	one := make([]byte, 8)
	if _, err := resp.Body.Read(one); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := resp.Body.Read(one)
		done <- err
	}()
	resp.Body.Close()
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("%v, want %v", err, errClosed)
	}
}
