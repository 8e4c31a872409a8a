package clients

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"penstock/e2e/clients/stack"
	"penstock/e2e/harness"
)

// covers CL-07, SEC-01
func TestErrorClasses(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	big := openai.ChatCompletionNewParams{Model: stack.Model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("x", stack.MaxBody+1))}}
	negative := hello(stack.Model)
	negative.MaxTokens = openai.Int(-1)
	for _, tt := range []struct {
		name   string
		client openai.Client
		params openai.ChatCompletionNewParams
		opts   []option.RequestOption
		status int
		code   string
		kind   string
		retry  string // x-should-retry
	}{
		{"the gateway's 400", c, negative, nil, 400, "invalid_value", "invalid_request_error", ""},
		{"the provider's 400", c, hello(stack.Faulty), []option.RequestOption{simulate("status=400")}, 400, "", "invalid_request_error", ""},
		{"unknown key", client(s.BaseURL, "sk-unknown"), hello(stack.Model), nil, 401, "invalid_api_key", "invalid_request_error", ""},
		{"no key", client(s.BaseURL, ""), hello(stack.Model), []option.RequestOption{option.WithHeaderDel("Authorization")}, 401, "invalid_api_key", "invalid_request_error", ""},
		{"model not allowed", client(s.BaseURL, s.NarrowKey), hello(stack.Model), nil, 403, "model_not_allowed", "invalid_request_error", ""},
		{"unknown model", c, hello("nobody-has-this"), nil, 404, "model_not_found", "invalid_request_error", ""},
		{"the provider's 404", c, hello(stack.Faulty), []option.RequestOption{simulate("status=404")}, 404, "model_not_found", "invalid_request_error", ""},
		{"the provider's 409", c, hello(stack.Faulty), []option.RequestOption{simulate("status=409")}, 409, "", "invalid_request_error", ""},
		{"too large", c, big, nil, 413, "request_too_large", "invalid_request_error", ""},
		{"the provider's 422", c, hello(stack.Faulty), []option.RequestOption{simulate("status=422")}, 422, "", "invalid_request_error", ""},
		{"the provider's 429", c, hello("faulty-0"), []option.RequestOption{simulate("status=429;retry-after=600")}, 503, "upstream_capacity", "server_error", "true"},
		{"no money", c, hello(stack.Faulty), []option.RequestOption{simulate("insufficient-quota")}, 502, "upstream_billing", "server_error", "false"},
		{"the provider's 500", c, hello(stack.Faulty), []option.RequestOption{simulate("status=500")}, 500, "server_error", "server_error", "false"},
		{"the gateway's key is wrong", c, hello(stack.WrongKey), nil, 502, "upstream_credential", "server_error", "false"},
		{"nobody listens", c, hello(stack.Unreachable), nil, 502, "upstream_connect", "server_error", "false"},
		{"reset", c, hello(stack.Faulty), []option.RequestOption{simulate("reset")}, 502, "upstream_reset", "server_error", "false"},
		{"not JSON", c, hello(stack.Faulty), []option.RequestOption{simulate("garbage=html")}, 502, "upstream_not_json", "server_error", "false"},
		{"cut JSON", c, hello(stack.Faulty), []option.RequestOption{simulate("truncate-after=40")}, 502, "upstream_truncated", "server_error", "false"},
		{"overloaded", c, hello("faulty-1"), []option.RequestOption{simulate("overloaded,retry-after=600")}, 503, "upstream_capacity", "server_error", "true"},
		{"hanging", c, hello(stack.Hanging), []option.RequestOption{simulate("hang")}, 504, "header_timeout", "server_error", "false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.client.Chat.Completions.New(within(t), tt.params, tt.opts...)
			e := apiError(t, err, tt.status, tt.code)
			if e.Type != tt.kind {
				t.Errorf("type is %q, want %q", e.Type, tt.kind)
			}
			h := e.Response.Header
			if got := h.Get("X-Should-Retry"); got != tt.retry {
				t.Errorf("x-should-retry is %q, want %q", got, tt.retry)
			}
			if strings.Contains(e.RawJSON(), s.UpstreamKey) || strings.Contains(e.RawJSON(), "127.0.0.1") {
				t.Errorf("the error tells too much: %s", e.RawJSON())
			}
			if tt.retry == "true" {
				checkRetryAfter(t, h)
				return // the upstream is left alone for a while now
			}
			if tt.name == "cut JSON" {
				return // a stream has begun by then
			}
			stream := tt.client.Chat.Completions.NewStreaming(within(t), tt.params, tt.opts...)
			if stream.Next() {
				t.Errorf("streamed: got %s", stream.Current().RawJSON())
			}
			apiError(t, stream.Err(), tt.status, tt.code)
		})
	}
}

