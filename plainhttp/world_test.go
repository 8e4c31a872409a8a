package plainhttp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/leakcheck"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells of bytes behind an answer
	leakcheck.Main(m)
}

// long bounds every wait of a test.
const long = 10 * time.Second

// An upstream takes connections in and hands them to a test, one after the other.
type upstream struct {
	net.Listener
	serve func(c *peer)
	wg    sync.WaitGroup
	mu    sync.Mutex
	open  []net.Conn
}

// A peer is the upstream's side of a connection.
type peer struct {
	net.Conn
	br     *bufio.Reader
	number int // of the connection, from 1
}

// serving starts an upstream that calls serve for every connection, and closes it then.
func serving(t *testing.T, serve func(c *peer)) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{Listener: l, serve: serve}
	u.wg.Go(u.accept)
	t.Cleanup(func() {
		l.Close()
		u.mu.Lock()
		for _, c := range u.open {
			c.Close()
		}
		u.mu.Unlock()
		u.wg.Wait()
	})
	return u
}

func (u *upstream) accept() {
	for number := 1; ; number++ {
		c, err := u.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.open = append(u.open, c)
		u.mu.Unlock()
		u.wg.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(long))
			u.serve(&peer{c, bufio.NewReader(c), number})
		})
	}
}

// request reads a whole request and returns it as it came.
func (p *peer) request() (raw string, err error) {
	var seen bytes.Buffer
	br := bufio.NewReader(io.TeeReader(oneByte{p.br}, &seen))
	r, err := http.ReadRequest(br)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return seen.String(), err
}

// oneByte reads no byte too many.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func (p *peer) say(text string) { _, _ = io.WriteString(p, text) }

// answering answers every request of a connection with the number of the connection.
func answering(p *peer) {
	for {
		if _, err := p.request(); err != nil {
			return
		}
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + string('0'+rune(p.number)))
	}
}

// transport is one to be tested. base tells of what was left to it.
func transport(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Transport {
	tr := New(&http.Transport{
		DialContext: dial, MaxIdleConnsPerHost: 10, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true,
	}, 10)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func get(t *testing.T, u *upstream) *http.Request {
	t.Helper()
	return request(t, t.Context(), http.MethodGet, u, "")
}

func post(t *testing.T, u *upstream, body string) *http.Request {
	t.Helper()
	return request(t, t.Context(), http.MethodPost, u, body)
}

func request(t *testing.T, ctx context.Context, method string, u *upstream, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+u.Addr().String()+"/v1/x?y=z", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask sends a request and reads the answer to its end.
func ask(rt http.RoundTripper, r *http.Request) (status int, body string, err error) {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	whole, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(whole), err
}

// must is ask for what has to succeed.
func must(t *testing.T, rt http.RoundTripper, r *http.Request) string {
	t.Helper()
	_, body, err := ask(rt, r)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// idle is how many connections lie idle.
func (t *Transport) idleNow() int {
	t.idle.mu.Lock()
	defer t.idle.mu.Unlock()
	return t.idle.size
}

// within fails the test unless the channel is closed in time.
func within[T any](t *testing.T, what string, done <-chan T) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(long):
		t.Fatalf("%s: not within %v", what, long)
	}
}

var errTest = errors.New("the test has ended it")
