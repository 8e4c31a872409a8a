package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/auth"
)

// raw sends bytes to the gateway and returns all that comes back until it closes
// the connection, or a minute has passed.
func (w *world) raw(text string) string {
	w.t.Helper()
	c, err := w.front.dial(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	go func() { _, _ = io.WriteString(c, text) }()
	b, _ := io.ReadAll(c)
	return string(b)
}

// rawPost is the beginning of a chat request; further headers follow.
const rawPost = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + clientKey + "\r\nConnection: close\r\n"

// What two servers could frame differently is refused, or sent on as one request
// with a length of its own.
func TestRequestFraming(t *testing.T) {
	body := len(hello)
	for _, c := range []struct {
		name, request string
		status        string
		hits          int
	}{
		{"length and chunks", fmt.Sprintf("%sContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", rawPost, body, hello), "200", 1},
		{"two lengths", fmt.Sprintf("%sContent-Length: 5\r\nContent-Length: %d\r\n\r\n%s", rawPost, body, hello), "400", 0},
		{"a list of lengths", fmt.Sprintf("%sContent-Length: %d, %d\r\n\r\n%s", rawPost, body, body, hello), "400", 0},
		{"a negative length", rawPost + "Content-Length: -1\r\n\r\n" + hello, "400", 0},
		{"a sign", fmt.Sprintf("%sContent-Length: +%d\r\n\r\n%s", rawPost, body, hello), "400", 0},
		{"another encoding", rawPost + "Transfer-Encoding: xchunked\r\n\r\n" + hello, "501", 0},
		{"two encodings", rawPost + "Transfer-Encoding: gzip, chunked\r\n\r\n" + hello, "501", 0},
		{"space before a colon", rawPost + "Transfer-Encoding : chunked\r\n\r\n" + hello, "400", 0},
		{"a NUL in a header", rawPost + "X-A: a\x00b\r\n\r\n", "400", 0},
		{"a folded header", fmt.Sprintf("%sX-A: a\r\n\tTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%s", rawPost, body, hello), "200", 1},
		{"an absolute URL", strings.Replace(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", rawPost, body, hello), "POST /v1", "POST http://127.0.0.1:9090/v1", 1), "200", 1},
		{"a chunk that is none", rawPost + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + hello, "400", 0},
		{"chunks ended by bare line feeds", fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\n%s\n0\n\n", rawPost, body, hello), "400", 0},
		{"CONNECT", "CONNECT 127.0.0.1:9090 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + clientKey + "\r\nConnection: close\r\n\r\n", "405", 0},
		{"CONNECT with a path", strings.Replace(rawPost, "POST", "CONNECT", 1) + "\r\n", "405", 0},
		{"TRACE", strings.Replace(rawPost, "POST", "TRACE", 1) + "\r\n", "405", 0},
		{"a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "401", 0},
		{"a hidden second request", rawPost + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: x\r\n\r\n", "400", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				var got *http.Request
				w := newWorld(t, counting(&hits, func(rw http.ResponseWriter, r *http.Request) {
					got = r
					sends(200, answerJSON)(rw, r)
				}), nil)
				answer := w.raw(c.request)
				if !strings.HasPrefix(answer, "HTTP/1.1 "+c.status) && !strings.HasPrefix(answer, "HTTP/1.0 "+c.status) {
					t.Errorf("got %q, want %s", answer, c.status)
				}
				if n := strings.Count(answer, "HTTP/1."); n != 1 || hits != c.hits {
					t.Errorf("%d answers, %d requests reached the upstream: %q", n, hits, answer)
				}
				if hits == 1 && (got.ContentLength != int64(body) || len(got.TransferEncoding) != 0 || got.Host != "a:80") {
					t.Errorf("sent with length %d, %v, to %s", got.ContentLength, got.TransferEncoding, got.Host)
				}
				time.Sleep(time.Minute)
				w.settled()
			})
		})
	}
}

// covers SEC-07: whoever may use certain models only cannot hide another one where
// nobody looks.
func TestRestrictedTeamCannotHideAModel(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/batches", `{"input_file_id":"f"}`, 403},
		{"POST", "/v1/fine_tuning/jobs", `{"model":"dear"}`, 403},
		{"POST", "/v1/threads/runs", `{"model":"dear"}`, 403},
		{"POST", "/v1/engines/dear/completions", `{"prompt":"x"}`, 403},
		{"PUT", "/v1/unknown", `{"model":"dear"}`, 403},
		{"POST", "/v1/responses", `{"input":"x"}`, 403},
		{"POST", "/v1/images/generations", `{"prompt":"x"}`, 403},
		{"POST", "/openai/deployments/dear/chat/completions", `{"messages":[]}`, 403},
		{"POST", "/v1/responses", `{"model":"both","input":"x"}`, 200},
		{"POST", "/openai/deployments/both/chat/completions", `{"model":"dear"}`, 200},
		{"POST", "/v1/chat/completions", `{"model":"both","messages":[],"models":["dear"]}`, 403},
		{"POST", "/v1/chat/completions", `{"models":["dear"],"model":"both","messages":[]}`, 403},
		{"POST", "/v1/chat/completions", `{"model":"both","messages":[],"fallbacks":[{"model":"dear"}]}`, 403},
		{"POST", "/v1/responses", `{"model":"both","input":"x","mod\u0065ls":["dear"]}`, 403},
		{"POST", "/v1/chat/completions", `{"model":"both","messages":[],"models":null}`, 200},
		{"POST", "/v1/files", `x`, 200},
		{"POST", "/v1/batches/b/cancel", ``, 200},
		{"GET", "/v1/batches", ``, 200},
		{"DELETE", "/v1/files/f", ``, 200},
		{"DELETE", "/v1/models/ft:m", ``, 200},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits, sent := 0, ""
				w := newWorld(t, counting(&hits, func(rw http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					sent = string(b)
					sends(200, answerJSON)(rw, r)
				}), nil, func(s *Snapshot) { s.Teams["search"].Models = []string{"both"} })
				o := w.do(w.request(c.method, c.path, c.body))
				if o.status != c.status || (o.status == 200) != (hits == 1) || strings.Contains(sent, "dear") {
					t.Errorf("%d %s, %d requests: %s", o.status, o.body, hits, sent)
				}
				if c.status == 403 && o.code() != "model_not_allowed" {
					t.Errorf("%s", o.body)
				}
				w.s.Teams["search"].Models = nil
				if strings.Contains(c.path, "engines") || strings.Contains(c.path, "batches") {
					if o := w.do(w.request(c.method, c.path, c.body)); o.status != 200 {
						t.Errorf("refused without restriction: %d %s", o.status, o.body)
					}
				}
			})
		})
	}
}

