package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fast is a provider without waiting and with short answers.
func fast() Config { return Config{TTFT: NoWait, TokenTime: NoWait, OutputTokens: 3} }

// do sends a request straight to the handler.
func do(t *testing.T, p *Provider, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// object decodes an answer with the expected status.
func object(t *testing.T, w *httptest.ResponseRecorder, status int) map[string]any {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("answer is not an object: %v: %s", err, w.Body)
	}
	return v
}

// at walks objects by name and arrays by number.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("%v: not an object at %q: %v", path, step, v)
			}
			if v, ok = m[step]; !ok {
				t.Fatalf("%v: no member %q in %v", path, step, m)
			}
		case int:
			a, ok := v.([]any)
			if !ok || step >= len(a) {
				t.Fatalf("%v: no entry %d in %v", path, step, v)
			}
			v = a[step]
		}
	}
	return v
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// server is a provider on a loopback port.
type server struct {
	*Provider
	url    string
	client *http.Client
}

func serve(t *testing.T, c Config) *server {
	t.Helper()
	p := New(c)
	s := httptest.NewServer(p)
	t.Cleanup(func() {
		s.CloseClientConnections() // a request that hangs must not hang the test
		s.Close()
	})
	s.Client().Timeout = 30 * time.Second
	return &server{Provider: p, url: s.URL, client: s.Client()}
}

// start sends a chat request under ctx and returns the answer's beginning.
func (s *server) start(ctx context.Context, body, directives string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer sk-client")
	r.Header.Set("x-simulate", directives)
	return s.client.Do(r)
}

func (s *server) post(t *testing.T, path, contentType string, body io.Reader) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	return s.client.Do(r)
}

// answer is all of an answer. err is that of the request or of reading the body.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (s *server) ask(t *testing.T, body, directives string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := s.start(ctx, body, directives)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(got), err}
}

// idle waits until no request is open or in flight.
func (s *server) idle(t *testing.T) {
	t.Helper()
	eventually(t, "no request open", func() bool {
		st := s.Stats()
		return st.Open == 0 && st.InFlight == 0
	})
}

// eventually polls a condition for real sockets.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// Requests used by many tests: "hello there" is 11 bytes, so 3 tokens.
const (
	chatJSON   = `{"model":"m","messages":[{"role":"user","content":"hello there"}]}`
	chatStream = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hello there"}]}`
)

var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(chatcmpl-|cmpl-|resp_|msg_|fc_|call_)[0-9a-f]{9,}`), "${1}ID"},
	{regexp.MustCompile(`"(created|created_at)":\d+`), `"$1":0`},
}

// normal replaces ids and times, which differ from run to run.
func normal(s string) string {
	for _, c := range changing {
		s = c.pattern.ReplaceAllString(s, c.with)
	}
	return s
}

// events splits a stream at blank lines.
func events(stream string) []string {
	return strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n")
}

// data decodes the data line of an event.
func data(t *testing.T, event string) map[string]any {
	t.Helper()
	_, payload, ok := strings.Cut("\n"+event, "\ndata: ")
	var v map[string]any
	if err := json.NewDecoder(bytes.NewReader([]byte(payload))).Decode(&v); !ok || err != nil {
		t.Fatalf("event without an object: %q", event)
	}
	return v
}

// pass lets the time of a synctest bubble go by.
func pass(d time.Duration) { <-time.After(d) }
