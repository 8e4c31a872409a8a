package simulate

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// limitedTo is a fast provider with limits that always answers 10 tokens.
func limitedTo(change func(*Config)) *Provider {
	c := fast()
	c.OutputTokens = 10
	c.Window = 10 * time.Second
	change(&c)
	return New(c)
}

func TestRequestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.RPM = 5; c.Window = time.Minute })
		for i := range 5 {
			w := do(t, p, "POST", "/v1/chat/completions", chatJSON)
			object(t, w, 200)
			want(t, "limit", w.Header().Get("x-ratelimit-limit-requests"), "5")
			want(t, "remaining", w.Header().Get("x-ratelimit-remaining-requests"), strconv.Itoa(4-i))
			want(t, "reset", w.Header().Get("x-ratelimit-reset-requests"), (time.Duration(i+1) * 12 * time.Second).String())
			want(t, "no token limit", w.Header().Get("x-ratelimit-limit-tokens"), "")
		}
		pass(2400 * time.Millisecond)
		w := do(t, p, "POST", "/chat/completions", chatJSON)
		e := at(t, object(t, w, 429), "error")
		want(t, "type", at(t, e, "type"), "requests")
		want(t, "code", at(t, e, "code"), "rate_limit_exceeded")
		want(t, "param", at(t, e, "param"), nil)
		want(t, "message", at(t, e, "message"),
			"Rate limit reached for m on requests per min (RPM): Limit 5, Used 5, Requested 1. Please try again in 9.6s.")
		want(t, "retry-after", w.Header().Get("retry-after"), "10")
		want(t, "retry-after-ms", w.Header().Get("retry-after-ms"), "9600")
		want(t, "reset", w.Header().Get("x-ratelimit-reset-requests"), "57.6s")
	})
}

// covers LIM-07: who waits as long as told gets in, and a refusal costs nothing.
func TestRetryAfterIsTrue(t *testing.T) {
	for _, mode := range []Mode{Bucket, Sliding} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := limitedTo(func(c *Config) { c.RPM, c.TPM, c.Mode = 7, 31, mode })
				refused := 0
				for range 40 {
					w := do(t, p, "POST", "/v1/chat/completions", chatJSON)
					if w.Code == 200 {
						continue
					}
					refused++
					ms, err := strconv.Atoi(w.Header().Get("retry-after-ms"))
					if err != nil || ms < 1 {
						t.Fatalf("retry-after-ms %q", w.Header().Get("retry-after-ms"))
					}
					if mode == Bucket && ms > 1 {
						pass(time.Duration(ms-1) * time.Millisecond)
						object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 429)
						ms = 1
					}
					pass(time.Duration(ms) * time.Millisecond)
					object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200)
				}
				if refused == 0 {
					t.Error("nothing was refused")
				}
			})
		})
	}
}

func TestTokensActualGoIntoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.TPM = 30; c.Window = time.Minute })
		w := do(t, p, "POST", "/v1/chat/completions", chatJSON) // 3 in, 10 out
		want(t, "remaining at admission", w.Header().Get("x-ratelimit-remaining-tokens"), "27")
		do(t, p, "POST", "/v1/chat/completions", chatJSON)
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200) // 4 left, goes to -9
		w = do(t, p, "POST", "/v1/chat/completions", chatJSON)
		message := at(t, object(t, w, 429), "error", "message").(string)
		if !strings.Contains(message, "on tokens per min (TPM): Limit 30, Used 39, Requested 3. Please try again in 24s.") {
			t.Errorf("message: %s", message)
		}
		want(t, "type", at(t, object(t, w, 429), "error", "type"), "tokens")
		want(t, "remaining in debt", w.Header().Get("x-ratelimit-remaining-tokens"), "0")
		want(t, "reset in debt", w.Header().Get("x-ratelimit-reset-tokens"), "1m18s")
		want(t, "admitted", p.Stats().Admitted, Amounts{3, 39})
	})
}

func TestTokensByMaxTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.TPM, c.Count = 100, MaxTokens })
		body := `{"model":"m","max_tokens":20,"n":2,"messages":[{"role":"user","content":"hello there"}]}`
		w := do(t, p, "POST", "/v1/chat/completions", body)
		want(t, "remaining", w.Header().Get("x-ratelimit-remaining-tokens"), "57") // 3 + 2·20
		w = do(t, p, "POST", "/v1/chat/completions", chatJSON)
		want(t, "remaining without max_tokens", w.Header().Get("x-ratelimit-remaining-tokens"), "44") // 3 + 10
		want(t, "admitted", p.Stats().Admitted.Tokens, int64(56))
		want(t, "output served", p.Stats().OutputTokens, int64(30))
	})
}

func TestRequestTooLarge(t *testing.T) {
	p := limitedTo(func(c *Config) { c.TPM, c.Count = 100, MaxTokens })
	for _, most := range []string{"98", "9000000000000000000"} {
		body := `{"model":"m","max_tokens":` + most + `,"messages":[{"role":"user","content":"hello there"}]}`
		w := do(t, p, "POST", "/v1/chat/completions", body)
		message := at(t, object(t, w, 429), "error", "message").(string)
		if !strings.HasPrefix(message, "Request too large for m on tokens per 10s (TPM): Limit 100, Requested ") {
			t.Errorf("message: %s", message)
		}
		want(t, "retry-after", w.Header().Get("retry-after"), "")
	}
	want(t, "refused", p.Stats().Refused["too_large"], int64(2))
	want(t, "admitted", p.Stats().Admitted, Amounts{})
}

func TestConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{TTFT: time.Second, TokenTime: NoWait, Concurrency: 2})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200) })
		}
		synctest.Wait()
		w := do(t, p, "POST", "/v1/chat/completions", chatJSON)
		want(t, "message", at(t, object(t, w, 429), "error", "message"),
			"Rate limit reached for m on concurrent requests: Limit 2, Used 2, Requested 1. Please try again in 1s.")
		want(t, "in flight", p.Stats().InFlight, 2)
		wg.Wait()
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200)
		s := p.Stats()
		want(t, "in flight", s.InFlight, 0)
		want(t, "peak", s.PeakInFlight, 2)
		want(t, "refused", s.Refused["concurrency"], int64(1))
	})
}

// covers LIM-06 on the provider's side: what one limit refuses, the others do not charge.
func TestRefusalChargesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.RPM, c.TPM = 100, 12 })
		do(t, p, "POST", "/v1/chat/completions", chatJSON) // 13 tokens
		for range 20 {
			object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 429)
		}
		w := do(t, p, "POST", "/v1/chat/completions", chatJSON)
		want(t, "remaining requests", w.Header().Get("x-ratelimit-remaining-requests"), "99")
		want(t, "refused", p.Stats().Refused["tokens"], int64(21))
		want(t, "in flight", p.Stats().InFlight, 0)
	})
}

func TestSlidingOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.RPM, c.Mode = 5, Sliding })
		ok := 0
		for range 300 { // 30 s at 10 per second
			if do(t, p, "POST", "/v1/chat/completions", chatJSON).Code == http.StatusOK {
				ok++
			}
			pass(100 * time.Millisecond)
		}
		s := p.Stats()
		want(t, "answers", ok, 15)
		want(t, "peak", s.PeakWindow.Requests, int64(5))
		want(t, "admitted", s.Admitted.Requests, int64(15))
		want(t, "capacity", s.Capacity.Requests, int64(20)) // a fourth window has just begun
		want(t, "elapsed", s.ElapsedSeconds, 30.0)
	})
}

func TestBucketOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.RPM = 5 })
		for range 300 {
			do(t, p, "POST", "/v1/chat/completions", chatJSON)
			pass(100 * time.Millisecond)
		}
		s := p.Stats()
		want(t, "admitted", s.Admitted.Requests, int64(19)) // 5 at once, then one every 2 s up to 28 s
		want(t, "capacity", s.Capacity.Requests, int64(20))
		want(t, "utilisation", s.Utilisation.Requests, 0.95)
		if s.PeakWindow.Requests > 10 {
			t.Errorf("a window held %d, above twice the limit", s.PeakWindow.Requests)
		}
	})
}

func TestOutputIsChargedAsItStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{TTFT: time.Second, TokenTime: time.Second, OutputTokens: 10, TPM: 1000, Window: time.Hour})
		var wg sync.WaitGroup
		wg.Go(func() { do(t, p, "POST", "/v1/chat/completions", chatStream) })
		pass(4500 * time.Millisecond) // tokens at 1, 2, 3 and 4 s
		want(t, "tokens so far", p.Stats().Admitted.Tokens, int64(3+4))
		wg.Wait()
		want(t, "tokens at the end", p.Stats().Admitted.Tokens, int64(3+10))
	})
}

func TestHeaderDurationsParse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limitedTo(func(c *Config) { c.RPM, c.TPM, c.Window = 7, 1300, 3*time.Minute })
		form := regexp.MustCompile(`^(\d+h)?(\d+m)?(\d+(\.\d{1,3})?s)?$|^\d+ms$`)
		for range 7 {
			w := do(t, p, "POST", "/v1/chat/completions", chatJSON)
			for _, name := range []string{"x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"} {
				v := w.Header().Get(name)
				if _, err := time.ParseDuration(v); err != nil || !form.MatchString(v) {
					t.Errorf("%s: %q", name, v)
				}
			}
			pass(1234567 * time.Nanosecond)
		}
	})
}

func TestConcurrentAdmissions(t *testing.T) {
	p := limitedTo(func(c *Config) { c.RPM, c.Concurrency, c.Mode, c.Window = 50, 7, Sliding, time.Hour })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				do(t, p, "POST", "/v1/chat/completions", chatStream)
			}
		})
	}
	wg.Wait()
	s := p.Stats()
	want(t, "admitted", s.Admitted.Requests, int64(50))
	want(t, "in flight", s.InFlight, 0)
	want(t, "open", s.Open, 0)
	if s.PeakInFlight > 7 {
		t.Errorf("%d in flight, limit 7", s.PeakInFlight)
	}
	want(t, "all counted", s.Requests["chat/completions"]["200"]+s.Requests["chat/completions"]["429"], int64(400))
}
