package simulate

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func chunk(choices, rest string) string {
	return `data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"m","service_tier":"default","system_fingerprint":"fp_simulated","choices":[` +
		choices + `]` + rest + `}`
}

func delta(index int, d, finish string) string {
	return fmt.Sprintf(`{"index":%d,"delta":%s,"logprobs":null,"finish_reason":%s}`, index, d, finish)
}

func sameEvents(t *testing.T, got string, want ...string) {
	t.Helper()
	list := events(normal(got))
	for i := range max(len(list), len(want)) {
		switch {
		case i >= len(list):
			t.Fatalf("event %d is missing: %s", i, want[i])
		case i >= len(want):
			t.Fatalf("event %d is too many: %s", i, list[i])
		case list[i] != want[i]:
			t.Fatalf("event %d:\n got %s\nwant %s", i, list[i], want[i])
		}
	}
}

const chatUsage = `,"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
	`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`

func TestChatStream(t *testing.T) {
	w := do(t, New(fast()), "POST", "/v1/chat/completions", chatStream)
	want(t, "content type", w.Header().Get("Content-Type"), "text/event-stream; charset=utf-8")
	sameEvents(t, w.Body.String(),
		chunk(delta(0, `{"role":"assistant","content":"","refusal":null}`, "null"), `,"usage":null`),
		chunk(delta(0, `{"content":"the"}`, "null"), `,"usage":null`),
		chunk(delta(0, `{"content":" river"}`, "null"), `,"usage":null`),
		chunk(delta(0, `{"content":" runs"}`, "null"), `,"usage":null`),
		chunk(delta(0, `{}`, `"stop"`), `,"usage":null`),
		chunk("", chatUsage),
		"data: [DONE]")
}

func TestChatStreamPlain(t *testing.T) {
	body := `{"model":"m","stream":true,"max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	w := do(t, New(fast()), "POST", "/chat/completions", body)
	sameEvents(t, w.Body.String(),
		chunk(delta(0, `{"role":"assistant","content":"","refusal":null}`, "null"), ""),
		chunk(delta(0, `{"content":"the"}`, "null"), ""),
		chunk(delta(0, `{}`, `"length"`), ""),
		"data: [DONE]")
}

func TestChatStreamChoicesInChunks(t *testing.T) {
	c := fast()
	c.ChunkTokens = 2
	body := `{"model":"m","stream":true,"n":2,"messages":[{"role":"user","content":"hi"}]}`
	w := do(t, New(c), "POST", "/chat/completions", body)
	role := `{"role":"assistant","content":"","refusal":null}`
	sameEvents(t, w.Body.String(),
		chunk(delta(0, role, "null"), ""), chunk(delta(1, role, "null"), ""),
		chunk(delta(0, `{"content":"the river"}`, "null"), ""), chunk(delta(1, `{"content":"where two"}`, "null"), ""),
		chunk(delta(0, `{"content":" runs"}`, "null"), ""), chunk(delta(1, `{"content":" cats"}`, "null"), ""),
		chunk(delta(0, `{}`, `"stop"`), ""), chunk(delta(1, `{}`, `"stop"`), ""),
		"data: [DONE]")
}

const weatherTool = `{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}}}`

func TestChatStreamToolCall(t *testing.T) {
	body := `{"model":"m","stream":true,"tools":[` + weatherTool + `],"messages":[{"role":"user","content":"use the Tool, please"}]}`
	w := do(t, New(fast()), "POST", "/chat/completions", body)
	part := func(s string) string {
		return chunk(delta(0, `{"tool_calls":[{"index":0,"function":{"arguments":"`+s+`"}}]}`, "null"), "")
	}
	sameEvents(t, w.Body.String(),
		chunk(delta(0, `{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_ID_0","type":"function","function":{"name":"weather","arguments":""}}]}`, "null"), ""),
		part(`{\"n\"`), part(`:1}`),
		chunk(delta(0, `{}`, `"tool_calls"`), ""),
		"data: [DONE]")
}

func TestCompletionStream(t *testing.T) {
	body := `{"model":"m","stream":true,"prompt":"hello there","stream_options":{"include_usage":true}}`
	w := do(t, New(fast()), "POST", "/v1/completions", body)
	ev := func(choices, usage string) string {
		return strings.ReplaceAll(strings.ReplaceAll(chunk(choices, usage), "chatcmpl-", "cmpl-"), "chat.completion.chunk", "text_completion")
	}
	text := func(s, finish string) string {
		return ev(`{"text":"`+s+`","index":0,"logprobs":null,"finish_reason":`+finish+`}`, `,"usage":null`)
	}
	sameEvents(t, w.Body.String(), text("the", "null"), text(" river", "null"), text(" runs", "null"), text("", `"stop"`),
		ev("", chatUsage), "data: [DONE]")
}

