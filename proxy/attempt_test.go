package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/route"
)

// covers UP-02: what is retried, and what is not.
func TestWhichStatusesAreRetried(t *testing.T) {
	for status, want := range map[int]int{
		408: 3, 429: 3, 500: 3, 502: 3, 503: 3, 504: 3, 529: 3,
		400: 1, 401: 1, 403: 1, 404: 1, 409: 1, 413: 1, 418: 1, 422: 1, 501: 1, 505: 1,
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				w := newWorld(t, counting(&hits, sends(status, `{"error":{"message":"no","type":"t","param":null,"code":"c"}}`)), nil)
				bucket := w.limit(limits.Tokens, 10_000, 2400*time.Hour)
				requests := w.limit(limits.Requests, 100, 2400*time.Hour)
				o := w.chat(hello)
				if hits != want || o.status < 400 {
					t.Errorf("%d attempts, status %d, want %d attempts", hits, o.status, want)
				}
				// covers LIM-03: three attempts are not three reservations of tokens,
				// but three requests, as the provider counts them.
				if got := w.remaining(bucket); got != 10_000 {
					t.Errorf("%d tokens charged for nothing", 10_000-got)
				}
				if got := w.remaining(requests); got != 100-int64(want) {
					t.Errorf("%d requests charged for %d attempts", 100-got, want)
				}
				w.settled()
			})
		})
	}
}

// covers UP-02
func TestBillingIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`)), sends(200, answerJSON))
		o := w.chat(hello)
		if hits != 1 || o.status != 502 || o.code() != "upstream_billing" || o.header.Get("X-Should-Retry") != "false" {
			t.Errorf("%d attempts: %d %s", hits, o.status, o.body)
		}
		if o := w.chat(strings.Replace(hello, `"m"`, `"both"`, 1)); o.status != 200 || o.header.Get("X-Penstock-Upstream") != "b" {
			t.Errorf("the second upstream was not tried: %d %s", o.status, o.body)
		}
	})
}

// covers UP-02: an upstream that says that it has tried enough, such as another
// gateway, is not asked again, and others are.
func TestUpstreamsForbidRetries(t *testing.T) {
	for _, status := range []int{429, 502, 503} {
		synctest.Test(t, func(t *testing.T) {
			hits := 0
			w := newWorld(t, counting(&hits, sends(status, `{"error":{"message":"no"}}`, "X-Should-Retry", "false")), sends(200, answerJSON))
			if o := w.chat(hello); hits != 1 || o.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%d: %d attempts, %v", status, hits, o.header)
			}
			if o := w.chat(strings.Replace(hello, `"m"`, `"both"`, 1)); o.status != 200 || o.header.Get("X-Penstock-Upstream") != "b" {
				t.Errorf("%d: the second upstream was not tried: %d %s", status, o.status, o.body)
			}
		})
	}
}

// covers UP-02: the retry budget bounds what a failing upstream gets.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, inTurn(sends(200, answerJSON), sends(500, `{}`))), nil, func(s *Snapshot) { s.Settings.BudgetFloor = 10 })
		w.p.breakers.Configure(breakersOff)
		const n = 200
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { w.chat(hello) })
		}
		wg.Wait()
		if most := n + max(10, n/5) + 1; hits > most || hits <= n {
			t.Errorf("%d attempts for %d requests, want at most %d", hits, n, most)
		}
	})
}

// A client that calls all of its requests retries spends no more than half of the
// budget of others.
func TestClientsCannotSpendTheRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(500, `{}`)), nil)
		w.p.breakers.Configure(breakersOff)
		w.s.Settings.MaxAttempts = 1
		for range 50 {
			w.chat(hello, "X-Stainless-Retry-Count", "1")
		}
		if left := w.metric("retry_budget_left", "upstream", "a"); left != 5 {
			t.Errorf("%v of 10 retries are left, want half", left)
		}
		w.s.Settings.MaxAttempts = 2
		hits = 0
		for range 10 {
			w.chat(hello)
		}
		if hits < 15 {
			t.Errorf("%d attempts for 10 requests, want 5 of them tried again", hits)
		}
	})
}

func TestBackoffIsJitteredAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(500, `{}`), nil)
		w.p.breakers.Configure(breakersOff)
		seen := map[time.Duration]bool{}
		for range 20 {
			o := w.chat(hello)
			seen[o.took] = true
			if o.took > 750*time.Millisecond {
				t.Errorf("took %v, the two pauses are at most 250 and 500 ms", o.took)
			}
			time.Sleep(10 * time.Second)
		}
		if len(seen) < 15 {
			t.Error("no jitter")
		}
	})
}

// covers UP-03
func TestRetryAfterOfTheUpstream(t *testing.T) {
	for _, c := range []struct {
		value    string
		attempts int
		least    time.Duration
		after    string
	}{
		{"2", 3, 4 * time.Second, "2"},
		{"0.5", 3, time.Second, "1"},
		{"3600", 1, 0, "3600"},
		{"99999999999", 1, 0, "3600"},
		{"-5", 3, 0, "1"},
		{"garbage", 3, 0, "1"},
		{"NaN", 3, 0, "1"},
		{"Sat, 01 Jan 2000 00:00:03 GMT", 3, 3 * time.Second, ""},
	} {
		t.Run(c.value, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				w := newWorld(t, counting(&hits, sends(429, `{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, "Retry-After", c.value)), nil)
				o := w.chat(hello)
				if hits != c.attempts || o.took < c.least || o.took > c.least*3/2+time.Second {
					t.Errorf("%d attempts in %v", hits, o.took)
				}
				if o.status != 503 || o.code() != "upstream_capacity" || c.after != "" && o.header.Get("Retry-After") != c.after {
					t.Errorf("%d %s, Retry-After %q, want %q", o.status, o.body, o.header.Get("Retry-After"), c.after)
				}
				if w.p.breakers.Left("a/m") != 0 {
					t.Error("a 429 counted against the breaker")
				}
			})
		})
	}
}

