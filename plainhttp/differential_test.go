package plainhttp

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// An outcome is what a client makes of an answer.
type outcome struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	length  int64
	close   bool
	failure string // class of the error
	kept    bool   // the connection was kept
}

// class is as far as callers tell errors apart.
func class(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	}
	return "broken"
}

// A pieces is a connection that is read in pieces of random sizes.
type pieces struct {
	*net.TCPConn
	sizes *rand.Rand // nil for whatever comes
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.sizes != nil && len(b) > 0 {
		b = b[:1+p.sizes.IntN(min(len(b), 1<<p.sizes.IntN(14)))]
	}
	return p.TCPConn.Read(b)
}

// outcomes are what net/http and this package make of the bytes of an answer.
func outcomes(t *testing.T, method, answer string, seed uint64) (theirs, ours outcome) {
	t.Helper()
	u := serving(t, func(p *peer) {
		if _, err := p.request(); err == nil {
			p.say(answer)
			_ = p.Conn.(*net.TCPConn).CloseWrite() // an answer that goes on ends here
			_, _ = io.Copy(io.Discard, p)
		}
	})
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		p := &pieces{TCPConn: c.(*net.TCPConn)}
		if seed != 0 {
			p.sizes = rand.New(rand.NewPCG(seed, 1))
		}
		return p, nil
	}
	mine := transport(t, dial)
	var kept atomic.Bool
	trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{PutIdleConn: func(err error) { kept.Store(err == nil) }})
	ours = outcomeOf(mine, request(t, t.Context(), method, u, ""))
	ours.kept = mine.idleNow() > 0
	// On a busy machine net/http may not wait for its own goroutine that has written.
	for range 5 {
		mine.base.CloseIdleConnections()
		theirs = outcomeOf(mine.base, request(t, trace, method, u, ""))
		if theirs.kept = kept.Load(); theirs.kept || !ours.kept {
			break
		}
	}
	return theirs, ours
}

func outcomeOf(rt http.RoundTripper, r *http.Request) outcome {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return outcome{failure: class(err)}
	}
	out := outcome{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, close: resp.Close}
	if resp.StatusCode == http.StatusSwitchingProtocols { // the connection is theirs who asked to switch
		resp.Body.Close()
		return out
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	out.body, out.trailer, out.failure = string(body), resp.Trailer, class(err)
	return out
}

// same compares outcomes. A connection may be closed that net/http would keep, not the
// other way round: net/http keeps one on which bytes follow the answer, and closes it
// when it sees them.
func same(t *testing.T, theirs, ours outcome) {
	t.Helper()
	if ours.kept && !theirs.kept {
		t.Error("the connection is kept, and not by net/http")
	}
	theirs.kept, ours.kept = false, false
	if !reflect.DeepEqual(theirs, ours) {
		t.Errorf("net/http: %+v\nours:     %+v", theirs, ours)
	}
}

var answers = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nuntil the end",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 5000) + "\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("x", 5000) + "\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("400\r\n"+strings.Repeat("x", 1024)+"\r\n", 40) + "0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("0123456789", 10_000),
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n",
	strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 4_000) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60_000) + "\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70_000) + "\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
	"HTTP/1.1 200 OK\r\n a: b\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "SSH-2.0-x\r\n", "\r\n", "H", "",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
	"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
	"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\nPragma: no-cache\r\n\r\nno",
}

// The same bytes are the same answer, the same failure and no longer a connection than
// with net/http, in whatever pieces they come.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	for _, answer := range answers {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for seed := range uint64(3) {
				t.Run("", func(t *testing.T) {
					theirs, ours := outcomes(t, method, answer, seed)
					same(t, theirs, ours)
					if t.Failed() {
						t.Logf("%s, seed %d: %.200q", method, seed, answer)
					}
				})
			}
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for i, answer := range answers {
		f.Add(answer, i%2 == 0, uint64(i))
	}
	f.Fuzz(func(t *testing.T, answer string, head bool, seed uint64) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		theirs, ours := outcomes(t, method, answer, seed)
		same(t, theirs, ours)
	})
}

// wire is a request as an upstream gets it, its header in order.
func wire(t *testing.T, raw string) string {
	t.Helper()
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n\n" + body
}

// What is sent is what net/http sends.
func TestRequestsAreThoseOfNetHTTP(t *testing.T) {
	got := make(chan string, 1)
	u := serving(t, func(p *peer) {
		for {
			raw, err := p.request()
			if err != nil {
				return
			}
			got <- raw
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	for name, change := range map[string]func(r *http.Request){
		"as it is":         func(*http.Request) {},
		"no user agent":    func(r *http.Request) { r.Header["User-Agent"] = []string{""} },
		"user agent":       func(r *http.Request) { r.Header.Set("User-Agent", "mine/1") },
		"host":             func(r *http.Request) { r.Host = "other.example" },
		"bad host":         func(r *http.Request) { r.Host = "a b" },
		"compression":      func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") },
		"lower case":       func(r *http.Request) { r.Header["idempotency-key"] = []string{"k"} },
		"several values":   func(r *http.Request) { r.Header["X-A"] = []string{"1", "2", ""} },
		"its own length":   func(r *http.Request) { r.Header.Set("Content-Length", "77") },
		"credentials":      func(r *http.Request) { r.Header.Set("Authorization", "Bearer k") },
		"escaped path":     func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b c", "/a%2Fb%20c" },
		"no path":          func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "", "" },
		"closing":          func(r *http.Request) { r.Close = true },
		"a body of no end": func(r *http.Request) { r.GetBody, r.ContentLength = nil, -1 },
	} {
		for _, method := range slices.Sorted(maps.Keys(methods)) {
			for _, size := range []int{0, 300, direct, direct + 1} {
				if size >= direct && method != http.MethodPost {
					continue
				}
				mine, raws := transport(t, nil), [2]string{}
				for i, rt := range []http.RoundTripper{mine.base, mine} {
					r := request(t, t.Context(), method, u, strings.Repeat("b", size))
					change(r)
					if _, _, err := ask(rt, r); err != nil {
						t.Fatalf("%s, %s, %d bytes: %v", name, method, size, err)
					}
					raws[i] = wire(t, <-got)
				}
				if raws[0] != raws[1] {
					t.Errorf("%s, %s, %d bytes: net/http sends\n%.300s\nand we\n%.300s", name, method, size, raws[0], raws[1])
				}
			}
		}
	}
}