// covers SEC-04: a web page of somebody else cannot spend the gateway's key where
// none is asked for.
func TestWebPagesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(200, answerJSON)), nil)
		ask := func(name, value string) int {
			return w.chat(hello, "Content-Type", "text/plain", name, value).status
		}
		if got := ask("Sec-Fetch-Site", "cross-site"); got != 200 {
			t.Errorf("with a key: %d", got)
		}
		w.s.Keys = auth.NewKeys(nil, auth.Caller{Team: "search"})
		for _, c := range []struct {
			name, value string
			want        int
		}{
			{"Sec-Fetch-Site", "cross-site", 403}, {"Sec-Fetch-Site", "same-site", 403}, {"Origin", "http://evil.example", 403}, {"Origin", "null", 403},
			{"Sec-Fetch-Site", "same-origin", 200}, {"Origin", "http://gateway", 200}, {"X-Other", "1", 200},
		} {
			if got := ask(c.name, c.value); got != c.want {
				t.Errorf("%s: %s: %d, want %d", c.name, c.value, got, c.want)
			}
		}
		if hits != 4 {
			t.Errorf("%d requests reached the upstream", hits)
		}
	})
}

// covers RES-04: a length that is only declared holds no memory.
func TestDeclaredLengthHoldsNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		for range 10 {
			c, err := w.front.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n{", rawPost, 1<<20)
		}
		synctest.Wait()
		if held := w.p.memory.used.Load(); held > 10*(firstHold+1) {
			t.Errorf("%d bytes are held for 10 bytes that came", held)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		w.settled()
	})
}

// A body that trickles in is not read for longer than the request may take.
func TestTricklingBodyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		c, err := w.front.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		begin := time.Now()
		go func() {
			fmt.Fprintf(c, "%sContent-Length: 100000\r\n\r\n", rawPost)
			for {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil) //nolint:bodyclose // the connection is closed
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); resp.StatusCode != 408 && resp.StatusCode != 504 || took > 125*time.Second {
			t.Errorf("%d after %v", resp.StatusCode, took)
		}
		time.Sleep(time.Minute)
		w.settled()
	})
}