func TestFailoverIsInvisibleAndImmediate(t *testing.T) {
	both := strings.Replace(hello, `"m"`, `"both"`, 1)
	for name, first := range map[string]http.HandlerFunc{
		"500": sends(500, `{}`), "429": sends(429, `{}`, "Retry-After", "30"), "401": sends(401, `{}`), "403": sends(403, `{}`),
		"reset": resets, "refused": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, first, sends(200, answerJSON))
				o := w.chat(both)
				if o.status != 200 || o.header.Get("X-Penstock-Upstream") != "b" || o.header.Get("X-Penstock-Attempts") != "2" || o.took > time.Second {
					t.Errorf("%d %s from %s in %v", o.status, o.body, o.header.Get("X-Penstock-Upstream"), o.took)
				}
				w.settled()
			})
		})
	}
}

// covers SEC-01: our key's refusal is our fault, not the caller's.
func TestCredentialFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(401, `{"error":{"message":"Incorrect API key provided: `+upstreamKey+`","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`), nil)
		o := w.chat(hello)
		if o.status != 502 || o.code() != "upstream_credential" || strings.Contains(o.body, "sk-") {
			t.Errorf("%d %s", o.status, o.body)
		}
		if w.metric("upstream_credential_failures_total", "upstream", "a") != 1 {
			t.Error("no alert counter")
		}
		lines := func() int { return strings.Count(w.logs.String(), "refused our account") }
		for range 3 {
			w.chat(hello)
		}
		if n := lines(); n != 1 {
			t.Errorf("%d lines in the log while requests keep failing, want 1", n)
		}
		time.Sleep(parkFor)
		if w.chat(hello); lines() != 2 {
			t.Errorf("%d lines in the log after a pause, want 2", lines())
		}
	})
}

// covers UP-05, UP-04
func TestOpenBreakerRefusesAtOnceAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		var mu sync.Mutex
		healthy := false
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			hits++
			ok := healthy
			mu.Unlock()
			if ok {
				sends(200, answerJSON)(rw, r)
				return
			}
			sends(500, `{}`)(rw, r)
		}, nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
		for range 5 {
			w.chat(hello)
		}
		before := hits
		o := w.chat(hello)
		left := w.p.breakers.Left("a/m")
		if o.status != 503 || o.code() != "breaker_open" || o.took > 10*time.Millisecond || hits != before {
			t.Errorf("%d %s in %v, %d hits", o.status, o.body, o.took, hits-before)
		}
		if after, _ := strconv.Atoi(o.header.Get("Retry-After")); time.Duration(after)*time.Second < left || time.Duration(after)*time.Second > left+2*time.Second {
			t.Errorf("Retry-After %d, %v left", after, left)
		}
		time.Sleep(left)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() { w.chat(hello) })
		}
		wg.Wait()
		if hits != before+1 {
			t.Errorf("%d hits in half-open, want one probe", hits-before)
		}
		mu.Lock()
		healthy = true
		mu.Unlock()
		time.Sleep(w.p.breakers.Left("a/m"))
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("did not recover: %d %s", o.status, o.body)
		}
		w.settled()
	})
}

func TestWaitsForTheProbeWhereConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(500, `{}`), sends(200, answerJSON)), nil, func(s *Snapshot) {
			s.Settings.MaxAttempts, s.Settings.WaitForProbe = 1, true
		})
		for range 5 {
			w.chat(hello)
		}
		o := w.chat(hello)
		if o.status != 200 || o.took < 27*time.Second || o.took > 34*time.Second {
			t.Errorf("%d after %v", o.status, o.took)
		}
	})
}

