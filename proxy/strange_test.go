package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// covers UP-01, UP-02, CL-07: answers that are none of this API's are faults of the
// upstream, of which the client learns no more than that.
func TestStrangeAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		up     http.HandlerFunc
		status int
		code   string
		hits   int
	}{
		{"301", sends(301, "", "Location", "http://10.0.0.1/v1/chat/completions"), 502, "upstream_protocol", 3},
		{"307", sends(307, "", "Location", "/v1/chat/completions/"), 502, "upstream_protocol", 3},
		{"304", sends(304, ""), 502, "upstream_protocol", 3},
		{"600", sends(600, "{}"), 502, "upstream_protocol", 3},
		{"407", sends(407, "{}", "Proxy-Authenticate", "Basic"), 502, "upstream_credential", 1},
		{"null", sends(200, "null"), 502, "upstream_not_json", 3},
		{"a list", sends(200, " []"), 502, "upstream_not_json", 3},
		{"nothing", sends(200, ""), 502, "upstream_not_json", 3},
		{"a byte order mark", sends(200, "\xef\xbb\xbf{\"id\":\"1\"}"), 200, "", 1},
		{"400, and silence", stalls(400, `{"error":{"message":"no"`), 400, "upstream_error", 1},
		{"429, and silence", stalls(429, `{"error":{"message":"no"`), 503, "upstream_capacity", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				w := newWorld(t, counting(&hits, c.up), nil)
				o := w.chat(hello)
				if o.status != c.status || o.code() != c.code || hits != c.hits || strings.Contains(o.body, "10.0.0.1") {
					t.Errorf("%d %s, %d attempts; want %d %s, %d", o.status, o.body, hits, c.status, c.code, c.hits)
				}
				if o.header.Get("Location") != "" || o.header.Get("Proxy-Authenticate") != "" {
					t.Errorf("headers %v", o.header)
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}

// stalls sends the beginning of an answer and no more.
func stalls(status int, begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, begin)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// covers CL-07: redirects of what carries no prompt are passed on, never followed,
// and do not speak of the upstream's host.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for to, want := range map[string]string{
		"https://storage.example/f?sig=1": "https://storage.example/f?sig=1",
		"http://a/v1/files/g?x=1":         "/v1/files/g?x=1",
		"http://a:9000/v1/files/g":        "/v1/files/g",
		"/v1/files/g":                     "/v1/files/g",
		"g":                               "g",
		"http://a/login":                  "",
		"/login":                          "",
		"http://a/v1x":                    "",
		":":                               "",
	} {
		t.Run(to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				w := newWorld(t, counting(&hits, sends(302, "", "Location", to)), nil)
				w.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				o := w.do(w.request("GET", "/v1/files/f/content", ""))
				if got := o.header.Get("Location"); o.status != 302 || got != want || hits != 1 {
					t.Errorf("%d to %q, %d requests; want %q", o.status, got, hits, want)
				}
			})
		})
	}
}

// An upstream that leaves its connection open behind the end of a stream holds
// neither the client nor a slot.
// covers LIM-01
func TestConnectionLeftOpenBehindTheEnd(t *testing.T) {
	for name, end := range map[string]string{"done": doneChunk, "an error": "data: {\"error\":{\"message\":\"no\"}}\n\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, streams(chunk("a"), finishChunk, usageChunk, end, time.Hour), nil)
				begin := time.Now()
				o := w.chat(helloStream)
				if o.status != 200 || o.err != nil || o.body != chunk("a")+finishChunk+end || time.Since(begin) > 3*time.Second {
					t.Errorf("%d %q, %v after %v", o.status, o.body, o.err, time.Since(begin))
				}
				if got := w.metric("requests_total", "outcome", "ok"); name == "done" && got != 1 {
					t.Error("it was not counted as served")
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}

// covers UP-01: wherever an answer breaks off, it is an error or whole, never what
// could be taken for whole.
func TestBrokenOffAtEveryByte(t *testing.T) {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(answerJSON))
	events := chunk("a") + finishChunk + doneChunk
	stream := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(events), events)
	for _, c := range []struct{ name, body, answer, want string }{{"answer", hello, head + answerJSON, answerJSON}, {"stream", helloStream, stream, events}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cut := 0
				w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
					writes(c.answer[:cut], func(int) string { panic(http.ErrAbortHandler) })(rw, r)
				}, nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
				w.p.breakers.Configure(breakersOff)
				for cut = range len(c.answer) + 1 {
					o := w.chat(c.body)
					whole := o.status == 200 && o.err == nil && !strings.Contains(o.body, `"error"`)
					if whole && o.body != c.want {
						t.Fatalf("cut at %d of %d: %q looks whole", cut, len(c.answer), o.body)
					}
					if !whole && (cut == len(c.answer) || o.status != 502 && (o.status != 200 || o.err == nil && !strings.Contains(o.body, `"error"`))) {
						t.Fatalf("cut at %d of %d: %d %v %q", cut, len(c.answer), o.status, o.err, o.body)
					}
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}