// covers RES-04: answers count as held memory; where there is no room, they are
// passed on as they come.
func TestAnswersCountAsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Replace(answerJSON, "hi", strings.Repeat("x", 40<<10), 1)
		release := make(chan struct{})
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, long[:30<<10])
			_ = http.NewResponseController(rw).Flush()
			<-release
			_, _ = io.WriteString(rw, long[30<<10:])
		}, nil, func(s *Snapshot) { s.Settings.MaxMemory = 64 << 10 })
		done := make(chan outcome, 4)
		for range 4 {
			go func() { done <- w.chat(hello) }()
		}
		synctest.Wait()
		if held := w.p.memory.used.Load(); held < 32<<10 || held > 64<<10 {
			t.Errorf("%d bytes are held", held)
		}
		close(release)
		for range 4 {
			if o := <-done; o.status != 200 || o.body != long || o.err != nil {
				t.Errorf("%d, %d bytes, %v", o.status, len(o.body), o.err)
			}
		}
		if got := w.metric("tokens_total", "kind", "output"); got != 4*4 {
			t.Errorf("%v output tokens, want those that the provider reported", got)
		}
		synctest.Wait()
		w.settled()
	})
}

// writes hijacks the connection and writes to it until it breaks.
func writes(begin string, more func(i int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, err = io.WriteString(c, begin)
		for i := 0; err == nil; i++ {
			_, err = io.WriteString(c, more(i))
		}
	}
}

// covers UP-07, RES-04: an upstream that never comes to an end is left, and nothing
// stays behind.
func TestUpstreamThatNeverEnds(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: "
	block := strings.Repeat("x", 32<<10)
	for _, c := range []struct {
		name, body string
		up         http.HandlerFunc
		status     int
		code       string
	}{
		{"headers", hello, writes("HTTP/1.1 200 OK\r\n", func(i int) string { return fmt.Sprintf("X-%d: %s\r\n", i, block) }), 502, "upstream_reset"},
		{"one header", hello, writes("HTTP/1.1 200 OK\r\nX: ", func(int) string { return block }), 502, "upstream_reset"},
		{"answers before the answer", hello, writes("", func(int) string { return "HTTP/1.1 103 Early Hints\r\nX: " + block + "\r\n\r\n" }), 502, "upstream_reset"},
		{"an upgrade", hello, writes("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", func(int) string { return block }), 502, "upstream_protocol"},
		{"no HTTP", hello, writes("", func(int) string { return block }), 502, "upstream_reset"},
		{"an error", hello, writes("HTTP/1.1 404 Not Found\r\n\r\n", func(int) string { return block }), 404, "status_404"},
		{"a first event", helloStream, writes(ok+"text/event-stream\r\n\r\ndata: ", func(int) string { time.Sleep(time.Second); return block }), 200, ""},
		{"comments", helloStream, writes(ok+"text/event-stream\r\n\r\n", func(int) string { time.Sleep(time.Second); return ": x\n\n" }), 504, "first_token_timeout"},
		{"comments after the first event", helloStream, writes(ok+"text/event-stream\r\n\r\n"+chunk("a"), func(int) string { time.Sleep(time.Second); return ": x\n\n" }), 200, "total_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
				o := w.chat(c.body)
				if o.status != c.status || c.code != "" && !strings.Contains(o.body, c.code) && o.status != 404 || o.took > 121*time.Second {
					t.Errorf("%d %.300q, %v after %v", o.status, o.body, o.err, o.took)
				}
				if o.status == 200 && o.err == nil {
					t.Error("the answer looks whole")
				}
				if len(o.body) > 8<<20 {
					t.Errorf("%d bytes came", len(o.body))
				}
				time.Sleep(time.Minute)
				w.settled()
			})
		})
	}
}

// covers UP-03, CL-07: what an upstream says of waiting reaches the client only as
// it was understood, and each 503 says when to come again.
func TestStatedWaitsAreBounded(t *testing.T) {
	for _, c := range []struct {
		status int
		stated string
		want   string
	}{
		{500, "99999999999", "3600"}, {500, "garbage", ""}, {500, "-1", ""}, {500, "2.5", "3"}, {404, "1e300", "3600"}, {503, "", "1"}, {503, "-1", "1"}, {503, "7", "7"},
	} {
		t.Run(fmt.Sprint(c.status, " ", c.stated), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sends(c.status, `{"error":{"message":"no","type":"t","param":null,"code":"c"}}`, "Retry-After", c.stated, "Retry-After-Ms", "x"), nil,
					func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
				o := w.chat(hello)
				if o.status != c.status || o.header.Get("Retry-After") != c.want {
					t.Errorf("%d, Retry-After %q, want %q", o.status, o.header.Get("Retry-After"), c.want)
				}
			})
		})
	}
}
