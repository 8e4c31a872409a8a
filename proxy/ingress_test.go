package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/auth"
	"penstock/breaker"
	"penstock/limits"
)

var breakersOff = breaker.Config{Disabled: true}

// covers CL-05, CL-06, CL-07: bad input gets a clear error and leaves nothing
// behind.
func TestBadInput(t *testing.T) {
	big := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"}]}`
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code, param              string
	}{
		{"malformed", "POST", "/v1/chat/completions", `{"model":"m",`, nil, 400, "invalid_json", ""},
		{"not an object", "POST", "/v1/chat/completions", `[1]`, nil, 400, "invalid_json", ""},
		{"empty", "POST", "/v1/chat/completions", "", nil, 400, "invalid_json", ""},
		{"no model", "POST", "/v1/chat/completions", `{"messages":[]}`, nil, 400, "missing_model", "model"},
		{"unknown model", "POST", "/v1/chat/completions", `{"model":"nope"}`, nil, 404, "model_not_found", "model"},
		{"another case of model", "POST", "/v1/chat/completions", `{"model":"m","Model":"dear"}`, nil, 400, "ambiguous_key", "model"},
		{"model twice", "POST", "/v1/chat/completions", `{"model":"m","model":"dear"}`, nil, 400, "duplicate_key", "model"},
		{"negative max_tokens", "POST", "/v1/chat/completions", `{"model":"m","max_tokens":-1}`, nil, 400, "invalid_value", "max_tokens"},
		{"fraction", "POST", "/v1/chat/completions", `{"model":"m","max_completion_tokens":1.5}`, nil, 400, "invalid_value", "max_completion_tokens"},
		{"giant n", "POST", "/v1/chat/completions", `{"model":"m","n":1000000}`, nil, 400, "invalid_value", "n"},
		{"overflow", "POST", "/v1/responses", `{"model":"m","max_output_tokens":99999999999999999999}`, nil, 400, "invalid_value", "max_output_tokens"},
		{"too large", "POST", "/v1/chat/completions", big, nil, 413, "request_too_large", ""},
		{"compressed", "POST", "/v1/chat/completions", hello, []string{"Content-Encoding", "gzip"}, 415, "unsupported_encoding", ""},
		{"wrong key", "POST", "/v1/chat/completions", hello, []string{"Authorization", "Bearer psk_wrong"}, 401, "invalid_api_key", ""},
		{"no key", "POST", "/v1/chat/completions", hello, []string{"Authorization", ""}, 401, "invalid_api_key", ""},
		{"dot segments", "GET", "/v1/files/%2e%2e/organization", "", nil, 404, "unknown_path", ""},
		{"admin API", "GET", "/v1/organization/users", "", nil, 403, "admin_api_refused", ""},
		{"upgrade", "POST", "/v1/realtime", "", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, "invalid_upgrade", ""},
		{"upgrade with a body", "GET", "/v1/realtime", hello, []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, "invalid_upgrade", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hits := 0
				w := newWorld(t, counting(&hits, sends(200, answerJSON)), nil)
				o := w.do(w.request(c.method, c.path, c.body, c.headers...))
				var e struct {
					Error struct {
						Message, Type, Code string
						Param               *string
					}
				}
				if err := json.Unmarshal([]byte(o.body), &e); err != nil || o.header.Get("Content-Type") != "application/json" {
					t.Fatalf("%d %q is no error object: %v", o.status, o.body, err)
				}
				if o.status != c.status || e.Error.Code != c.code || e.Error.Message == "" || e.Error.Type == "" || len(o.body) > 4096 {
					t.Errorf("got %d %s", o.status, o.body)
				}
				if c.param != "" && (e.Error.Param == nil || *e.Error.Param != c.param) {
					t.Errorf("param is not %q: %s", c.param, o.body)
				}
				if hits != 0 || o.header.Get("X-Request-Id") == "" {
					t.Errorf("%d requests reached the upstream", hits)
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}

// covers CL-04: refused by the declared length without a byte of it read, and at
// the limit when there is none.
func TestHugeBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		req := w.request("POST", "/v1/chat/completions", "x")
		req.Body, req.ContentLength = io.NopCloser(blockingReader{t.Context()}), 1<<40
		if o := w.do(req); o.status != 413 {
			t.Errorf("declared: %d %v", o.status, o.err)
		}
		req = w.request("POST", "/v1/chat/completions", "x")
		req.Body, req.ContentLength = io.NopCloser(endless{}), -1
		if o := w.do(req); o.status != 413 && o.err == nil {
			t.Errorf("chunked: %d", o.status)
		}
		synctest.Wait()
		w.settled()
	})
}

