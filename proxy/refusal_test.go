package proxy

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
)

// covers CL-08: a full queue is 429 at once, waiting too long is 429, a request
// whose time is up is never sent, and the gauges return to 0.
func TestQueueRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, hangs), nil, func(s *Snapshot) { s.Upstreams["a"].Timeouts.Headers = 50 * time.Second })
		cfg := queueConfig()
		cfg.PerTeam, cfg.MaxWait[limits.Default] = 12, 30*time.Second // 10 for one key
		w.p.queue.Configure(cfg)
		w.limit(limits.Concurrency, 1, 0)
		var wg sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 20 {
			wg.Go(func() {
				o := w.chat(hello, "X-Stainless-Timeout", "40")
				mu.Lock()
				defer mu.Unlock()
				codes[o.code()]++
				after, _ := strconv.Atoi(o.header.Get("Retry-After"))
				switch o.code() {
				case "queue_full":
					if o.status != 429 || o.took != 0 || after < 1 {
						t.Errorf("full: %d after %v, Retry-After %d", o.status, o.took, after)
					}
				case "queue_timeout":
					if o.status != 429 || o.took != 30*time.Second || after < 1 {
						t.Errorf("too long: %d after %v, Retry-After %d", o.status, o.took, after)
					}
				}
			})
		}
		time.Sleep(10 * time.Second)
		if depth, oldest := w.metric("queue_depth"), w.metric("queue_oldest_seconds"); depth != 10 || oldest != 10 {
			t.Errorf("depth %v, oldest %v s", depth, oldest)
		}
		wg.Wait()
		synctest.Wait()
		if codes["queue_full"] != 9 || codes["queue_timeout"] != 10 || hits != 1 {
			t.Errorf("%v, %d requests reached the upstream", codes, hits)
		}
		if w.metric("queue_depth") != 0 || w.metric("queue_oldest_seconds") != 0 || w.metric("requests_in_flight") != 0 {
			t.Error("a gauge did not return to 0")
		}
		w.settled()
	})
}

// covers CL-02: a client that closes just after the last byte was served.
func TestClientClosesAfterTheLastByte(t *testing.T) {
	for name, c := range map[string]struct {
		up   http.HandlerFunc
		body string
	}{
		"stream": {streams(chunk("a"), finishChunk, doneChunk, time.Second), helloStream},
		"JSON":   {sends(200, answerJSON), hello},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil)
				resp, err := w.client.Do(w.request("POST", "/v1/chat/completions", c.body))
				if err != nil {
					t.Fatal(err)
				}
				if c.body == helloStream {
					r := bufio.NewReader(resp.Body)
					for readEvent(t, r) != doneChunk {
					}
				} else if _, err := io.ReadFull(resp.Body, make([]byte, len(answerJSON))); err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				time.Sleep(5 * time.Second)
				if w.metric("requests_total", "outcome", "ok") != 1 || w.metric("requests_total") != 1 {
					t.Errorf("log: %s", w.logs)
				}
				w.settled()
			})
		})
	}
}

// covers UP-04: what is the client's doing, or the gateway's own, neither opens the
// breaker nor sticks in it.
func TestBreakerCountsOnlyTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var up http.HandlerFunc
		use := func(h http.HandlerFunc) {
			mu.Lock()
			defer mu.Unlock()
			up = h
		}
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			h := up
			mu.Unlock()
			h(rw, r)
		}, nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
		leave := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w.do(w.request("POST", "/v1/chat/completions", hello).WithContext(ctx))
			synctest.Wait() // until the gateway has noticed, too
		}
		for _, status := range []int{400, 404, 409, 413, 422, 429, 501} {
			use(sends(status, `{"error":{"message":"no"}}`))
			for range 30 {
				w.chat(hello)
			}
		}
		use(hangs)
		for range 30 {
			leave()
			w.chat(`{"model":"m"`)
			w.chat(hello, "X-Stainless-Timeout", "0.5")
		}
		if w.metric("breaker_state") != 0 || w.metric("breaker_transitions_total") != 0 {
			t.Error("the breaker was fooled")
		}
		use(sends(500, `{}`))
		for range 5 {
			w.chat(hello)
		}
		if w.metric("breaker_state", "upstream", "a") != 2 {
			t.Errorf("state %v after five faults, want 2 (open)", w.metric("breaker_state"))
		}
		time.Sleep(w.p.breakers.Left("a/m"))
		use(hangs)
		for range 10 {
			leave() // each is the probe, and gives its place back
		}
		use(sends(200, answerJSON))
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("the breaker stuck: %d %s", o.status, o.body)
		}
		synctest.Wait()
		w.settled()
	})
}

