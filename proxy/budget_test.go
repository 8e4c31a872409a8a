package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/usage"
)

// The models of these tests cost 1 millionth of a dollar for an input token and 10
// for an output token. The world predicts 100 tokens of output at first.
var testPrices = map[string]usage.Model{
	"m": {{Input: 1e6, Output: 10e6, Cached: 1e6, Write: 1e6}}, "b/*": {{Input: 2e6, Output: 20e6, Cached: 2e6, Write: 2e6}},
	"image-model": {{Request: 500}},
}

const promptTokens = int64(len("hello there, gateway")+len("user")) / 4

// rows is a ledger that keeps its rows.
type rows struct {
	sync.Mutex
	all []usage.Row
}

func (l *rows) Record(r *usage.Row) {
	l.Lock()
	defer l.Unlock()
	l.all = append(l.all, *r)
}

// last is the row of the last request, with what it costs in millionths.
func (l *rows) last(t *testing.T) (usage.Row, int64) {
	t.Helper()
	synctest.Wait()
	l.Lock()
	defer l.Unlock()
	if len(l.all) == 0 {
		t.Fatal("no row")
	}
	r := l.all[len(l.all)-1]
	return r, r.Nano / 1000
}

// budgetWorld is a world whose team has a monthly budget in millionths of a dollar.
func budgetWorld(t *testing.T, micro int64, a, b http.HandlerFunc, change ...func(*Snapshot)) (*world, *limits.Limit, *rows) {
	t.Helper()
	w := newWorld(t, a, b, append([]func(*Snapshot){func(s *Snapshot) { s.Prices = usage.New(testPrices) }}, change...)...)
	ledger := &rows{}
	w.p.ledger = ledger
	l := w.teamLimit(limits.Spend, micro, 0)
	l.Monthly = true
	return w, l, ledger
}

func withUsage(in, out int64) http.HandlerFunc {
	return sends(200, fmt.Sprintf(`{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`, in, out))
}

func TestBudgetIsReservedAndSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reserved := int64(0)
		var w *world
		var l *limits.Limit
		w, l, ledger := budgetWorld(t, 10_000, func(rw http.ResponseWriter, r *http.Request) {
			reserved = 10_000 - w.remaining(l)
			withUsage(9, 4)(rw, r)
		}, nil)
		if o := w.chat(hello); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		synctest.Wait()
		if reserved != promptTokens+10*100 || w.remaining(l) != 10_000-49 {
			t.Errorf("reserved %d, %d left", reserved, w.remaining(l))
		}
		row, micro := ledger.last(t)
		if micro != 49 || row.Unpriced || row.Team != "search" || row.Key != "prod" || row.Model != "m" || row.Label != "m" || row.Upstream != "a" ||
			row.Operation != "chat" || row.Status != 200 || row.Outcome != "ok" || row.Source != "provider" || row.Tokens.Output != 4 || row.Attempts != 1 || row.ID == "" {
			t.Errorf("row %+v", row)
		}
		if got := w.metric("cost_usd_total", "team", "search", "upstream", "a", "model", "m"); got != 49e-6 {
			t.Errorf("cost metric %v", got)
		}
		w.settled()
	})
}

// A ledgerFunc is a ledger that is a function.
type ledgerFunc func(*usage.Row)

func (f ledgerFunc) Record(r *usage.Row) { f(r) }

// A request is in flight until it is counted and recorded, so that nothing is missing of
// what is read once nothing is in flight.
func TestInFlightUntilRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := budgetWorld(t, 10_000, withUsage(9, 4), nil)
		inFlight, counted := -1.0, -1.0
		w.p.ledger = ledgerFunc(func(*usage.Row) {
			inFlight, counted = w.metric("requests_in_flight"), w.metric("requests_total", "outcome", "ok")
		})
		if o := w.chat(hello); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		synctest.Wait()
		if inFlight != 1 || counted != 1 || w.metric("requests_in_flight") != 0 {
			t.Errorf("%v in flight and %v counted while it is recorded, %v in flight at the end", inFlight, counted, w.metric("requests_in_flight"))
		}
	})
}