// covers UP-07: each time limit is an error of its own.
func TestTimeLimits(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name, body string
		up         http.HandlerFunc
		change     func(*Timeouts)
		status     int
		code       string
		took       time.Duration
	}{
		{"headers", hello, hangs, func(t *Timeouts) { t.Headers = 3 * time.Second }, 504, "header_timeout", 3 * time.Second},
		{"first token, no headers", helloStream, hangs, func(t *Timeouts) { t.FirstToken = 4 * time.Second }, 504, "first_token_timeout", 4 * time.Second},
		{"first token, only comments", helloStream, streams(": a\n\n", 2*time.Second, ": b\n\n", time.Minute), func(t *Timeouts) { t.FirstToken = 4 * time.Second }, 504, "first_token_timeout", 4 * time.Second},
		{"idle within JSON", hello, slow, func(t *Timeouts) { t.Idle = 2 * time.Second }, 504, "idle_timeout", 2 * time.Second},
		{"attempts", hello, hangs, func(t *Timeouts) { t.Headers = 0 }, 504, "attempts_timeout", 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil, func(s *Snapshot) {
					s.Settings.MaxAttempts = 1
					s.Settings.Timeouts.Attempts = 30 * time.Second
					c.change(&s.Upstreams["a"].Timeouts)
				})
				o := w.chat(c.body)
				if o.status != c.status || o.code() != c.code || o.took < c.took || o.took > c.took+100*time.Millisecond {
					t.Errorf("got %d %q after %v, want %d %s after %v", o.status, o.body, o.took, c.status, c.code, c.took)
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}

func TestClientsPatienceBoundsTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hangs, nil)
		o := w.chat(hello, "X-Stainless-Timeout", "7")
		if o.status != 504 || o.took < 7*time.Second || o.took > 8*time.Second {
			t.Errorf("%d after %v", o.status, o.took)
		}
	})
}

// covers UP-07
func TestTotalTimeLimitEndsAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var parts []any
		for range 100 {
			parts = append(parts, chunk("a"), 3*time.Second)
		}
		w := newWorld(t, streams(parts...), nil)
		o := w.chat(helloStream)
		if !strings.Contains(o.body, "total_timeout") || o.took != 2*time.Minute+breakOffAfter || o.err == nil {
			t.Errorf("after %v: %v, …%q", o.took, o.err, o.body[len(o.body)-150:])
		}
		if w.p.breakers.Left("a/m") != 0 || w.metric("attempts_total", "result", "broken") != 1 {
			t.Error("the total limit is not told from a fault")
		}
		synctest.Wait()
		w.settled()
	})
}

// covers UP-06: one hanging upstream does not hold up the other.
func TestHangingUpstreamDoesNotStarveTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hangs, sends(200, answerJSON), func(s *Snapshot) {
			r := s.Routes.Routes["both"]
			r.Targets = r.Targets[1:]
			s.Routes.Routes["b"] = r
		})
		w.limit(limits.Concurrency, 2, 0)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { w.chat(hello) })
		}
		synctest.Wait()
		for range 20 {
			if o := w.chat(strings.Replace(hello, `"m"`, `"b"`, 1)); o.status != 200 || o.took != 0 {
				t.Errorf("%d after %v", o.status, o.took)
			}
		}
		wg.Wait()
		w.settled()
	})
}

// Nobody's replay: a request whose answer has begun is never sent again.
func TestNothingIsRetriedAfterTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, streams(chunk("a"), fmt.Errorf("reset"))), sends(200, answerJSON))
		w.chat(strings.Replace(helloStream, `"m"`, `"both"`, 1))
		if hits != 1 {
			t.Errorf("%d attempts", hits)
		}
	})
}

// A 429 that does not say for how long holds back the next request as well, for a
// moment.
func TestBare429HoldsTheNextRequestBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(sends(429, `{}`), sends(200, answerJSON)), nil, func(s *Snapshot) { s.Settings.MaxAttempts = 1 })
		if o := w.chat(hello); o.status == 200 {
			t.Fatalf("status %d of a request that was refused", o.status)
		}
		if o := w.chat(hello); o.status != 200 || o.took != w.s.Settings.BaseDelay {
			t.Errorf("status %d after %v, want 200 after %v", o.status, o.took, w.s.Settings.BaseDelay)
		}
		w.settled()
	})
}

// covers UP-05: of the models that no configuration mentions, one that is broken does not
// close the others, not even those that were never asked for.
func TestUnlistedModelsHaveBreakersOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if strings.Contains(string(body), `"model":"broken"`) {
				rw.WriteHeader(500)
				return
			}
			sends(200, answerJSON)(rw, r)
		}
		w := newWorld(t, up, nil, func(s *Snapshot) {
			any := s.Routes.Default
			any.State, any.Label = "a/"+route.Any, route.Other
			s.Routes.Routes[route.Any] = route.Route{Targets: []provider.Target{any}}
		})
		ask := func(model string) outcome { return w.chat(strings.Replace(hello, `"m"`, `"`+model+`"`, 1)) }
		for range 3 {
			ask("broken")
		}
		if o := ask("broken"); o.status != 503 || o.code() != "breaker_open" {
			t.Errorf("the broken one: %d %s", o.status, o.body)
		}
		if o := ask("sound"); o.status != 200 {
			t.Errorf("another one: %d %s", o.status, o.body)
		}
		if w.metric("breaker_state", "upstream", "a", "model", "other") != 2 {
			t.Error("no metric tells of the open breaker")
		}
		w.settled()
	})
}