// covers UP-05: state and transitions are metrics.
func TestBreakerMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(200, answerJSON)), nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
		for range 5 {
			w.chat(hello)
		}
		if w.metric("breaker_state", "upstream", "a", "model", "m") != 2 {
			t.Errorf("state %v", w.metric("breaker_state"))
		}
		time.Sleep(w.p.breakers.Left("a/m"))
		w.chat(hello)
		if w.metric("breaker_state", "upstream", "a", "model", "m") != 0 {
			t.Errorf("state %v", w.metric("breaker_state"))
		}
	})
}

// covers UP-01: a chunked answer that is reset is not whole, whatever its kind.
func TestCutChunksAreNotAnAnswer(t *testing.T) {
	cut := func(kind string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(rw, answerJSON[:40])
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(cut("application/json"), sends(200, answerJSON)), nil)
		if o := w.chat(hello); o.status != 200 || o.body != answerJSON || o.header.Get("X-Penstock-Attempts") != "2" {
			t.Errorf("JSON: %d %q", o.status, o.body)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cut("audio/mpeg"), nil)
		o := w.do(w.request("POST", "/v1/audio/speech", `{"model":"m","input":"x","voice":"y"}`))
		if o.err == nil || o.body != answerJSON[:40] {
			t.Errorf("audio: %d %q, %v", o.status, o.body, o.err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cut("application/json"), nil)
		if o := w.chat(hello); o.status != 502 || o.code() != "upstream_truncated" || strings.Contains(o.body, "choices") {
			t.Errorf("JSON three times: %d %q", o.status, o.body)
		}
	})
}

// covers LIM-07: who goes by the message and not by the header does not come too early.
func TestMessagesRoundWaitsUp(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2*time.Millisecond + 1:    "3ms",
		time.Second:               "1s",
		10049 * time.Millisecond:  "10.1s",
		61200 * time.Millisecond:  "1m2s",
		4*time.Hour + time.Minute: "4h1m0s",
	} {
		if got := again(d); got != "Please try again in "+want+"." {
			t.Errorf("%v: %s", d, got)
		}
	}
}

// A request may lower its class, and not raise it; a class that there is not is told.
func TestClassByHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		for asked, want := range map[string]string{"": "default", "batch": "batch", "default": "default", "interactive": "default"} {
			o := w.chat(hello, "X-Penstock-Class", asked)
			if e := w.explained(o); o.status != 200 || e.Class != want {
				t.Errorf("%q: %d, class %q, want %s", asked, o.status, e.Class, want)
			}
		}
		for _, asked := range []string{"bacth", "Batch", "vip"} {
			if o := w.chat(hello, "X-Penstock-Class", asked); o.status != 400 || o.code() != "invalid_value" || !strings.Contains(o.body, "x-penstock-class") {
				t.Errorf("%q: %d %s", asked, o.status, o.body)
			}
		}
		w.settled()
	})
}

// covers LIM-07: a client that says how long it waits hears of a refusal before that.
func TestRefusalsReachClientsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hangs, nil)
		w.limit(limits.Concurrency, 1, 0)
		var wg sync.WaitGroup
		wg.Go(func() { w.chat(hello) })
		synctest.Wait()
		if o := w.chat(hello, "X-Stainless-Timeout", "5"); o.code() != "queue_timeout" || o.took != 4750*time.Millisecond {
			t.Errorf("%s after %v, want queue_timeout a quarter of a second before the client leaves", o.code(), o.took)
		}
		wg.Wait()
	})
}