// A spent budget is told so that SDKs stop, and is whole again when its month ends.
func TestBudgetExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := budgetWorld(t, 2000, withUsage(500, 120), nil) // 1700 each
		if o := w.chat(hello); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		o := w.chat(hello)
		if o.status != 429 || o.code() != "budget_exceeded" || !strings.Contains(o.body, `"type":"insufficient_quota"`) ||
			!strings.Contains(o.body, "budget of $0.002 per month") || !strings.Contains(o.body, "quota") || !strings.Contains(o.body, "2000-02-01T00:00:00Z") {
			t.Errorf("%d %s", o.status, o.body)
		}
		// The bubble's clock begins at 2000-01-01.
		if h := o.header; h.Get("X-Should-Retry") != "false" || h.Get("Retry-After") != "2678400" {
			t.Errorf("headers %v", h)
		}
		if w.metric("limit_refusals_total", "dimension", "budget", "scope", "team") != 1 {
			t.Error("the refusal is not counted")
		}
		time.Sleep(31 * 24 * time.Hour)
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("in the next month: %d %s", o.status, o.body)
		}
	})
}

// covers LIM-07: of two limits that refuse, all that a client is told is about the one
// that holds it back for longer.
func TestTheLongestLimitIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, month, _ := budgetWorld(t, 2000, withUsage(500, 120), nil) // 1700 each
		day := *month
		day.ID, day.Amount, day.Burst, day.Window, day.Monthly = "team/search/budget/day", 1900, 1900, 24*time.Hour, false
		w.s.Teams["search"].Limits = append([]*limits.Limit{&day}, w.s.Teams["search"].Limits...)
		w.p.Swap(w.s)
		w.chat(hello)
		o := w.chat(hello)
		if o.status != 429 || o.header.Get("Retry-After") != "2678400" || !strings.Contains(o.body, "budget of $0.002 per month") || !strings.Contains(o.body, "2000-02-01T00:00:00Z") {
			t.Errorf("%d, Retry-After %s: %s", o.status, o.header.Get("Retry-After"), o.body)
		}
		if e, ok := w.p.Explain(o.header.Get("X-Penstock-Request-Id")); !ok || e.Refusal == nil || e.Refusal.Limit != month.ID {
			t.Errorf("explained as %+v", e.Refusal)
		}
		month.Amount, month.Burst = 1e9, 1e9
		o = w.chat(hello)
		if o.header.Get("Retry-After") != "86400" || !strings.Contains(o.body, "budget of $0.0019 per day") || !strings.Contains(o.body, "2000-01-02T00:00:00Z") {
			t.Errorf("with room in the month: Retry-After %s: %s", o.header.Get("Retry-After"), o.body)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the headers tell of it, too
		w := newWorld(t, sends(200, answerJSON), nil)
		second, hour := w.teamLimit(limits.Requests, 1, time.Second), w.teamLimit(limits.Requests, 5, time.Hour)
		second.ID += "/second"
		hour.ID += "/hour"
		hour.Burst = 2
		w.p.Swap(w.s)
		w.chat(hello)
		o := w.chat(hello)
		if o.header.Get("X-Ratelimit-Limit-Requests") != "1" || o.header.Get("Retry-After") != "1" || !strings.Contains(o.body, "1 requests per second") {
			t.Errorf("second: %v %s", o.header, o.body)
		}
		time.Sleep(time.Second)
		w.chat(hello)
		o = w.chat(hello)
		if o.header.Get("X-Ratelimit-Limit-Requests") != "5" || o.header.Get("X-Ratelimit-Remaining-Requests") != "0" || o.header.Get("Retry-After") != "719" || !strings.Contains(o.body, "5 requests per hour") {
			t.Errorf("hour: %v %s", o.header, o.body)
		}
	})
}

// covers LIM-08: a raised budget works at once.
func TestRaisedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l, _ := budgetWorld(t, 2000, withUsage(500, 120), nil)
		w.chat(hello)
		if o := w.chat(hello); o.code() != "budget_exceeded" {
			t.Fatalf("%d %s", o.status, o.body)
		}
		raised := *l
		raised.Amount, raised.Burst = 10_000, 10_000
		s := *w.s
		s.Teams = map[string]*Team{"search": {Name: "search", Weight: 1, Limits: []*limits.Limit{&raised}}}
		w.p.Swap(&s)
		if o := w.chat(hello); o.status != 200 || o.took != 0 {
			t.Errorf("%d %s", o.status, o.body)
		}
		if left := w.remaining(&raised); left != 10_000-2*1700 {
			t.Errorf("%d left: the level was lost", left)
		}
	})
}

