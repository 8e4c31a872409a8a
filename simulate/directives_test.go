package simulate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plain is a stream of 6 events: role, 3 tokens, finish, [DONE].
const plain = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there"}]}`

// scheduleOnly are the directives that a header may not have.
var scheduleOnly = map[string]bool{"p": true, "first": true, "from": true, "until": true}

// directiveTests has at least one test for every directive of the header.
var directiveTests = map[string]func(t *testing.T, s *server){
	"status": func(t *testing.T, s *server) {
		for status, kind := range map[string]string{
			"400": "invalid_request_error", "401": "invalid_request_error", "404": "invalid_request_error", "429": "requests",
			"500": "server_error", "503": "service_unavailable_error", "529": "overloaded_error",
		} {
			for _, body := range []string{chatJSON, plain} {
				a := s.ask(t, body, "status="+status)
				want(t, "type of "+status, errorOf(t, a)["type"], any(kind))
				want(t, "status", a.header.Get("Content-Type"), "application/json")
				want(t, "retry-after", a.header.Get("retry-after"), "")
			}
		}
	},
	"retry-after": func(t *testing.T, s *server) {
		a := s.ask(t, chatJSON, "status=429;retry-after=2")
		want(t, "status", a.status, 429)
		want(t, "retry-after", a.header.Get("retry-after"), "2")
		want(t, "retry-after-ms", a.header.Get("retry-after-ms"), "")
		want(t, "as it stands", s.ask(t, chatJSON, "overloaded;retry-after=-7 soon").header.Get("retry-after"), "-7 soon")
		want(t, "counted", s.Stats().Refused["fault"], int64(1))
	},
	"retry-after-ms": func(t *testing.T, s *server) {
		a := s.ask(t, chatJSON, "overloaded,retry-after-ms=120")
		want(t, "retry-after-ms", a.header.Get("retry-after-ms"), "120")
		want(t, "retry-after", a.header.Get("retry-after"), "")
	},
	"insufficient-quota": func(t *testing.T, s *server) {
		a := s.ask(t, chatJSON, "insufficient-quota")
		want(t, "status", a.status, 429)
		want(t, "type", errorOf(t, a)["type"], any("insufficient_quota"))
		want(t, "retry-after", a.header.Get("retry-after"), "")
	},
	"overloaded": func(t *testing.T, s *server) {
		a := s.ask(t, chatJSON, "overloaded")
		want(t, "status", a.status, 503)
		want(t, "code", errorOf(t, a)["code"], any("server_is_overloaded"))
		want(t, "retry-after", a.header.Get("retry-after"), "1")
	},
	"reset": func(t *testing.T, s *server) {
		for _, body := range []string{chatJSON, plain} {
			if a := s.ask(t, body, "reset"); !broken(a.err) || a.status != 0 {
				t.Errorf("status %d, error %v, want a reset before any byte", a.status, a.err)
			}
		}
		s.idle(t)
		want(t, "counted as without status", s.Stats().Requests["chat/completions"]["0"], int64(2))
	},
	"reset-after": func(t *testing.T, s *server) {
		a := s.ask(t, plain, "reset-after=2")
		want(t, "events", len(events(a.body)), 2)
		want(t, "broken", broken(a.err), true)
		a = s.ask(t, plain, "reset-after=100b")
		want(t, "bytes", len(a.body), 100)
		want(t, "broken", broken(a.err), true)
		for _, after := range []string{"20", "20b"} {
			a = s.ask(t, chatJSON, "reset-after="+after)
			want(t, "status", a.status, 200)
			want(t, "bytes of JSON", len(a.body), 20)
			want(t, "broken", a.err != nil, true)
		}
		a = s.ask(t, plain, "reset-after=0")
		want(t, "status", a.status, 200)
		want(t, "nothing", a.body, "")
		want(t, "broken", broken(a.err), true)
	},
	"hang": func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := s.start(ctx, chatJSON, "hang"); done <- err }()
		eventually(t, "in flight", func() bool { return s.Stats().InFlight == 1 })
		cancel()
		want(t, "error", errors.Is(<-done, context.Canceled), true)
		s.idle(t)
		want(t, "abandoned", s.Stats().Abandoned, int64(1))
	},
	"stall-after": func(t *testing.T, s *server) {
		for _, test := range []struct {
			body, after string
			begins      int
		}{{plain, "0", 0}, {plain, "2", 2}, {plain, "6", 6}} {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := s.start(ctx, test.body, "stall-after="+test.after)
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(resp.Body)
			for range test.begins * 2 {
				if line, err := r.ReadString('\n'); err != nil {
					t.Fatalf("after %q: %v", line, err)
				}
			}
			want(t, "in flight", s.Stats().InFlight, 1)
			cancel()
			resp.Body.Close()
			s.idle(t)
		}
		want(t, "aborted", s.Stats().Streams.Aborted, int64(3))
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := s.start(ctx, chatJSON, "stall-after=10")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cancel()
		resp.Body.Close()
		s.idle(t)
	},
	"truncate-after": func(t *testing.T, s *server) {
		a := s.ask(t, plain, "truncate-after=2")
		want(t, "clean end", a.err, error(nil))
		want(t, "events", len(events(a.body)), 2)
		want(t, "nothing", s.ask(t, plain, "truncate-after=0").body, "")
		want(t, "longer than the stream", strings.HasSuffix(s.ask(t, plain, "truncate-after=99").body, "[DONE]\n\n"), true)
		a = s.ask(t, chatJSON, "truncate-after=30")
		want(t, "bytes", len(a.body), 30)
		want(t, "short of what was declared", errors.Is(a.err, io.ErrUnexpectedEOF), true)
		s.idle(t)
		want(t, "cut streams", s.Stats().Streams.Cut, int64(2))
	},
	"error-event-after": func(t *testing.T, s *server) {
		for after, at := range map[string]int{"0": 0, "2": 2} {
			a := s.ask(t, plain, "error-event-after="+after)
			list := events(a.body)
			want(t, "status", a.status, 200)
			want(t, "events", len(list), at+1)
			e, ok := data(t, list[at])["error"].(map[string]any)
			want(t, "is an error", ok, true)
			want(t, "type", e["type"], any("server_error"))
			want(t, "clean end", a.err, error(nil))
		}
	},
	"no-usage": func(t *testing.T, s *server) {
		for _, body := range []string{chatJSON, chatStream} {
			if a := s.ask(t, body, "no-usage"); strings.Contains(a.body, "prompt_tokens") {
				t.Errorf("has usage: %s", a.body)
			}
		}
	},
	"no-done": func(t *testing.T, s *server) {
		a := s.ask(t, plain, "no-done")
		want(t, "clean end", a.err, error(nil))
		want(t, "done", strings.Contains(a.body, "[DONE]"), false)
		want(t, "finish", strings.Contains(a.body, `"finish_reason":"stop"`), true)
	},
	"garbage": func(t *testing.T, s *server) {
		for _, test := range []struct{ body, directive, contentType string }{
			{chatJSON, "garbage", "application/json"}, {chatJSON, "garbage=json", "application/json"},
			{chatJSON, "garbage=html", "text/html"}, {plain, "garbage=html", "text/html"},
			{plain, "garbage", "text/event-stream; charset=utf-8"},
		} {
			a := s.ask(t, test.body, test.directive)
			want(t, "status", a.status, 200)
			want(t, "content type", a.header.Get("Content-Type"), test.contentType)
			want(t, "valid", json.Valid([]byte(strings.TrimPrefix(a.body, "data: "))), false)
		}
	},
	"split": func(t *testing.T, s *server) {
		whole := normal(s.ask(t, plain, "").body)
		for _, n := range []string{"1", "7", "1000000"} {
			a := s.ask(t, plain, "split="+n)
			want(t, "same bytes", normal(a.body), whole)
		}
		want(t, "events before a stall", len(events(readStall(t, s, "split=50,stall-after=3", 3))), 3)
		a := s.ask(t, chatJSON, "split=5")
		want(t, "JSON", json.Valid([]byte(a.body)), true)
	},
	"comment-first": func(t *testing.T, s *server) {
		a := s.ask(t, plain, "comment-first=2")
		list := events(a.body)
		for _, e := range list[:2] {
			want(t, "comment", strings.HasPrefix(e, ": "), true)
		}
		want(t, "then events", len(list), 2+6)
		// It arrives while the first token is far away.
		want(t, "at once", strings.HasPrefix(readStall(t, s, "comment-first,ttft=1h", 1), ": "), true)
		want(t, "comments are no events", len(events(s.ask(t, plain, "comment-first,truncate-after=1").body)), 2)
	},
	"slow-body": func(t *testing.T, s *server) {
		a := s.ask(t, chatJSON, "slow-body=1us")
		want(t, "JSON", json.Valid([]byte(a.body)), true)
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := s.start(ctx, chatJSON, "slow-body=1h")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, slowPiece)); err != nil {
			t.Fatal(err)
		}
		cancel()
		resp.Body.Close()
		s.idle(t)
	},
	"echo-key": func(t *testing.T, s *server) {
		for _, test := range []struct{ body, directives string }{
			{chatJSON, "echo-key"}, {plain, "echo-key"}, {chatJSON, "echo-key,status=401"}, {plain, "echo-key,split=3"},
		} {
			a := s.ask(t, test.body, test.directives)
			want(t, "header", a.header.Get("x-simulate-authorization"), "Bearer sk-client")
			want(t, "body", strings.Contains(a.body, `"received_authorization":"Bearer sk-client"`), true)
			if strings.HasPrefix(a.body, "data: ") {
				data(t, events(a.body)[0])
			} else {
				want(t, "valid", json.Valid([]byte(a.body)), true)
			}
		}
		want(t, "message", errorOf(t, s.ask(t, chatJSON, "echo-key,status=401"))["message"].(string), "Simulated error 401 Unauthorized. Authorization: Bearer sk-client")
	},
	"ttft": func(t *testing.T, s *server) {
		start := time.Now()
		s.ask(t, plain, "ttft=30ms")
		if d := time.Since(start); d < 30*time.Millisecond {
			t.Errorf("answered after %s", d)
		}
	},
	"token-time": func(t *testing.T, s *server) {
		start := time.Now()
		s.ask(t, plain, "token-time=15ms")
		if d := time.Since(start); d < 30*time.Millisecond {
			t.Errorf("three tokens took %s", d)
		}
	},
	"tokens": func(t *testing.T, s *server) {
		want(t, "events", len(events(s.ask(t, plain, "tokens=11").body)), 14)
		want(t, "empty", strings.Contains(s.ask(t, chatJSON, "tokens=0").body, `"completion_tokens":0`), true)
	},
	"cached": func(t *testing.T, s *server) {
		want(t, "some", strings.Contains(s.ask(t, chatJSON, "cached=2").body, `"cached_tokens":2`), true)
		want(t, "not above the prompt", strings.Contains(s.ask(t, chatStream, "cached=50").body, `"cached_tokens":3`), true)
	},
	"reasoning": func(t *testing.T, s *server) {
		a := s.ask(t, chatStream, "reasoning=5")
		want(t, "part of the output", strings.Contains(a.body, `"completion_tokens":8,"total_tokens":11`), true)
		want(t, "named", strings.Contains(a.body, `"reasoning_tokens":5`), true)
		want(t, "visible", len(events(a.body)), 7)
	},
}

