package openai

import (
	"fmt"
	"strings"
	"testing"

	"penstock/provider"
)

// chatBody returns a chat request of about size bytes, with turns of a few
// hundred bytes and some escapes, as agents send them.
func chatBody(size int, last bool) []byte {
	var b strings.Builder
	head := `"model":"gpt-6-sol","stream":true,"temperature":0.7,"max_completion_tokens":1024`
	b.WriteString("{")
	if !last {
		b.WriteString(head + ",")
	}
	b.WriteString(`"messages":[{"role":"system","content":"You answer in short sentences."}`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,{"role":"user","content":"Turn %d: `, i)
		for range 6 {
			b.WriteString(`The gate opens when the water in the upper basin has reached the mark, and \"closes\" after it.\n`)
		}
		b.WriteString(`"}`)
	}
	b.WriteString("]")
	if last {
		b.WriteString("," + head)
	}
	b.WriteString("}")
	return []byte(b.String())
}

func BenchmarkScan(b *testing.B) {
	bodies := []struct {
		name string
		body []byte
	}{
		{"300B", chatBody(300, false)},
		{"32KB", chatBody(32<<10, false)},
		{"32KB-last", chatBody(32<<10, true)},
		{"32KB-chinese", []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("水", 11<<10) + `"}]}`)},
		{"1MB-image", []byte(`{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("QUJD", 256<<10) + `"}}]}]}`)},
	}
	for _, bb := range bodies {
		b.Run(bb.name, func(b *testing.B) {
			c := &provider.Call{Op: operation(b, "/chat/completions")}
			b.SetBytes(int64(len(bb.body)))
			b.ReportAllocs()
			for b.Loop() {
				*c = provider.Call{Op: c.Op, Body: bb.body}
				if err := Scan(c, testBounds); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMask(b *testing.B) {
	events := []byte(strings.Repeat(`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764097200,"model":"bench-model","choices":[{"index":0,"delta":{"content":" is the answer"},"finish_reason":null}]}`+"\n\n", 40))
	for _, key := range []string{"bench-upstream-key", "sk-proj-9dKxQ2vT7LmZ4RbW", "sk-ant-api03-aeinst"} {
		b.Run(key, func(b *testing.B) {
			b.SetBytes(int64(len(events)))
			for b.Loop() {
				mask(events, [][]byte{[]byte(key)})
			}
		})
	}
}