// covers LIM-08: requests at once do not pass a budget that each alone would fit.
func TestBudgetBypassConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w, l, _ := budgetWorld(t, 5*(promptTokens+1000), counting(&hits, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			withUsage(promptTokens, 100)(rw, r)
		}), nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 200 {
			wg.Go(func() {
				o := w.chat(hello)
				mu.Lock()
				defer mu.Unlock()
				codes[o.code()]++
			})
		}
		wg.Wait()
		synctest.Wait()
		if hits != 5 || codes[""] != 5 || codes["budget_exceeded"] != 195 || w.remaining(l) != 0 {
			t.Errorf("%d reached the upstream, %v, %d left", hits, codes, w.remaining(l))
		}
	})
}

// Hanging up before the usage arrives is not free: what has passed is charged, and
// of an answer that is not streamed what it was predicted to be.
func TestBudgetBypassDisconnect(t *testing.T) {
	leave := func(w *world, body string, headers ...string) {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		w.do(w.request("POST", "/v1/chat/completions", body, headers...).WithContext(ctx))
	}
	whole := promptTokens + 10*100
	for name, c := range map[string]struct {
		up   http.HandlerFunc
		ask  func(*world)
		want int64
	}{
		"before the headers of a stream": {hangs, func(w *world) { leave(w, helloStream) }, promptTokens},
		"within a stream":                {streams(chunk("abcdefgh"), chunk("abcdefgh"), time.Hour), func(w *world) { leave(w, helloStream) }, promptTokens + 10*4},
		"before an answer":               {hangs, func(w *world) { leave(w, hello) }, whole},
		"by a time limit of its own":     {hangs, func(w *world) { w.chat(hello, "X-Stainless-Timeout", "1") }, whole},
		"just after the answer began":    {streams(chunk("abcd"), finishChunk, time.Hour), func(w *world) { leave(w, helloStream) }, promptTokens + 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, l, ledger := budgetWorld(t, 100_000, c.up, nil)
				c.ask(w)
				_, micro := ledger.last(t)
				if spent := 100_000 - w.remaining(l); spent != c.want || micro != c.want {
					t.Errorf("spent %d, the ledger says %d, want %d", spent, micro, c.want)
				}
				w.settled()
			})
		})
	}
}

// reservedBy is what a request reserves of a budget of a dollar, and its answer.
func reservedBy(t *testing.T, strict bool, path, body string) (micro int64, o outcome) {
	var w *world
	var l *limits.Limit
	w, l, _ = budgetWorld(t, 1_000_000, func(rw http.ResponseWriter, r *http.Request) {
		micro = 1_000_000 - w.remaining(l)
		withUsage(promptTokens, 1)(rw, r)
	}, nil)
	w.s.Teams["search"].Strict = strict
	o = w.do(w.request("POST", path, body))
	return micro, o
}

// The largest of all output limits counts, whatever else a request says.
func TestBudgetBypassOutputLimits(t *testing.T) {
	body := func(fields string) string {
		return strings.TrimSuffix(hello, "}") + "," + fields + "}"
	}
	for _, c := range []struct {
		name, fields string
		strict       bool
		output       int64 // reserved
	}{
		{"max_tokens 1 with a large max_completion_tokens", `"max_tokens":1,"max_completion_tokens":5000`, true, 5000},
		{"the same, predicted", `"max_tokens":1,"max_completion_tokens":5000`, false, 100},
		{"n 128", `"max_tokens":50,"n":128`, true, 50 * 128},
		{"n 128, predicted", `"n":128`, false, 100 * 128},
		{"n 128 with a small limit, predicted", `"max_tokens":50,"n":128`, false, 50 * 128},
		{"best_of", `"max_tokens":50,"best_of":20`, true, 50 * 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				micro, o := reservedBy(t, c.strict, "/v1/chat/completions", body(c.fields))
				if o.status != 200 || micro != promptTokens+10*c.output {
					t.Errorf("reserved %d, want %d; %d %s", micro, promptTokens+10*c.output, o.status, o.body)
				}
			})
		})
	}
}