func errorOf(t *testing.T, a answer) map[string]any {
	t.Helper()
	var v struct{ Error map[string]any }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Error == nil {
		t.Fatalf("not an error in OpenAI's form: %q (%v, %v)", a.body, err, a.err)
	}
	return v.Error
}

// broken says whether err is what a broken connection gives.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// readStall reads n events of a stream that never ends, then leaves.
func readStall(t *testing.T, s *server, directives string, n int) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := s.start(ctx, plain, directives)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r, got := bufio.NewReader(resp.Body), ""
	for strings.Count(got, "\n\n") < n {
		line, err := r.ReadString('\n')
		if got += line; err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
	}
	return got
}

func TestDirectives(t *testing.T) {
	for _, d := range directives {
		if scheduleOnly[d.name] {
			continue
		}
		test := directiveTests[d.name]
		if test == nil {
			t.Errorf("directive %s has no test", d.name)
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			s := serve(t, fast())
			test(t, s)
			s.client.CloseIdleConnections()
			s.idle(t)
		})
	}
}

func TestDirectivesOnResponses(t *testing.T) {
	p := New(fast())
	body := `{"model":"m","stream":true,"input":"hi"}`
	w := do(t, p, "POST", "/v1/responses", body, "x-simulate", "error-event-after=2")
	kinds := responseKinds(t, w.Body.String())
	want(t, "last", kinds[len(kinds)-1], "error")
	want(t, "code", at(t, data(t, events(w.Body.String())[2]), "code"), "server_error")
	w = do(t, p, "POST", "/v1/responses", body, "x-simulate", "truncate-after=4")
	want(t, "events", len(responseKinds(t, w.Body.String())), 4)
	w = do(t, p, "POST", "/v1/responses", body, "x-simulate", "echo-key", "Authorization", "Bearer sk-x")
	want(t, "key", at(t, data(t, events(w.Body.String())[0]), "received_authorization"), "Bearer sk-x")
	w = do(t, p, "POST", "/v1/responses", body, "x-simulate", "no-usage")
	list := events(w.Body.String())
	want(t, "usage", at(t, data(t, list[len(list)-1]), "response", "usage"), nil)
}

func TestFaultsOnUnmeteredEndpoints(t *testing.T) {
	s := serve(t, fast())
	get := func(directives string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("x-simulate", directives)
		return s.client.Do(r)
	}
	resp, err := get("status=503")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want(t, "status", resp.StatusCode, 503)
	resp, err = get("reset")
	if !broken(err) {
		t.Errorf("error %v, want a reset", err)
	}
	if err == nil {
		resp.Body.Close()
	}
}

// A writer that cannot be hijacked, as of HTTP/2, ends by ErrAbortHandler.
func TestResetWithoutHijack(t *testing.T) {
	p := New(fast())
	func() {
		defer func() { want(t, "panic", recover(), any(http.ErrAbortHandler)) }()
		do(t, p, "POST", "/v1/chat/completions", chatJSON, "x-simulate", "reset")
	}()
	want(t, "in flight", p.Stats().InFlight, 0)
	want(t, "open", p.Stats().Open, 0)
}
