package openai

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"penstock/sse"
)

// What an event tells does not depend on the events before it.
func TestHeadsThatAreAlikeHideNothing(t *testing.T) {
	parts := []string{
		`"id":"chat-1"`, `"id":"chat-2"`, `"id":"x"`, `"created":1764097200`, `"created":1764097999`, `"object":"chat.completion.chunk"`, `"object":"error"`,
		`"type":"error"`, `"error":null`, `"error":{"message":"m"}`, `"usage":null`, `"usage":{"prompt_tokens":1,"completion_tokens":2}`,
		`"usage":{"prompt_tokens":3,"completion_tokens":4}`, `"choices":[]`, `"choices":[ ]`, `"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]`,
		`"choices":[{"index":1,"finish_reason":null,"delta":{"content":"abc"}}]`, `"choices":[{"index":1,"finish_reason":"stop","delta":{"content":null}}]`,
		`"choices":[{"delta":{"role":"assistant"}}]`, `"x":"\"content\":\"1"`, `"sequence_number":7`, `"sequence_number":8`, `"text":"1"`, `"text":2`, `"n\u0031":1`,
	}
	r := rand.New(rand.NewPCG(1, 2))
	event := func() *sse.Event {
		text := "{"
		for i := range 1 + r.IntN(4) {
			if i > 0 {
				text += ","
			}
			text += parts[r.IntN(len(parts))]
		}
		return &sse.Event{HasData: true, Data: []byte(text + "}")}
	}
	skipped := 0
	for range 30_000 {
		used := &tap{family: familyChat, choices: 1, sequence: -1}
		for range 4 {
			e := event()
			fresh := &tap{family: familyChat, choices: 1, sequence: used.sequence, usage: used.usage, finished: used.finished, events: used.events, text: used.text}
			if likeLast(used.head, e.Data) > 0 {
				skipped++
			}
			fresh.done, fresh.started, fresh.failure = used.done, used.started, used.failure
			got, want := used.see(e), fresh.see(e)
			a, b := *used, *fresh
			a.head, b.head = nil, nil
			if got != want || fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("%s after %q: got %v, %v; want %v, %v", e.Data, used.head, got, a, want, b)
			}
		}
	}
	if skipped < 1000 {
		t.Errorf("%d heads were alike, too few to tell", skipped)
	}
}

func BenchmarkTap(b *testing.B) {
	tap := &tap{family: familyChat, choices: 1}
	var events [2]*sse.Event
	for i := range events {
		events[i] = &sse.Event{HasData: true, Data: fmt.Appendf(nil, `{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":%d,"model":"bench-model","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}`, 1764097200123456789+int64(i)*123456)}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tap.see(events[i&1])
	}
}