// What is learned of one choice is not the prediction for many.
func TestBudgetBypassLearnedChoices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reserved int64
		var w *world
		var l *limits.Limit
		w, l, _ = budgetWorld(t, 1_000_000, func(rw http.ResponseWriter, r *http.Request) {
			reserved = 1_000_000 - w.remaining(l)
			withUsage(promptTokens, 2)(rw, r)
		}, nil)
		for range 50 {
			w.chat(hello)
		}
		before := 1_000_000 - w.remaining(l)
		w.chat(strings.TrimSuffix(hello, "}") + `,"n":128}`)
		if got := reserved - before; got != promptTokens+10*2*128 {
			t.Errorf("reserved %d for 128 choices of 2 tokens, want %d", got, promptTokens+10*2*128)
		}
	})
}

// Negative numbers, from the client or the provider, earn nothing.
func TestBudgetBypassNegative(t *testing.T) {
	for _, field := range []string{`"max_tokens":-100000`, `"max_completion_tokens":-1`, `"n":-128`, `"n":0`, `"max_tokens":1e300`, `"max_tokens":"9"`} {
		synctest.Test(t, func(t *testing.T) {
			hits := 0
			w, l, _ := budgetWorld(t, 100_000, counting(&hits, withUsage(1, 1)), nil)
			o := w.chat(strings.TrimSuffix(hello, "}") + "," + field + "}")
			if o.status != 400 || hits != 0 || w.remaining(l) != 100_000 {
				t.Errorf("%s: %d %s, %d left", field, o.status, o.body, w.remaining(l))
			}
		})
	}
	// What cannot be is no usage: these are charged by the estimate.
	for _, use := range []string{`{"prompt_tokens":-9,"completion_tokens":-9}`, `{"prompt_tokens":9,"completion_tokens":-4}`, `{"prompt_tokens":0,"completion_tokens":"?"}`} {
		synctest.Test(t, func(t *testing.T) {
			w, _, ledger := budgetWorld(t, 100_000, sends(200, `{"object":"chat.completion","choices":[],"usage":`+use+`}`), nil)
			w.chat(hello)
			synctest.Wait()
			if row, micro := ledger.last(t); row.Source != "estimated" || row.Tokens.Input == 0 || row.Tokens.Output < 20 || micro == 0 || w.metric("estimated_requests_total") != 1 {
				t.Errorf("%s: %+v", use, row)
			}
		})
	}
	for _, use := range []string{`{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":-900}}`,
		`{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":900}}`} {
		synctest.Test(t, func(t *testing.T) {
			w, l, _ := budgetWorld(t, 100_000, sends(200, `{"object":"chat.completion","choices":[],"usage":`+use+`}`), nil)
			w.chat(hello)
			synctest.Wait()
			if left := w.remaining(l); left >= 100_000 || left < 100_000-49 {
				t.Errorf("%s: %d left", use, left)
			}
		})
	}
}

