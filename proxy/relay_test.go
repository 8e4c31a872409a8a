package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
)

func TestStreamPassesByteForByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent string
		up := func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			sent = string(b)
			streams(": hello\n\n", chunk("a"), "data:  odd   spacing {\"x\": 1e5}\r\n\r\n", "event: x\ndata: {\"big\":12345678901234567890}\n\n", finishChunk, usageChunk, doneChunk)(w, r)
		}
		w := newWorld(t, up, nil)
		body := `{"model":"m", "stream" : true,"zzz":12345678901234567890,"é":"ü","messages":[{"role":"user","content":"x"}],"stream_options":{"include_usage":true}}`
		o := w.chat(body)
		want := ": hello\n\n" + chunk("a") + "data:  odd   spacing {\"x\": 1e5}\r\n\r\n" + "event: x\ndata: {\"big\":12345678901234567890}\n\n" + finishChunk + usageChunk + doneChunk
		if o.status != 200 || o.body != want || o.err != nil {
			t.Errorf("got %d %v\n%q\nwant\n%q", o.status, o.err, o.body, want)
		}
		if sent != body {
			t.Errorf("the upstream got\n%s\nwant\n%s", sent, body)
		}
		for name, want := range map[string]string{"X-Accel-Buffering": "no", "Cache-Control": "no-cache, no-transform", "X-Penstock-Upstream": "a", "X-Penstock-Attempts": "1"} {
			if got := o.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.HasPrefix(o.header.Get("Server-Timing"), "queue;dur=") || o.header.Get("X-Request-Id") == "" {
			t.Errorf("headers %v", o.header)
		}
		w.settled()
	})
}

// covers CL-03: usage is asked for on every stream, and its event dropped if the
// client did not ask.
func TestUsageChunkIsStrippedUnlessAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent string
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			sent = string(b)
			streams(chunk("a")+finishChunk[:20], finishChunk[20:]+usageChunk+doneChunk[:3], doneChunk[3:])(rw, r)
		}, nil)
		bucket := w.limit(limits.Tokens, 10_000, 24*time.Hour)
		o := w.chat(helloStream)
		if o.body != chunk("a")+finishChunk+doneChunk {
			t.Errorf("got %q", o.body)
		}
		if !strings.Contains(sent, `"stream_options":{"include_usage":true}`) {
			t.Errorf("usage was not asked for: %s", sent)
		}
		if got := w.remaining(bucket); got != 10_000-11 {
			t.Errorf("%d tokens charged, want the 11 that the provider reported", 10_000-got)
		}
		if w.metric("tokens_total", "kind", "output") != 2 {
			t.Error("tokens are not in the metrics")
		}
	})
}

// covers UP-01
func TestCutStreamNeverLooksWhole(t *testing.T) {
	reset := errors.New("reset")
	for name, parts := range map[string][]any{
		"clean end without a terminal event": {chunk("a"), chunk("b")},
		"reset":                              {chunk("a"), chunk("b"), reset},
		"reset in the middle of an event":    {chunk("a"), chunk("b") + "data: {\"id\"", reset},
		"silence":                            {chunk("a"), chunk("b"), time.Minute, doneChunk},
		"finished, then reset":               {chunk("a"), chunk("b"), finishChunk, reset},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, streams(parts...), nil)
				bucket := w.limit(limits.Tokens, 10_000, 24*time.Hour)
				o := w.chat(helloStream)
				if !strings.HasPrefix(o.body, chunk("a")+chunk("b")) {
					t.Errorf("what had arrived was not delivered first: %q", o.body)
				}
				if !strings.Contains(o.body, `data: {"error":{"`) || strings.Contains(o.body, "[DONE]") {
					t.Errorf("the cut is not told: %q", o.body)
				}
				if o.err == nil {
					t.Error("the connection was ended properly")
				}
				if name == "silence" && !strings.Contains(o.body, "idle_timeout") {
					t.Errorf("the silence is not named: %q", o.body)
				}
				synctest.Wait()
				w.settled()
				if used := 10_000 - w.remaining(bucket); used < 6 || used > 110 {
					t.Errorf("%d tokens charged; want the prompt and what was delivered", used)
				}
				if w.metric("streams_total", "end", "truncated") != 1 || w.metric("estimated_requests_total") != 1 {
					t.Error("the metrics do not tell of it")
				}
			})
		})
	}
}