// checkRetryAfter wants both forms, at least a second and no more than an hour.
func checkRetryAfter(t *testing.T, h http.Header) (time.Duration, time.Duration) {
	t.Helper()
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	ms, err2 := strconv.Atoi(h.Get("Retry-After-Ms"))
	if err != nil || err2 != nil || seconds < 1 || seconds > 3600 || ms < 1 || ms > seconds*1000 {
		t.Errorf("retry-after is %q, retry-after-ms %q", h.Get("Retry-After"), h.Get("Retry-After-Ms"))
	}
	return time.Duration(seconds) * time.Second, time.Duration(ms) * time.Millisecond
}

// Whoever obeys the Retry-After of a 429 gets in, and the SDK does so by itself.
//
// covers LIM-07
func TestRateLimitOfATeam(t *testing.T) {
	harness.Rounds(t, func(r *harness.Round) { rateLimitOfATeam(r.T, r) })
}

func rateLimitOfATeam(t *testing.T, r *harness.Round) {
	const window = 3 * time.Second // for one request
	s := stack.Start(t)
	c := client(s.BaseURL, s.LimitedKey)
	first := time.Now()
	var resp *http.Response
	if _, err := c.Chat.Completions.New(within(t), hello(stack.Model), option.WithResponseInto(&resp)); err != nil {
		t.Fatal(err)
	}
	if h := resp.Header; h.Get("X-Ratelimit-Limit-Requests") != "1" || h.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Errorf("headers of the success: %v", h)
	}
	if _, err := time.ParseDuration(resp.Header.Get("X-Ratelimit-Reset-Requests")); err != nil {
		t.Errorf("reset: %v", err)
	}
	_, err := c.Chat.Completions.New(within(t), hello(stack.Model))
	if took := time.Since(first); err == nil && took > window {
		r.Missed("the second request was sent too late to be refused, it was answered after %v", took)
		return
	}
	e := apiError(t, err, 429, "rate_limit_exceeded")
	if e.Type != "requests" || !strings.Contains(e.Message, "Please try again in ") || e.Response.Header.Get("X-Should-Retry") != "true" {
		t.Errorf("got %s", e.RawJSON())
	}
	checkRetryAfter(t, e.Response.Header)

	patient := client(s.BaseURL, s.LimitedKey, option.WithMaxRetries(2))
	begin := time.Now()
	if _, err := patient.Chat.Completions.New(within(t), hello(stack.Model)); err != nil {
		t.Errorf("with retries: %v", err)
	}
	if took := time.Since(first); took < window {
		t.Errorf("with retries it was answered %v after the first one", took)
	}
	r.AtMost(8*time.Second, time.Since(begin), "a request with retries")
}

// The SDK does not repeat what the gateway has repeated already.
func TestNoRetriesOnTopOfRetries(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey, option.WithMaxRetries(2))
	before := requests(s.Faulty, "chat/completions")
	_, err := c.Chat.Completions.New(within(t), hello(stack.Faulty), simulate("status=500"))
	apiError(t, err, 500, "server_error")
	if n := requests(s.Faulty, "chat/completions") - before; n != 3 {
		t.Errorf("%d requests reached the provider, want the gateway's 3 attempts", n)
	}
}

// Errors that upstreams put in shapes of their own are errors of the SDK.
func TestOddErrorsOfUpstreams(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	for _, tt := range []struct {
		name, kind, body string
		status           int
		message, code    string
	}{
		{"a text", "application/json", `{"error":"no such model"}`, 404, "no such model", "upstream_error"},
		{"an array", "application/json", `[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]`, 400, "bad", "400"},
		{"flat", "application/json", `{"object":"error","message":"bad","type":"invalid","param":null,"code":"1"}`, 400, "bad", "1"},
		{"a page", "text/html", "<html><body>not here</body></html>", 404, "the upstream answered 404 Not Found", "upstream_error"},
		{"nothing", "text/plain", "", 400, "the upstream answered 400 Bad Request", "upstream_error"},
		{"a number as code", "application/json", `{"error":{"message":"bad","type":"BadRequestError","param":null,"code":400}}`, 400, "bad", "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.Chat.Completions.New(within(t), hello(stack.Raw), rawReply(answer(tt.status, tt.kind, tt.body)))
			var e *openai.Error
			if !errors.As(err, &e) || e.StatusCode != tt.status || e.Message != tt.message || e.Code != tt.code {
				t.Errorf("got %T %v", err, err)
			}
		})
	}
}