// What a budget cannot count does not pass it: paths that are not known, stored
// work, models without a price, requests without a model.
func TestBudgetBypassPassthrough(t *testing.T) {
	image := `{"model":"image-model","prompt":"a cat","n":3}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		spent                    int64
	}{
		{"an unknown path", "POST", "/v1/new/thing", `{"model":"m"}`, 403, 0},
		{"a batch", "POST", "/v1/batches", `{"input_file_id":"f"}`, 403, 0},
		{"a fine-tuning job", "POST", "/v1/fine_tuning/jobs", `{"model":"m"}`, 403, 0},
		{"a spelling of a known path", "POST", "/v1//Chat/Completions/", hello, 200, 49},
		{"a model without a price", "POST", "/v1/chat/completions", strings.Replace(hello, `"m"`, `"free"`, 1), 403, 0},
		{"no model", "POST", "/v1/responses", `{"input":"hi"}`, 403, 0},
		{"variations of an image", "POST", "/v1/images/variations", `{}`, 403, 0},
		{"images by the piece", "POST", "/v1/images/generations", image, 200, 1500},
		{"a list", "GET", "/v1/files", "", 200, 0},
		{"a stored file", "DELETE", "/v1/files/f", "", 200, 0},
		{"a moderation", "POST", "/v1/moderations", `{"input":"hi"}`, 200, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, l, _ := budgetWorld(t, 100_000, withUsage(9, 4), nil, func(s *Snapshot) {
					for _, model := range []string{"free", "image-model"} {
						r := s.Routes.Routes["m"]
						r.Targets = append([]provider.Target(nil), r.Targets...)
						r.Targets[0].State, r.Targets[0].Label = "a/"+model, model
						s.Routes.Routes[model] = r
					}
				})
				o := w.do(w.request(c.method, c.path, c.body))
				synctest.Wait()
				if o.status != c.status || c.status == 403 && o.code() != "price_unknown" {
					t.Errorf("%d %s", o.status, o.body)
				}
				if spent := 100_000 - w.remaining(l); spent != c.spent {
					t.Errorf("spent %d, want %d", spent, c.spent)
				}
			})
		})
	}
}

// A stream whose provider reports no usage is counted as it passes, into debt where
// it passes what was reserved.
func TestBudgetBypassStreamWithoutUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var parts []any
		for range 500 {
			parts = append(parts, chunk("abcd"), time.Millisecond)
		}
		w, l, ledger := budgetWorld(t, 2000, streams(append(parts, finishChunk, doneChunk)...), nil)
		w.chat(helloStream)
		row, micro := ledger.last(t)
		want := promptTokens + 10*500
		if micro != want || row.Source != "estimated" || w.remaining(l) != 2000-want {
			t.Errorf("cost %d (%s), %d left; want %d", micro, row.Source, w.remaining(l), want)
		}
		if o := w.chat(hello); o.code() != "budget_exceeded" {
			t.Errorf("in debt: %d %s", o.status, o.body)
		}
	})
}

// While a stream runs, what passes its reservation is charged at once, so that
// others do not spend it.
func TestBudgetFollowsAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var parts []any
		for range 300 {
			parts = append(parts, chunk("abcd"))
		}
		w, l, _ := budgetWorld(t, 10_000, streams(append(parts, time.Hour)...), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.do(w.request("POST", "/v1/chat/completions", helloStream).WithContext(ctx))
		}()
		time.Sleep(time.Second)
		if spent := 10_000 - w.remaining(l); spent < promptTokens+10*300 || spent > promptTokens+10*(300+2*topUp) {
			t.Errorf("%d is charged after 300 tokens", spent)
		}
		<-done
	})
}

// Where reasoning is dearer than other output, the reservation is as if all of the
// output were reasoning, and the settlement is by what it was.
func TestBudgetReservesReasoning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reserved := int64(0)
		var w *world
		var l *limits.Limit
		w, l, ledger := budgetWorld(t, 10_000, func(rw http.ResponseWriter, r *http.Request) {
			reserved = 10_000 - w.remaining(l)
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprint(rw, `{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":4}}}`)
		}, nil, func(s *Snapshot) {
			s.Prices = usage.New(map[string]usage.Model{"m": {{Input: 1e6, Output: 10e6, Reasoning: 30e6}}})
		})
		if o := w.chat(hello); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		row, micro := ledger.last(t)
		if want := int64(9 + 6*10 + 4*30); reserved != promptTokens+30*100 || micro != want || w.remaining(l) != 10_000-want {
			t.Errorf("reserved %d, cost %d, %d left, %+v", reserved, micro, w.remaining(l), row.Tokens)
		}
		w.settled()
	})
}

// Of what a cut stream wrote, all may have been reasoning: the dearer price counts where
// the provider did not say.
func TestBudgetOfACutStreamThatReasons(t *testing.T) {
	for _, c := range []struct{ output, reasoning, each int64 }{{10, 30, 30}, {10, 5, 10}} {
		synctest.Test(t, func(t *testing.T) {
			w, l, ledger := budgetWorld(t, 10_000, streams(chunk("abcdefgh"), errors.New("reset")), nil, func(s *Snapshot) {
				s.Prices = usage.New(map[string]usage.Model{"m": {{Input: 1e6, Output: c.output * 1e6, Reasoning: c.reasoning * 1e6}}})
			})
			w.chat(helloStream)
			row, micro := ledger.last(t)
			want := promptTokens + 2*c.each
			if row.Source != "estimated" || micro != want || w.remaining(l) != 10_000-want {
				t.Errorf("cost %d, want %d; %d left, %+v", micro, want, w.remaining(l), row)
			}
		})
	}
}

