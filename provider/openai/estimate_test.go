package openai

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"penstock/provider"
)

func TestScanInputEstimate(t *testing.T) {
	blob := strings.Repeat("QUJD", 10_000)
	tests := []struct {
		name, path, body string
		text, parts      int64
	}{
		{"message", "/chat/completions", `{"messages":[{"role":"user","content":"12345"}]}`, 4 + 5, 0},
		{"not read by the model", "/chat/completions", `{"metadata":{"a":"x"},"user":"u","seed":7,"logit_bias":{"5":1},"safety_identifier":"s"}`, 0, 0},
		{"names of tools", "/chat/completions", `{"tools":[{"name":"f","image_url":{"type":"file"}}]}`, 4 + 1 + 9 + 4 + 4, 0},
		{"schema", "/responses", `{"text":{"format":{"a":"b"}},"instructions":"12"}`, 6 + 1 + 1 + 2, 0},
		{"escapes", "/chat/completions", `{"messages":"a\n\"\\\u00e9\ud83d\ude00"}`, 1 + 3 + 3 + 4, 0},
		{"image", "/chat/completions", `{"messages":[{"content":[{"type":"text","text":"hi"},{"image_url":{"url":"data:image/png;base64,` + blob + `","detail":"low"},"type":"image_url"}]}]}`,
			4 + 2 + 9, 1000},
		{"image of responses", "/responses", `{"input":[{"type":"message","content":[{"type":"input_image","image_url":"https://x/y.png"},{"type":"input_image","file_id":"f"}]}]}`,
			7 + 11 + 11, 2000},
		{"audio", "/chat/completions", `{"messages":[{"content":[{"type":"input_audio","input_audio":{"data":"` + blob + `","format":"wav"}}]}]}`, 11, 2000},
		{"file", "/chat/completions", `{"messages":[{"content":[{"type":"file","file":{"file_data":"` + blob + `","filename":"a.pdf"}}]}]}`, 4, 3000},
		{"file of responses", "/responses", `{"input":[{"content":[{"type":"input_file","file_data":"` + blob + `"}]}]}`, 10, 3000},
		{"screenshot", "/responses", `{"input":[{"type":"computer_call_output","output":{"type":"computer_screenshot","image_url":"` + blob + `"}}]}`, 20 + 19, 1000},
		{"generated image", "/responses", `{"input":[{"type":"image_generation_call","result":"` + blob + `"}]}`, 21, 1000},
		{"a part cannot hide text", "/chat/completions", `{"messages":[{"type":"image_url","content":"12345"}]}`, 9 + 5, 1000},
		{"data without a type is text", "/chat/completions", `{"messages":[{"image_url":"12345"}]}`, 5, 0},
		{"prompts", "/completions", `{"prompt":["ab","cde"]}`, 5, 0},
		{"prompt tokens", "/completions", `{"prompt":[1,22,-3]}`, 0, 3},
		{"prompts of tokens", "/completions", `{"prompt":[[1,2],[3]]}`, 0, 3},
		{"embedding tokens", "/embeddings", `{"input":[[1,2],[3,4]]}`, 0, 4},
		{"stored prompt", "/responses", `{"prompt":{"id":"p","variables":{"city":"Rome"}}}`, 5, 0},
		{"image edit", "/images/edits", `{"prompt":"ab","images":[{"image_url":"` + blob + `"},{"file_id":"f"}],"mask":{"file_id":"m"}}`, 2, 2000},
		{"image edit, one", "/images/edits", `{"image":"` + blob + `"}`, 0, 1000},
		{"image edit, null", "/images/edits", `{"image":null}`, 0, 0},
		{"images elsewhere", "/chat/completions", `{"images":["a"]}`, 0, 0},
		{"decision", "/decisions", `{"questions":[{"text":"1234"}],"context":"56"}`, 6, 0},
		{"empty and spaced", "/chat/completions", "{ \"messages\" : [ { } , [ ] , { \"a\" : \"b\" , \"c\" : [ \"d\" ] } ] }", 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &provider.Call{Op: operation(t, tt.path), Model: "m", Body: []byte(tt.body)}
			if err := Scan(c, testBounds); err != nil {
				t.Fatal(err)
			}
			if c.InputText != tt.text || c.InputParts != tt.parts {
				t.Errorf("%d bytes and %d tokens, want %d and %d", c.InputText, c.InputParts, tt.text, tt.parts)
			}
		})
	}
}

// jsonValue generates any value, of bounded depth.
func jsonValue(depth int) *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.String(), func(s string) any { return s }))
	if depth == 0 {
		return scalar
	}
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return jsonValue(depth - 1) }), 0, 4), func(s []any) any { return s }),
		rapid.Map(rapid.MapOfN(rapid.String(), rapid.Deferred(func() *rapid.Generator[any] { return jsonValue(depth - 1) }), 0, 4),
			func(m map[string]any) any { return m }))
}

// The walker finds the ends of values and members where they are, and counts
// every string, by comparison with encoding/json.
func TestWalkerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := jsonValue(4).Draw(t, "value")
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "spaced") {
			if body, err = json.MarshalIndent(v, " ", "\t"); err != nil {
				t.Fatal(err)
			}
		}
		tail := rapid.SampledFrom([]string{"", "]", " , ", "}"}).Draw(t, "tail")
		b := append(body[:len(body):len(body)], tail...)
		if end := skipValue(b, 0); end != len(body) {
			t.Fatalf("skipValue ends at %d of %d in %q", end, len(body), b)
		}
		w := walker{b: b, lim: &Bounds{}, maxDepth: 10, names: true}
		end, sum := w.value(0, 1)
		if end != len(body) {
			t.Fatalf("value ends at %d of %d in %q", end, len(body), b)
		}
		if least, most := stringBytes(v); sum.text < least || sum.text > most {
			t.Fatalf("%d bytes of text, want %d to %d, in %q", sum.text, least, most, b)
		}
		if m, ok := v.(map[string]any); ok {
			n := 0
			members(b, 0, func(name []byte, at provider.Span) bool {
				var got any
				if err := json.Unmarshal(b[at.Start:at.End], &got); err != nil {
					t.Fatalf("member %d of %q: %v", n, b, err)
				}
				if _, ok := m[unquote(name)]; !ok {
					t.Fatalf("no member %q in %q", name, b)
				}
				n++
				return true
			})
			if n != len(m) {
				t.Fatalf("%d members of %d in %q", n, len(m), b)
			}
		}
		if s, ok := v.([]any); ok {
			if n, _ := count(b, 0); n != int64(len(s)) {
				t.Fatalf("%d elements of %d in %q", n, len(s), b)
			}
		}
	})
}

// stringBytes bounds the text of a value: \uXXXX stands for 1 to 3 bytes and
// counts as 3.
func stringBytes(v any) (least, most int64) {
	each := func(v any) {
		l, m := stringBytes(v)
		least, most = least+l, most+m
	}
	switch v := v.(type) {
	case string:
		return int64(len(v)), 3 * int64(len(v))
	case []any:
		for _, e := range v {
			each(e)
		}
	case map[string]any:
		for name, e := range v {
			each(name)
			each(e)
		}
	}
	return least, most
}
