package clients

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"penstock/e2e/clients/stack"
	"penstock/e2e/harness"
)

const (
	roleChunk  = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	textChunk  = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}` + "\n\n"
	finalChunk = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	done       = "data: [DONE]\n\n"
)

// read reads a stream to its end.
func read(stream *ssestream.Stream[openai.ChatCompletionChunk]) (text string, err error) {
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			text += choice.Delta.Content
		}
	}
	return text, stream.Err()
}

// covers UP-01
func TestBrokenStreamsAreErrors(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	for _, fault := range []string{"truncate-after=4", "reset-after=4", "error-event-after=4", "truncate-after=4,split=7"} {
		t.Run(fault, func(t *testing.T) {
			text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(stack.Faulty), simulate(fault)))
			var e *ssestream.StreamError
			if text == "" || !errors.As(err, &e) || !strings.Contains(string(e.Event.Data), `"error":{`) {
				t.Errorf("got %q and %T %v", text, err, err)
			}
		})
	}
	t.Run("stall-after=4", func(t *testing.T) {
		text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(stack.Hanging), simulate("stall-after=4")))
		if text == "" || err == nil || !strings.Contains(err.Error(), "idle_timeout") {
			t.Errorf("got %q and %v", text, err)
		}
	})
	t.Run("reset within an event", func(t *testing.T) {
		text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(stack.Raw), rawStream(roleChunk+textChunk, textChunk[:50])))
		var e *ssestream.StreamError
		if text != "hi" || !errors.As(err, &e) {
			t.Errorf("got %q and %T %v", text, err, err)
		}
	})
}

// Whatever an upstream does to its stream, the SDK reads the same text from it.
func TestOddStreamsAreReadable(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	whole := roleChunk + textChunk + finalChunk + done
	for name, parts := range map[string][]string{
		"plain":               {whole},
		"byte by byte":        strings.Split(textChunk+finalChunk+done, "")[:120],
		"CRLF":                {strings.ReplaceAll(whole, "\n", "\r\n")},
		"bare CR":             {strings.ReplaceAll(whole, "\n", "\r")},
		"byte order mark":     {"\xef\xbb\xbf" + whole},
		"null error":          {roleChunk, strings.Replace(textChunk, `"id"`, `"error":null,"id"`, 1), finalChunk + done},
		"ids and retries":     {"retry: 1\n\nid: 1\n" + roleChunk, "id: 2\n" + textChunk, finalChunk + done},
		"empty data":          {roleChunk + "data:\n\n", textChunk + "data: \n\n" + finalChunk + done},
		"pings":               {roleChunk + "event: ping\n\n", textChunk + "event: ping\ndata: {\"type\":\"ping\"}\n\n" + finalChunk + done},
		"comments":            {": keep-alive\n\n", ": OPENROUTER PROCESSING\n\n", whole},
		"no last blank line":  {roleChunk + textChunk + finalChunk + "data: [DONE]"},
		"no [DONE]":           {roleChunk + textChunk + finalChunk},
		"Azure's first chunk": {`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}` + "\n\n", whole},
		"another type":        nil,
	} {
		t.Run(name, func(t *testing.T) {
			opt := rawStream(parts...)
			switch name {
			case "byte by byte":
				opt = rawStream(append(parts, (textChunk + finalChunk + done)[len(strings.Join(parts, "")):])...)
			case "another type":
				opt = rawReply(answer(200, "text/plain", whole))
			}
			text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(stack.Raw), opt))
			if text != "hi" || err != nil {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
}

// An event may be as long as an image.
func TestHugeEvents(t *testing.T) {
	picture := strings.Repeat("A", 12<<20)
	odd := harness.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"type":"image_generation.completed","b64_json":"`+picture+`","usage":{"input_tokens":3,"output_tokens":272,"total_tokens":275}}`+"\n\n")
	}))
	g := harness.Start(t, "upstreams: {odd: {base_url: "+odd+"/v1}}\n")
	c := client(g.URL+"/v1", "any")
	stream := c.Images.GenerateStreaming(within(t), openai.ImageGenerateParams{Model: "gpt-image-1", Prompt: "x"})
	if !stream.Next() || len(stream.Current().B64JSON) != len(picture) {
		t.Errorf("%v, %d bytes", stream.Err(), len(stream.Current().B64JSON))
	}
	if stream.Next() || stream.Err() != nil {
		t.Error(stream.Err())
	}
}