// The reservation is that of the dearest target, the settlement that of the one
// that served.
func TestBudgetFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reserved int64
		var w *world
		var l *limits.Limit
		w, l, ledger := budgetWorld(t, 100_000, sends(500, `{}`), func(rw http.ResponseWriter, r *http.Request) {
			reserved = 100_000 - w.remaining(l)
			withUsage(9, 4)(rw, r)
		})
		both := strings.Replace(hello, `"m"`, `"both"`, 1)
		w.s.Routes.Routes["both"].Targets[0].Model, w.s.Routes.Routes["both"].Targets[1].Model = "m", "anything"
		if o := w.chat(both); o.status != 200 {
			t.Fatalf("%d %s", o.status, o.body)
		}
		row, micro := ledger.last(t)
		if reserved != 2*(promptTokens+1000) || micro != 2*49 || w.remaining(l) != 100_000-2*49 || row.Upstream != "b" || row.Attempts != 2 {
			t.Errorf("reserved %d, cost %d, %d left, %+v", reserved, micro, w.remaining(l), row)
		}
	})
}

func TestUnpriced(t *testing.T) {
	free := strings.Replace(hello, `"m"`, `"both"`, 1) // at a without a price, at b with one
	for _, c := range []struct {
		name, policy string
		budget       bool
		shadow       bool
		upstream     string // that serves; empty when refused
	}{
		{"a budget leaves targets without a price out", "", true, false, "b"},
		{"a budget in shadow mode does not", "", true, true, "a"},
		{"no budget", "", false, false, "a"},
		{"allow", UnpricedAllow, true, false, "a"},
		{"refuse without a budget", UnpricedRefuse, false, false, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, l, ledger := budgetWorld(t, 100_000, withUsage(9, 4), withUsage(9, 4), func(s *Snapshot) {
					s.Routes.Routes["both"].Targets[0].Model = "nameless"
				})
				team := w.s.Teams["search"]
				team.Unpriced, l.Shadow = c.policy, c.shadow
				if !c.budget {
					team.Limits = nil
				}
				for range 2 {
					if o := w.chat(free); o.status != 200 || o.header.Get("X-Penstock-Upstream") != c.upstream {
						t.Fatalf("%d by %q: %s", o.status, o.header.Get("X-Penstock-Upstream"), o.body)
					}
				}
				row, micro := ledger.last(t)
				if row.Unpriced != (c.upstream == "a") || row.Unpriced != (micro == 0) {
					t.Errorf("row %+v", row)
				}
				said := strings.Count(w.logs.String(), "no price is known")
				if got := w.metric("unpriced_requests_total", "upstream", "a"); row.Unpriced && (got != 2 || said != 1) || !row.Unpriced && (got != 0 || said != 0) {
					t.Errorf("counted %v times, said %d times", got, said)
				}
			})
		})
	}
}

// Refused requests have a row too; those that nobody is known to have made do not.
func TestRowsOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, ledger := budgetWorld(t, 1500, withUsage(9, 100), nil)
		w.chat(hello)
		w.chat(hello)
		row, micro := ledger.last(t)
		if row.Status != 429 || row.Outcome != "refused" || micro != 0 || row.Upstream != "" || row.Label != "m" || row.Attempts != 0 {
			t.Errorf("row %+v", row)
		}
		w.chat(hello, "Authorization", "Bearer psk_unknown")
		w.chat(strings.Replace(hello, `"m"`, `"`+strings.Repeat("x", 250)+`"`, 1))
		row, _ = ledger.last(t)
		if len(ledger.all) != 3 || len(row.Model) != maxModelName || row.Label != "other" {
			t.Errorf("%d rows, the last of model %q, label %q", len(ledger.all), row.Model, row.Label)
		}
	})
}

// What has been said of a model is not said again, whoever asks at once, and asking costs
// nothing.
func TestMentions(t *testing.T) {
	var m mentions
	var firsts atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 * maxMentions {
		wg.Go(func() {
			if m.first(mention{"up", strconv.Itoa(i % (maxMentions / 2))}) {
				firsts.Add(1)
			}
		})
	}
	wg.Wait()
	if n := firsts.Load(); n != maxMentions/2 {
		t.Errorf("%d of %d models were said", n, maxMentions/2)
	}
	upstream, model := strings.Repeat("u", 40), strings.Repeat("m", 40)
	m.first(mention{upstream, model})
	if n := testing.AllocsPerRun(100, func() { m.first(mention{upstream, model}) }); n != 0 {
		t.Errorf("%v allocations to ask for what has been said", n)
	}
	for i := range 2 * maxMentions {
		m.first(mention{"another", strconv.Itoa(i)})
	}
	if n := len(*m.said.Load()); n != maxMentions {
		t.Errorf("%d are remembered, want at most %d", n, maxMentions)
	}
}
