package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"penstock/e2e/clients/stack"
)

// client is an SDK client with a key of the gateway. It does not retry unless a
// test says so, so that each test sees what the gateway itself did.
func client(baseURL, key string, opts ...option.RequestOption) openai.Client {
	all := []option.RequestOption{option.WithBaseURL(baseURL), option.WithAPIKey(key), option.WithMaxRetries(0), option.WithUnsafeAllowHTTP()}
	return openai.NewClient(append(all, opts...)...)
}

// within bounds a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// simulate is a request option that asks the provider for a fault.
func simulate(directives string) option.RequestOption {
	return option.WithHeader("x-simulate", directives)
}

// hello is a small chat request.
func hello(model string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello, gateway!")}}
}

// apiError is the SDK's error of a status, or the end of the test.
func apiError(t *testing.T, err error, status int, code string) *openai.Error {
	t.Helper()
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want an API error %d", err, err, status)
	}
	if e.StatusCode != status || e.Code != code {
		t.Fatalf("got status %d, code %q, message %q; want %d, %q", e.StatusCode, e.Code, e.Message, status, code)
	}
	if e.Message == "" || e.Type == "" {
		t.Errorf("error lacks message or type: %s", e.RawJSON())
	}
	checkOwnHeaders(t, e.Response.Header)
	return e
}

// checkOwnHeaders wants what every answer of the gateway carries.
func checkOwnHeaders(t *testing.T, h http.Header) {
	t.Helper()
	if !strings.HasPrefix(h.Get("X-Request-Id"), "req_") {
		t.Errorf("x-request-id is %q", h.Get("X-Request-Id"))
	}
	for _, part := range []string{"queue;dur=", "upstream;dur=", "overhead;dur="} {
		if !strings.Contains(h.Get("Server-Timing"), part) {
			t.Errorf("server-timing %q lacks %q", h.Get("Server-Timing"), part)
		}
	}
}

// post sends a body as it is, without an SDK.
func post(t *testing.T, url, key, body string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return resp, b
}

// checkErrorBody wants the API's JSON error object.
//
// covers CL-07
func checkErrorBody(t *testing.T, resp *http.Response, body []byte, status int, code string) {
	t.Helper()
	var e struct {
		Error *struct {
			Message, Type, Code string
			Param               *string
		}
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Error == nil {
		t.Fatalf("status %d, not an error object: %.300s", resp.StatusCode, body)
	}
	if resp.StatusCode != status || e.Error.Code != code || e.Error.Message == "" || e.Error.Type == "" {
		t.Errorf("got status %d, %+v; want %d, code %q", resp.StatusCode, *e.Error, status, code)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("Content-Type is %q", kind)
	}
	if len(body) > 4<<10 {
		t.Errorf("the error has %d bytes", len(body))
	}
	for _, secret := range []string{"127.0.0.1", stack.UpstreamKey, stack.ClientKey, ".go:"} {
		if strings.Contains(string(body), secret) {
			t.Errorf("the error shows %q: %s", secret, body)
		}
	}
	checkOwnHeaders(t, resp.Header)
}

// recorded is the request that arrived at a provider under a name.
func recorded(t *testing.T, r *stack.Recorder, name string) stack.Record {
	t.Helper()
	rec, ok := r.Recorded(name)
	if !ok {
		t.Fatalf("no request %q has arrived at the provider", name)
	}
	return rec
}

// requests is how many requests to an endpoint have ended at a provider.
func requests(r *stack.Recorder, endpoint string) (n int64) {
	for _, count := range r.Stats().Requests[endpoint] {
		n += count
	}
	return n
}

// rawReply makes the raw upstream answer with the bytes given, in parts.
func rawReply(parts ...string) option.RequestOption {
	return option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		r.Header[stack.RawHeader] = stack.RawParts(parts...)
		return next(r)
	})
}

// rawJSON makes the raw upstream answer with a status and JSON.
func rawJSON(status int, body string, headers ...string) option.RequestOption {
	return rawReply(answer(status, "application/json", body, headers...))
}

// rawStream makes the raw upstream answer with an event stream in parts.
func rawStream(parts ...string) option.RequestOption {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	return rawReply(append([]string{head}, parts...)...)
}

// answer is an answer as it stands on the wire.
func answer(status int, kind, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n", status, http.StatusText(status), kind, len(body))
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// postCut sends a body and reads an answer whose connection may break off.
func postCut(t *testing.T, url, key, body string, headers ...string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// simulating is an HTTP client that asks the provider for a fault.
type simulating struct{ directives string }

func (s simulating) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("x-simulate", s.directives)
	return http.DefaultClient.Do(r)
}
