package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
)

// charged is what a request took of limits on requests and tokens, at the team and
// at the upstream.
type charged struct{ teamRequests, teamTokens, requests, tokens int64 }

const day = 24 * time.Hour

// accounts sets limits so wide that nothing is earned back while a test runs, and
// returns a function that reads what was charged.
func (w *world) accounts() func() charged {
	w.teamLimit(limits.Requests, 1000, 31*day)
	tr := w.s.Teams["search"].Limits[0]
	tt := w.teamLimit(limits.Tokens, 10_000, 31*day)
	r, tok := w.limit(limits.Requests, 1000, 31*day), w.limit(limits.Tokens, 10_000, 31*day)
	return func() charged {
		return charged{1000 - w.remaining(tr), 10_000 - w.remaining(tt), 1000 - w.remaining(r), 10_000 - w.remaining(tok)}
	}
}

// covers CL-03, LIM-02, LIM-03: whoever leaves before the answer begins, or is
// answered that the request was wrong, has used a request, and the prompt where the
// provider was at work on it. What is not the caller's doing costs it nothing.
func TestWhatUnansweredRequestsCost(t *testing.T) {
	leave := func(after time.Duration) func(*world) outcome {
		return func(w *world) outcome {
			ctx, cancel := context.WithTimeout(w.t.Context(), after)
			defer cancel()
			return w.do(w.request("POST", "/v1/chat/completions", helloStream).WithContext(ctx))
		}
	}
	plain := func(w *world) outcome { return w.chat(hello) }
	prompt := int64(len("hello there, gateway")+len("user")) / 4
	for _, c := range []struct {
		name string
		up   http.HandlerFunc
		ask  func(*world) outcome
		want charged
	}{
		{"left before the headers", hangs, leave(time.Second), charged{1, prompt, 1, prompt}},
		{"left before the first event", streams(time.Hour), leave(time.Second), charged{1, prompt, 1, prompt}},
		{"left mid-stream", streams(chunk("abcdefgh"), time.Hour), leave(time.Second), charged{1, prompt + 2, 1, prompt + 2}},
		{"time limit of the gateway", hangs, plain, charged{1, prompt, 3, 3 * prompt}},
		{"a request that is wrong", sends(400, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`), plain, charged{1, 0, 1, 0}},
		{"an upstream that fails", sends(500, `{}`), plain, charged{0, 0, 3, 0}},
		{"an upstream that refuses", sends(429, `{}`), plain, charged{0, 0, 3, 0}},
		{"an upstream that is away", nil, plain, charged{0, 0, 0, 0}},
		{"a stream without usage", streams(chunk("abcdefgh"), finishChunk, doneChunk), func(w *world) outcome { return w.chat(helloStream) }, charged{1, prompt + 2, 1, prompt + 2}},
		{"an answer without usage", sends(200, `{"object":"chat.completion","choices":[]}`), plain, charged{1, prompt + 11, 1, prompt + 11}},
		{"usage that is made up", sends(200, `{"object":"chat.completion","usage":{"prompt_tokens":-5,"completion_tokens":-7}}`), plain, charged{1, prompt + 20, 1, prompt + 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil)
				got := w.accounts()
				c.ask(w)
				synctest.Wait()
				w.settled()
				if got() != c.want {
					t.Errorf("charged %+v, want %+v", got(), c.want)
				}
			})
		})
	}
}

// covers LIM-02: what goes on in the background is not free because its answer says
// nothing of its usage.
func TestBackgroundWorkIsCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, `{"id":"resp_1","object":"response","status":"queued","background":true,"output":[],"usage":null}`), nil)
		spent := w.accounts()
		body := `{"model":"m","input":"hello there","background":true,"max_output_tokens":70}`
		if o := w.do(w.request("POST", "/v1/responses", body)); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		synctest.Wait()
		if got := spent(); got.teamTokens < 70 || got.tokens < 70 || got.teamRequests != 1 {
			t.Errorf("charged %+v, want all that was reserved", got)
		}
	})
}

// covers LIM-02: what is kept of the reservation follows what the provider counts.
func TestOutputIsChargedAsTheProviderCounts(t *testing.T) {
	for count, want := range map[OutputCount]int64{CountActual: 13, CountAuto: 13, CountReserved: 13, CountMaxTokens: 9 + 700*2} {
		t.Run(string(count), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w *world
				var tokens *limits.Limit
				during := int64(0)
				w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
					during = 10_000 - w.remaining(tokens)
					sends(200, answerJSON)(rw, r)
				}, nil, func(s *Snapshot) { s.Upstreams["a"].Output = count })
				spent := w.accounts()
				tokens = w.s.Upstreams["a"].Limits[1]
				if o := w.chat(strings.TrimSuffix(hello, "}") + `,"max_tokens":700,"n":2}`); o.status != 200 {
					t.Fatalf("%d %s", o.status, o.body)
				}
				synctest.Wait()
				if got := spent(); got.tokens != want || got.teamTokens != 13 {
					t.Errorf("charged %+v, want %d at the upstream and 13 at the team", got, want)
				}
				if maxima := count == CountReserved || count == CountMaxTokens; maxima != (during == 6+700*2) {
					t.Errorf("%d were reserved", during)
				}
			})
		})
	}
}

// A provider that reports absurd usage does not lock a team out for ever.
func TestAbsurdUsageIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, `{"object":"chat.completion","usage":{"prompt_tokens":9e99,"completion_tokens":9223372036854775807}}`), nil)
		l := w.teamLimit(limits.Tokens, 1_000_000, time.Minute)
		w.chat(hello)
		time.Sleep(201 * time.Minute)
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("%d, %d left", o.status, w.remaining(l))
		}
	})
}

// covers LIM-03, LIFE-06: a panic in the middle of an answer charges what had been
// used, and aborts the connection.
func TestPanicMidStreamIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil, func(s *Snapshot) { s.Upstreams["a"].Transport = panicsLater{} })
		got := w.accounts()
		slots := w.limit(limits.Concurrency, 1, 0)
		for i := range 3 {
			o := w.chat(helloStream)
			if o.status != 200 || o.err == nil || !strings.HasPrefix(o.body, chunk("abcdefgh")) || strings.Contains(o.body, "[DONE]") {
				t.Errorf("%d %q %v", o.status, o.body, o.err)
			}
			synctest.Wait()
			n, each := int64(i+1), int64(6+2)
			if got() != (charged{n, n * each, n, n * each}) || w.remaining(slots) != 1 {
				t.Errorf("charged %+v after %d, %d slots", got(), n, w.remaining(slots))
			}
		}
		if w.metric("panics_total") != 3 || strings.Contains(w.logs.String(), "secret") || strings.Count(w.logs.String(), `"stack"`) != 3 {
			t.Errorf("%v panics\n%s", w.metric("panics_total"), w.logs)
		}
		w.settled()
	})
}

type panicsLater struct{}

func (panicsLater) RoundTrip(r *http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader(chunk("abcdefgh")), panicsOnRead{})
	return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(body)}, nil
}

type panicsOnRead struct{}

func (panicsOnRead) Read([]byte) (int, error) { panic(errors.New("secret of a prompt")) }

// covers LIM-01: aborts in any phase neither lend a slot twice nor lose one.
func TestAbortsLoseNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		inFlight, peak := 0, 0
		var w *world
		var slots *limits.Limit
		w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			inFlight++
			peak = max(peak, inFlight)
			if free := w.remaining(slots); free < 0 {
				t.Errorf("%d slots free", free)
			}
			mu.Unlock()
			streams(100*time.Millisecond, chunk("a"), 100*time.Millisecond, finishChunk, doneChunk)(rw, r)
			mu.Lock()
			inFlight--
			mu.Unlock()
		}, nil)
		slots = w.limit(limits.Concurrency, 5, 0)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*7)*time.Millisecond)
				defer cancel()
				w.do(w.request("POST", "/v1/chat/completions", helloStream).WithContext(ctx))
			})
		}
		wg.Wait()
		synctest.Wait()
		w.settled()
		if w.remaining(slots) != 5 {
			t.Fatalf("%d slots free", w.remaining(slots))
		}
		peak = 0 // until here a provider may have seen a hang-up later than the gateway did
		begin := time.Now()
		for range 50 {
			wg.Go(func() {
				if o := w.chat(helloStream); o.status != 200 || o.err != nil {
					t.Errorf("%d %v", o.status, o.err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); peak != 5 || took > 2100*time.Millisecond {
			t.Errorf("peak %d in flight, took %v; want all of 5 and 2 s", peak, took)
		}
	})
}