// An error that the upstream itself puts into its stream reaches the client once, as
// it is, and counts.
func TestUpstreamsOwnErrorMidStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n"
		w := newWorld(t, streams(chunk("a"), said, doneChunk), nil)
		for range 5 {
			if o := w.chat(helloStream); o.status != 200 || o.body != chunk("a")+said+doneChunk || o.err != nil {
				t.Fatalf("got %d %v %q", o.status, o.err, o.body)
			}
		}
		if w.metric("requests_total", "outcome", "upstream_error") != 5 || w.metric("attempts_total", "result", "broken") != 5 {
			t.Error("the failures were not counted")
		}
		w.settled()
	})
}

// An upstream that answers with a page fails over, and a client never sees it.
func TestPageInPlaceOfAnAnswerFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, "<h1>Log in</h1>", "Content-Type", "text/html"), sends(200, answerJSON))
		if o := w.chat(strings.Replace(hello, `"m"`, `"both"`, 1)); o.status != 200 || o.body != answerJSON {
			t.Errorf("got %d %q", o.status, o.body)
		}
		if o := w.chat(hello); o.status != 502 || o.code() != "upstream_not_json" {
			t.Errorf("got %d %q", o.status, o.body)
		}
		w.settled()
	})
}

// What an upstream sends bit by bit is passed on bit by bit, also where it is no
// event stream.
func TestSpeechPassesAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("Content-Type", "audio/mpeg")
			_, _ = io.WriteString(rw, "first")
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(3 * time.Second)
			_, _ = io.WriteString(rw, "second")
		}, nil)
		begin := time.Now()
		resp, err := w.client.Do(w.request("POST", "/v1/audio/speech", `{"model":"m","input":"x","voice":"y"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, b); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%q after %v, %v", b, time.Since(begin), err)
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
			t.Errorf("%q %v", rest, err)
		}
	})
}

// covers UP-01
func TestTruncationBeforeTheFirstByteIsRetried(t *testing.T) {
	short := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "500")
		_, _ = io.WriteString(w, `{"id":"1","choices":[`)
		panic(http.ErrAbortHandler)
	}
	for name, c := range map[string]struct {
		first http.HandlerFunc
		body  string
		want  string
	}{
		"JSON short of its length":    {short, hello, answerJSON},
		"stream without any event":    {streams(": only a comment\n\n"), helloStream, chunk("a") + finishChunk + doneChunk},
		"error as the first event":    {streams("data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\",\"code\":null}}\n\n"), helloStream, chunk("a") + finishChunk + doneChunk},
		"error behind a 200":          {sends(200, `{"error":{"message":"boom","code":502}}`), hello, answerJSON},
		"reset before the first byte": {resets, hello, answerJSON},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := sends(200, answerJSON)
				if c.body == helloStream {
					good = streams(chunk("a"), finishChunk, doneChunk)
				}
				w := newWorld(t, inTurn(c.first, good), nil)
				o := w.chat(c.body)
				if o.status != 200 || o.body != c.want || o.err != nil || o.header.Get("X-Penstock-Attempts") != "2" {
					t.Errorf("got %d %q %v after %s attempts", o.status, o.body, o.err, o.header.Get("X-Penstock-Attempts"))
				}
				w.settled()
			})
		})
	}
}

// covers UP-01
func TestLargeAnswerCutShortBreaksTheConnectionOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.Header().Set("Content-Length", "300000")
			_, _ = rw.Write(make([]byte, 200_000))
			panic(http.ErrAbortHandler)
		}, nil)
		o := w.chat(hello)
		if o.status != 200 || o.err == nil || len(o.body) < 60_000 {
			t.Errorf("got %d, %d bytes, %v", o.status, len(o.body), o.err)
		}
		synctest.Wait()
		w.settled()
	})
}

// covers CL-01, CL-02, CL-03, UP-04
func TestClientLeaves(t *testing.T) {
	for name, up := range map[string]http.HandlerFunc{
		"waiting for the first byte": hangs,
		"mid-stream":                 streams(chunk("a"), time.Hour),
		"before the first event":     streams(time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gone := make(chan time.Time, 10)
				w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
					up(rw, r)
					gone <- time.Now()
				}, nil)
				slots := w.limit(limits.Concurrency, 1, 0)
				bucket := w.limit(limits.Tokens, 10_000, 240*time.Hour)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					time.Sleep(time.Second)
					cancel()
				}()
				begin := time.Now()
				w.do(w.request("POST", "/v1/chat/completions", helloStream).WithContext(ctx))
				if at := <-gone; at.Sub(begin) > 2*time.Second {
					t.Errorf("the upstream was let go after %v", at.Sub(begin))
				}
				synctest.Wait()
				w.settled()
				if w.remaining(slots) != 1 {
					t.Error("the slot did not come back")
				}
				used := 10_000 - w.remaining(bucket)
				if strings.HasPrefix(name, "mid") && (used < 6 || used > 30) {
					t.Errorf("%d tokens charged; want the prompt and what was delivered", used)
				}
				if w.metric("requests_total", "outcome", "client_closed") != 1 || w.metric("attempts_total", "result", "health") != 0 {
					t.Error("the abort was counted as something else")
				}
				if strings.Contains(w.logs.String(), `"level":"ERROR"`) || !strings.Contains(w.logs.String(), `"status":499`) {
					t.Errorf("log: %s", w.logs)
				}
				if w.p.breakers.Left("a/m") != 0 {
					t.Error("the breaker was fooled")
				}
			})
		})
	}
}

// covers CL-01, CL-08
func TestClientLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, hangs), nil)
		w.limit(limits.Concurrency, 1, 0)
		first, stop := context.WithCancel(t.Context())
		go w.do(w.request("POST", "/v1/chat/completions", hello).WithContext(first))
		synctest.Wait()
		second, leave := context.WithTimeout(t.Context(), 2*time.Second)
		defer leave()
		w.do(w.request("POST", "/v1/chat/completions", hello).WithContext(second))
		synctest.Wait() // until the server knows that it has left
		stop()
		synctest.Wait()
		w.settled()
		if hits != 1 {
			t.Errorf("%d requests reached the upstream", hits)
		}
	})
}

func TestDrainReadsOnForTheTrueUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, streams(chunk("a"), 3*time.Second, chunk("b"), finishChunk, usageChunk, doneChunk), nil, func(s *Snapshot) { s.Settings.Drain = 10 * time.Second })
		bucket := w.limit(limits.Tokens, 10_000, 240*time.Hour)
		resp, err := w.client.Do(w.request("POST", "/v1/chat/completions", helloStream))
		if err != nil {
			t.Fatal(err)
		}
		readEvent(t, bufio.NewReader(resp.Body))
		resp.Body.Close()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.settled()
		if used := 10_000 - w.remaining(bucket); used != 11 {
			t.Errorf("%d tokens charged, want the 11 that the provider reported", used)
		}
	})
}

func TestKeepaliveWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, streams(25*time.Second, chunk("a"), finishChunk, doneChunk), nil, func(s *Snapshot) {
			s.Settings.Keepalive = 10 * time.Second
			s.Upstreams["a"].Timeouts.FirstToken = time.Minute
		})
		w.limit(limits.Concurrency, 1, 0)
		first := make(chan outcome)
		go func() { first <- w.chat(helloStream) }()
		synctest.Wait()
		o := w.chat(helloStream)
		<-first
		comments := strings.Count(o.body, ": keepalive\n\n")
		if o.status != 200 || comments < 4 || !strings.HasSuffix(o.body, chunk("a")+finishChunk+doneChunk) || o.err != nil {
			t.Errorf("got %d %v %q", o.status, o.err, o.body)
		}
		w.settled()
	})
}

// Where comments have begun a stream, an answer that is none is an error in it.
func TestNoStreamAfterKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(25 * time.Second)
			sends(200, answerJSON)(rw, r)
		}
		w := newWorld(t, inTurn(slow, sends(200, answerJSON)), nil, func(s *Snapshot) {
			s.Settings.Keepalive = 10 * time.Second
			s.Upstreams["a"].Timeouts = Timeouts{Headers: time.Minute, FirstToken: time.Minute, Total: 2 * time.Minute}
		})
		w.limit(limits.Concurrency, 1, 0)
		done := make(chan outcome)
		go func() { done <- w.chat(helloStream) }()
		synctest.Wait()
		o := w.chat(helloStream)
		<-done
		if o.status != 200 || !strings.Contains(o.body, `data: {"error":{`) || !strings.Contains(o.body, "upstream_protocol") || strings.Contains(o.body, "chat.completion") {
			t.Errorf("got %d %q", o.status, o.body)
		}
		w.settled()
	})
}

func TestErrorAfterKeepaliveTravelsInBand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(streams(25*time.Second, chunk("a"), finishChunk, doneChunk), sends(400, `{"error":{"message":"no"}}`)), nil, func(s *Snapshot) {
			s.Settings.Keepalive = 10 * time.Second
			s.Upstreams["a"].Timeouts.FirstToken = time.Minute
		})
		w.limit(limits.Concurrency, 1, 0)
		done := make(chan outcome)
		go func() { done <- w.chat(helloStream) }()
		synctest.Wait()
		o := w.chat(helloStream)
		<-done
		if o.status != 200 || !strings.Contains(o.body, `data: {"error":{`) || strings.Contains(o.body, "[DONE]") {
			t.Errorf("got %d %q", o.status, o.body)
		}
		if e := w.explained(o); e.Status != 200 {
			t.Errorf("the record says status %d, and the client got 200", e.Status)
		}
	})
}