type blockingReader struct{ ctx context.Context }

func (b blockingReader) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// covers RES-04
func TestMemoryIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hangs, nil, func(s *Snapshot) { s.Settings.MaxMemory = 4 << 20 })
		body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 900<<10) + `"}]}`
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { w.do(w.request("POST", "/v1/chat/completions", body).WithContext(ctx)) })
		}
		synctest.Wait()
		if o := w.chat(body); o.status != 503 || o.code() != "memory_full" || o.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", o.status, o.body)
		}
		if n := w.metric("limit_refusals_total", "scope", "gateway", "dimension", "memory", "team", "search"); n != 1 {
			t.Errorf("%v refusals counted", n)
		}
		cancel()
		wg.Wait()
		synctest.Wait()
		w.settled()
	})
}

// A client that stops sending is not waited for.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		req := w.request("POST", "/v1/chat/completions", "x")
		req.Body, req.ContentLength = io.NopCloser(blockingReader{t.Context()}), 1000
		o := w.do(req)
		if o.err == nil && o.status != 408 || o.took > 12*time.Second {
			t.Errorf("%d %v after %v", o.status, o.err, o.took)
		}
		synctest.Wait()
		w.settled()
	})
}

// covers LIM-07, CL-07
func TestTeamLimitRefusesHonestly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		w.teamLimit(limits.Requests, 2, 10*time.Second)
		for i := range 2 {
			o := w.chat(hello)
			if o.status != 200 || o.header.Get("X-Ratelimit-Limit-Requests") != "2" || o.header.Get("X-Ratelimit-Remaining-Requests") != strconv.Itoa(1-i) {
				t.Fatalf("%d %v", o.status, o.header)
			}
		}
		o := w.chat(hello)
		if o.status != 429 || o.code() != "rate_limit_exceeded" || o.header.Get("X-Should-Retry") != "true" || !strings.Contains(o.body, "Please try again in") {
			t.Fatalf("%d %s", o.status, o.body)
		}
		if after := o.header.Get("Retry-After"); after != "5" {
			t.Errorf("Retry-After %s, want 5", after)
		}
		if ms, _ := strconv.Atoi(o.header.Get("Retry-After-Ms")); ms < 5000 || ms > 6000 {
			t.Errorf("retry-after-ms %d", ms)
		}
		if w.metric("limit_refusals_total", "scope", "team", "reason", "limit") != 1 {
			t.Error("not counted")
		}
		time.Sleep(5 * time.Second)
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("after the stated time: %d", o.status)
		}
		w.settled()
	})
}

// covers LIM-08
func TestConcurrentRequestsDoNotOvershootALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(200, answerJSON)), nil)
		w.teamLimit(limits.Requests, 7, 2400*time.Hour)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { w.chat(hello) })
		}
		wg.Wait()
		if hits != 7 {
			t.Errorf("%d of 100 reached the upstream, want 7", hits)
		}
	})
}