// Nothing of a failover reaches the client.
func TestFailover(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	for _, model := range []string{stack.FailStatus, stack.FailStream} {
		var resp *http.Response
		if _, err := c.Chat.Completions.New(within(t), hello(model), option.WithResponseInto(&resp)); err != nil {
			t.Errorf("%s: %v", model, err)
		}
		// The first upstream is passed over while it pauses after a failure, here for a
		// millisecond.
		harness.Eventually(t, 30*time.Second, model+": the second upstream answers after the first has failed", func() bool {
			text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(model), option.WithResponseInto(&resp)))
			if text == "" || err != nil || resp.Header.Get("X-Penstock-Upstream") != "main" {
				t.Errorf("%s, streamed: %q %v, headers %v", model, text, err, resp.Header)
			}
			return resp.Header.Get("X-Penstock-Attempts") == "2"
		})
	}
	for name, opt := range map[string]option.RequestOption{
		"a page behind a 200":    rawReply(answer(200, "text/html", "<h1>Log in</h1>")),
		"half a JSON object":     rawReply(answer(200, "application/json", `{"id":`)),
		"error behind a 200":     rawJSON(200, `{"error":{"message":"no provider","code":502}}`),
		"flat error in a stream": rawStream("data: {\"object\":\"error\",\"message\":\"no\"}\n\n"),
		"only comments":          rawStream(": hello\n\n"),
	} {
		if text, err := read(c.Chat.Completions.NewStreaming(within(t), hello(stack.RawFirst), opt)); text == "" || err != nil {
			t.Errorf("%s, streamed: %q %v", name, text, err)
		}
	}
}

// covers CL-01, CL-02
func TestAbortMidStream(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	ctx, cancel := context.WithCancel(within(t))
	stream := c.Chat.Completions.NewStreaming(ctx, hello(stack.Faulty), simulate("tokens=1000,token-time=20ms"))
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	cancel()
	for stream.Next() {
	}
	if !errors.Is(stream.Err(), context.Canceled) {
		t.Errorf("error is %v", stream.Err())
	}
	harness.Eventually(t, 30*time.Second, "the provider is told", func() bool { return s.Faulty.Stats().InFlight == 0 })
	harness.Eventually(t, 30*time.Second, "the abort is counted as the client's", func() bool {
		return s.Gateway.Metric(t, "penstock_requests_total", `outcome="client_closed"`) == 1
	})
	if s.Gateway.Metric(t, "penstock_attempts_total", `result="broken"`) != 0 {
		t.Error("the abort is held against the upstream")
	}
}

// The SDK closes the connection right behind [DONE], whatever the upstream does
// with its own.
//
// covers CL-02
func TestClosingBehindDoneIsSuccess(t *testing.T) {
	hold := make(chan struct{})
	lazy := harness.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, roleChunk+textChunk+finalChunk+done)
		_ = http.NewResponseController(w).Flush()
		select { // the connection stays open
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hold) })
	g := harness.Start(t, "upstreams: {lazy: {base_url: "+lazy+"/v1}}\n")
	c := client(g.URL+"/v1", "any")
	for range 5 {
		if text, err := read(c.Chat.Completions.NewStreaming(within(t), hello("m"))); text != "hi" || err != nil {
			t.Fatalf("got %q, %v", text, err)
		}
	}
	harness.Eventually(t, 30*time.Second, "five successes", func() bool {
		return g.Metric(t, "penstock_requests_total", `outcome="ok"`) == 5
	})
	if n := g.Metric(t, "penstock_requests_total", `outcome="client_closed"`); n != 0 {
		t.Errorf("%v aborts counted", n)
	}
}
