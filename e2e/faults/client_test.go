package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/e2e/harness"
)

const (
	hello       = `{"model":"m","messages":[{"role":"user","content":"hello there, gateway"}]}`
	helloStream = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there, gateway"}]}`
	answer      = `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`
	chunk       = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"},\"finish_reason\":null}]}\n\n"
	finish      = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	done        = "data: [DONE]\n\n"
)

// one is a configuration with one upstream; more is added to it.
func one(url, more string) string {
	return fmt.Sprintf("upstreams:\n  up: {base_url: \"%s/v1\", api_key: sk-upstream-secret-0123456789}\nmodels: {m: up}\n%s", url, more)
}

// A socket is a client's connection to the gateway, without any HTTP library.
type socket struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, g *harness.Gateway) *socket {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	tcp := c.(*net.TCPConn)
	_ = tcp.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { _ = tcp.Close() })
	return &socket{tcp, t, bufio.NewReader(tcp)}
}

// send writes text, or what goes of it.
func (s *socket) send(text string) { _, _ = io.WriteString(s, text) }

// post sends a request; headers are whole lines.
func (s *socket) post(body string, headers ...string) {
	s.send(head(len(body), headers...) + body)
}

// head is the head of a chat request whose body has n bytes.
func head(n int, headers ...string) string {
	lines := append([]string{"POST /v1/chat/completions HTTP/1.1", "Host: gateway", "Content-Type: application/json", fmt.Sprint("Content-Length: ", n)}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// response reads the head of an answer.
func (s *socket) response() *http.Response {
	s.t.Helper()
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		s.t.Fatalf("no answer: %v", err)
	}
	return resp
}

// fin closes the connection in good order, rst breaks it off.
func (s *socket) fin() { _ = s.Close() }
func (s *socket) rst() {
	_ = s.SetLinger(0)
	_ = s.Close()
}

// An upstream counts what reaches it and notices who is hung up on.
type upstream struct {
	hits, inFlight atomic.Int64
	peak           atomic.Int64
	mu             sync.Mutex
	serve          http.HandlerFunc
	left           []time.Time // when requests were hung up on
}

func newUpstream(h http.HandlerFunc) *upstream { return &upstream{serve: h} }

func (u *upstream) use(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.serve = h
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.hits.Add(1)
	for n := u.inFlight.Add(1); ; {
		if p := u.peak.Load(); n <= p || u.peak.CompareAndSwap(p, n) {
			break
		}
	}
	defer u.inFlight.Add(-1)
	u.mu.Lock()
	h := u.serve
	u.mu.Unlock()
	h(w, r)
	if r.Context().Err() != nil {
		u.mu.Lock()
		u.left = append(u.left, time.Now())
		u.mu.Unlock()
	}
}

// lastLeft is when a request was last hung up on.
func (u *upstream) lastLeft() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.left) == 0 {
		return time.Time{}
	}
	return u.left[len(u.left)-1]
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// answers sends a whole answer.
func answers(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, answer)
}

// answersAfter sends a whole answer after a time, unless the client leaves first.
func answersAfter(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			answers(w, r)
		case <-r.Context().Done():
		}
	}
}

// streams sends n chunks, a pause apart, and a proper end; with n below 0 it is
// silent after the first chunk.
func streams(n int, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		say := func(text string) { _, _ = io.WriteString(w, text); _ = control.Flush() }
		if n < 0 {
			say(chunk)
			<-r.Context().Done()
			return
		}
		for range n {
			say(chunk)
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
		say(finish + done)
	}
}

// whole is the stream that streams(n, _) sends, as a client should get it.
func whole(n int) string { return strings.Repeat(chunk, n) + finish + done }