// covers LIM-04
func TestImpossibleRequestIs400(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		w.teamLimit(limits.Tokens, 50, time.Minute)
		if o := w.chat(hello); o.status != 200 {
			t.Errorf("only the prediction exceeds the limit: %d %s", o.status, o.body)
		}
		long := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", 200) + `"}]}`
		if o := w.chat(long); o.status != 400 || o.code() != "request_exceeds_limit" || o.header.Get("Retry-After") != "" {
			t.Errorf("%d %s", o.status, o.body)
		}
		w.settled()
	})
}

func TestShadowCountsAndLetsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		w.teamLimit(limits.Requests, 1, time.Hour).Shadow = true
		for range 3 {
			if o := w.chat(hello); o.status != 200 {
				t.Errorf("%d", o.status)
			}
		}
		if n := w.metric("limit_shadow_refusals_total", "team", "search"); n != 2 {
			t.Errorf("%v counted, want 2", n)
		}
	})
}

// covers SEC-01
func TestCredentialsDoNotCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got http.Header
		var query string
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			got, query = r.Header.Clone(), r.URL.RawQuery
			rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
			rw.Header().Set("X-Kept", "yes")
			rw.Header().Set("Openai-Organization", "org-ours")
			rw.Header().Set("X-Ratelimit-Remaining-Requests", "7")
			sends(200, `{"object":"x","echo":"`+r.Header.Get("Authorization")+`"}`)(rw, r)
		}, nil)
		o := w.do(w.request("POST", "/v1/chat/completions?api-version=1&key=abc", hello,
			"X-Api-Key", clientKey, "Api-Key", clientKey, "Cookie", "session=1", "OpenAI-Organization", "org-theirs", "X-Penstock-Class", "batch",
			"Connection", "X-Drop", "X-Drop", "1", "X-Custom", "kept", "OpenAI-Beta", "assistants=v2", "Idempotency-Key", "k1"))
		for name, values := range got {
			for _, v := range values {
				if strings.Contains(v, clientKey) {
					t.Errorf("the client's key reached the upstream in %s", name)
				}
			}
		}
		if got.Get("Authorization") != "Bearer "+upstreamKey || query != "api-version=1" {
			t.Errorf("upstream got %v ?%s", got, query)
		}
		for _, gone := range []string{"Cookie", "X-Penstock-Class", "X-Drop", "Openai-Organization"} {
			if got.Get(gone) != "" {
				t.Errorf("%s reached the upstream", gone)
			}
		}
		for name, want := range map[string]string{"X-Custom": "kept", "Openai-Beta": "assistants=v2", "Idempotency-Key": "k1"} {
			if got.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, got.Get(name), want)
			}
		}
		if strings.Contains(o.body, upstreamKey) || len(o.body) != len(`{"object":"x","echo":"Bearer `+upstreamKey+`"}`) {
			t.Errorf("the upstream's key reached the client: %s", o.body)
		}
		if o.header.Get("X-Echo") != "" || o.header.Get("Openai-Organization") != "" || o.header.Get("X-Kept") != "yes" || o.header.Get("X-Upstream-Ratelimit-Remaining-Requests") != "7" {
			t.Errorf("headers %v", o.header)
		}
	})
}

func TestSidecarForwardsTheClientsCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			sends(401, `{"error":{"message":"bad key `+r.Header.Get("Authorization")+`","type":"x","param":null,"code":"invalid_api_key"}}`)(rw, r)
		}, nil, func(s *Snapshot) {
			s.Keys = auth.NewKeys(nil, auth.Caller{Team: "search"})
			r := s.Routes.Routes["m"]
			r.Targets[0].Credential, r.Targets[0].Forward = "", true
		})
		o := w.chat(hello, "Authorization", "Bearer sk-own")
		if o.status != 401 || !strings.Contains(o.body, "bad key Bearer sk-own") {
			t.Errorf("%d %s", o.status, o.body)
		}
	})
}

// covers SEC-03
func TestLogsHoldNoSecretsAndNoPrompts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, inTurn(sends(500, `secret answer text`), sends(401, `secret answer text `+upstreamKey), sends(200, answerJSON)), nil)
		secretHello := strings.Replace(hello, "hello there", "secret prompt text", 1)
		w.chat(secretHello)
		w.chat(secretHello, "Authorization", "Bearer psk_mistyped-key-000000000000")
		w.chat(`{"model":"secret prompt text\nlevel=ERROR","messages":[]}`)
		w.chat(`{"secret prompt text`)
		metrics, _ := w.registry.Gather()
		for _, text := range []string{w.logs.String(), fmt.Sprint(metrics)} {
			for _, secret := range []string{"secret", "psk_", "sk-upstream", "Bearer"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q stands in logs or metrics:\n%s", secret, text)
				}
			}
		}
		if lines := strings.Count(w.logs.String(), `"msg":"request"`); lines != 4 {
			t.Errorf("%d lines for 4 requests", lines)
		}
	})
}

// covers LIFE-06
func TestPanicGivesEverythingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil, func(s *Snapshot) { s.Upstreams["a"].Transport = panicking{} })
		slots := w.limit(limits.Concurrency, 1, 0)
		for range 3 {
			if o := w.chat(hello); o.status != 500 || o.code() != "internal_error" {
				t.Errorf("%d %s", o.status, o.body)
			}
		}
		if w.remaining(slots) != 1 || w.metric("panics_total") != 3 || strings.Contains(w.logs.String(), "secret") {
			t.Errorf("%d slots, %v panics\n%s", w.remaining(slots), w.metric("panics_total"), w.logs)
		}
		w.settled()
	})
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("secret of a prompt") }