// responseKinds checks that types and sequence numbers agree, and lists the types.
func responseKinds(t *testing.T, stream string) []string {
	t.Helper()
	var kinds []string
	for i, e := range events(stream) {
		first, _, _ := strings.Cut(e, "\n")
		v := data(t, e)
		kind := at(t, v, "type").(string)
		want(t, "event line", first, "event: "+kind)
		want(t, "sequence number", at(t, v, "sequence_number"), float64(i))
		kinds = append(kinds, strings.TrimPrefix(kind, "response."))
	}
	return kinds
}

func TestResponseStream(t *testing.T) {
	p := New(fast())
	w := do(t, p, "POST", "/v1/responses", `{"model":"m","stream":true,"input":"hello there"}`)
	got := strings.Join(responseKinds(t, w.Body.String()), " ")
	want(t, "events", got, "created in_progress output_item.added content_part.added output_text.delta output_text.delta output_text.delta "+
		"output_text.done content_part.done output_item.done completed")
	list := events(normal(w.Body.String()))
	want(t, "delta", list[5], "event: response.output_text.delta\n"+
		`data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_ID","output_index":0,"content_index":0,"delta":" river","logprobs":[]}`)
	want(t, "usage before the end", at(t, data(t, list[0]), "response", "usage"), nil)
	want(t, "text done", at(t, data(t, list[7]), "text"), "the river runs")
	last := at(t, data(t, list[10]), "response")
	want(t, "status", at(t, last, "status"), "completed")
	want(t, "text", at(t, last, "output", 0, "content", 0, "text"), "the river runs")
	want(t, "output tokens", at(t, last, "usage", "output_tokens"), 3.0)
	want(t, "total", at(t, last, "usage", "total_tokens"), 6.0)
}

func TestResponseStreamIncomplete(t *testing.T) {
	w := do(t, New(fast()), "POST", "/v1/responses", `{"model":"m","stream":true,"max_output_tokens":2,"input":"hi"}`)
	kinds := responseKinds(t, w.Body.String())
	want(t, "last event", kinds[len(kinds)-1], "incomplete")
	list := events(w.Body.String())
	last := at(t, data(t, list[len(list)-1]), "response")
	want(t, "reason", at(t, last, "incomplete_details", "reason"), "max_output_tokens")
}

func TestResponseStreamToolCall(t *testing.T) {
	body := `{"model":"m","stream":true,"input":"hi","tool_choice":"required","tools":[{"type":"function","name":"weather","parameters":{}}]}`
	w := do(t, New(fast()), "POST", "/v1/responses", body)
	want(t, "events", strings.Join(responseKinds(t, w.Body.String()), " "), "created in_progress output_item.added "+
		"function_call_arguments.delta function_call_arguments.done output_item.done completed")
	list := events(w.Body.String())
	want(t, "arguments", at(t, data(t, list[6]), "response", "output", 0, "arguments"), "{}")
	want(t, "type", at(t, data(t, list[6]), "response", "output", 0, "type"), "function_call")
}

func TestPacing(t *testing.T) {
	const ttft, each = 2 * time.Second, 100 * time.Millisecond
	streamed := `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	for name, test := range map[string]struct {
		body, directives string
		chunk            int
		takes            time.Duration
	}{
		"stream":             {streamed, "", 1, ttft + 9*each},
		"stream in chunks":   {streamed, "", 4, ttft + 6*each}, // 4 at once, then 4, then 2
		"json":               {chatJSON, "", 1, ttft + 9*each},
		"reasoning, stream":  {streamed, "reasoning=5", 1, ttft + 14*each},
		"reasoning, json":    {chatJSON, "reasoning=5", 1, ttft + 14*each},
		"directives":         {streamed, "ttft=1s,token-time=1s,tokens=3", 1, 3 * time.Second},
		"no time at all":     {streamed, "ttft=0s,token-time=0s", 1, 0},
		"an error in time":   {chatJSON, "status=500,ttft=3s", 1, 3 * time.Second},
		"an error at once":   {chatJSON, "status=500", 1, 0},
		"nothing to produce": {streamed, "tokens=0", 1, ttft},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(Config{TTFT: ttft, TokenTime: each, OutputTokens: 10, ChunkTokens: test.chunk})
				start := time.Now()
				do(t, p, "POST", "/v1/chat/completions", test.body, "x-simulate", test.directives)
				want(t, "time", time.Since(start), test.takes)
			})
		})
	}
}

func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{TTFT: time.Second, TTFTJitter: time.Second, TokenTime: NoWait})
		var least, most time.Duration = time.Hour, 0
		for range 50 {
			start := time.Now()
			do(t, p, "POST", "/v1/chat/completions", chatJSON)
			least, most = min(least, time.Since(start)), max(most, time.Since(start))
		}
		if least < time.Second || most >= 2*time.Second || most-least < 700*time.Millisecond {
			t.Errorf("from %s to %s, want most of 1 s to 2 s", least, most)
		}
	})
}

func TestZeroConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		v := object(t, do(t, New(Config{}), "POST", "/v1/chat/completions", chatJSON), 200)
		want(t, "tokens", at(t, v, "usage", "completion_tokens"), float64(DefaultOutputTokens))
		want(t, "time", time.Since(start), DefaultTTFT+(DefaultOutputTokens-1)*DefaultTokenTime)
	})
}