// covers SEC-07
func TestModelRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil, func(s *Snapshot) { s.Teams["search"].Models = []string{"both"} })
		if o := w.chat(hello); o.status != 403 || o.code() != "model_not_allowed" {
			t.Errorf("%d %s", o.status, o.body)
		}
		for _, spelling := range []string{"M", " m", "m ", "a/m", "both/../m", "m\\u0000"} {
			if o := w.chat(strings.Replace(hello, `"m"`, `"`+spelling+`"`, 1)); o.status < 400 {
				t.Errorf("%q passed", spelling)
			}
		}
		o := w.do(w.request("GET", "/v1/models", ""))
		if o.status != 200 || !strings.Contains(o.body, `"id":"both"`) || strings.Contains(o.body, `"id":"m"`) {
			t.Errorf("models: %s", o.body)
		}
		w.settled()
		if line := w.logs.String(); !strings.Contains(line, `"operation":"models"`) || strings.Contains(line, `"status":0`) {
			t.Errorf("log: %s", line)
		}
	})
}

// covers LIFE-01, LIFE-03
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, streams(chunk("a"), 30*time.Second, chunk("b"), time.Hour), nil, func(s *Snapshot) { s.Upstreams["a"].Timeouts.Idle = time.Minute })
		done := make(chan outcome)
		go func() { done <- w.chat(helloStream) }()
		synctest.Wait()
		w.p.Leave()
		w.p.Drain()
		if o := w.chat(hello); o.status != 503 || o.code() != "shutting_down" || o.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", o.status, o.body)
		}
		time.Sleep(40 * time.Second)
		if n := w.p.Cut(); n != 1 {
			t.Errorf("%d cut, want 1", n)
		}
		o := <-done
		if !strings.HasPrefix(o.body, chunk("a")+chunk("b")) || !strings.Contains(o.body, "shutting_down") || o.err == nil {
			t.Errorf("%v %q", o.err, o.body)
		}
		synctest.Wait()
		w.settled()
	})
}

// covers LIFE-04, LIM-08: a reload keeps levels, and a raised limit works at once.
func TestReloadKeepsLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		l := w.limit(limits.Requests, 100, 2400*time.Hour)
		for range 60 {
			w.chat(hello)
		}
		raised := *l
		raised.Amount, raised.Burst = 200, 200
		w.s.Upstreams["a"].Limits = []*limits.Limit{&raised}
		w.p.Swap(w.s)
		if got := w.remaining(&raised); got != 80 {
			t.Errorf("%d left of 200, want the same share as before: 80", got)
		}
	})
}

// covers RES-01: ten thousand made-up models and users, and a thousand paths, methods
// and keys, add no series.
func TestMetricSeriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil, func(s *Snapshot) { s.Routes.Routes["*"] = s.Routes.Routes["m"] })
		series := func() (n int) {
			families, _ := w.registry.Gather()
			for _, f := range families {
				for _, m := range f.GetMetric() {
					n += max(1, len(m.GetHistogram().GetBucket())+2)
				}
			}
			return n
		}
		ask := func(i int) {
			w.chat(strings.Replace(hello, `"m"`, fmt.Sprintf(`"made-up-%d","user":"somebody-%d"`, i, i), 1))
			if i%10 != 0 {
				return
			}
			w.do(w.request("GET", fmt.Sprintf("/v1/unknown/%d?q=%d", i, i), "", "Authorization", fmt.Sprintf("Bearer nobody-%d", i)))
			w.do(w.request(fmt.Sprintf("BREW%d", i), fmt.Sprintf("/v1/unknown/%d", i), ""))
		}
		for i := range 100 { // some of the names may get limits of their own
			ask(i)
		}
		before := series()
		for i := range 10_000 {
			ask(100 + i)
		}
		if n := series(); n != before || n > 400 {
			t.Errorf("%d series, %d before", n, before)
		}
		if n := len(w.p.targets); n > 66 {
			t.Errorf("%d targets are kept", n)
		}
	})
}
