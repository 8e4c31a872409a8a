package simulate

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"mime/multipart"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestChatJSON(t *testing.T) {
	p := New(fast())
	w := do(t, p, "POST", "/v1/chat/completions", `{"model":"org/m","n":2,"messages":[{"role":"system","content":"be"},
		{"role":"user","content":[{"type":"text","text":"hello there"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`)
	v := object(t, w, 200)
	want(t, "object", at(t, v, "object"), "chat.completion")
	want(t, "model", at(t, v, "model"), "org/m")
	want(t, "content", at(t, v, "choices", 0, "message", "content"), "the river runs")
	want(t, "second", at(t, v, "choices", 1, "message", "content"), "where two cats")
	want(t, "index", at(t, v, "choices", 1, "index"), 1.0)
	want(t, "finish", at(t, v, "choices", 0, "finish_reason"), "stop")
	want(t, "prompt tokens", at(t, v, "usage", "prompt_tokens"), 4.0+imageTokens) // 13 bytes and a picture
	want(t, "completion tokens", at(t, v, "usage", "completion_tokens"), 6.0)
	for _, name := range []string{"x-request-id", "openai-processing-ms", "openai-version", "openai-organization"} {
		if w.Header().Get(name) == "" {
			t.Errorf("no header %s", name)
		}
	}
	want(t, "no limits, no header", w.Header().Get("x-ratelimit-limit-requests"), "")
}

func TestOutputLimit(t *testing.T) {
	for fields, tokens := range map[string]float64{
		`"max_tokens":2`:                              2,
		`"max_completion_tokens":1`:                   1,
		`"max_completion_tokens":2,"max_tokens":1`:    1,
		`"max_tokens":3`:                              3,
		`"max_tokens":null,"max_completion_tokens":9`: 3,
	} {
		v := object(t, do(t, New(fast()), "POST", "/v1/chat/completions", `{"model":"m",`+fields+`,"messages":[{"role":"user","content":"hi"}]}`), 200)
		want(t, fields, at(t, v, "usage", "completion_tokens"), tokens)
		finish := "stop"
		if tokens < 3 {
			finish = "length"
		}
		want(t, fields, at(t, v, "choices", 0, "finish_reason"), finish)
		words := strings.Fields(at(t, v, "choices", 0, "message", "content").(string))
		want(t, "words of "+fields, len(words), int(tokens))
	}
	v := object(t, do(t, New(fast()), "POST", "/v1/chat/completions", `{"model":"m","max_tokens":4,"messages":[{"role":"user","content":"hi"}]}`, "x-simulate", "reasoning=2"), 200)
	want(t, "reasoning comes first", at(t, v, "choices", 0, "message", "content"), "the river")
	want(t, "finish", at(t, v, "choices", 0, "finish_reason"), "length")
}

func TestToolCalls(t *testing.T) {
	say := func(s string) string { return `[{"role":"user","content":"` + s + `"}]` }
	second := strings.ReplaceAll(weatherTool, "weather", "clock")
	for name, test := range map[string]struct{ choice, messages, calls string }{
		"required":            {`"required"`, say("hi"), "weather"},
		"named":               {`{"type":"function","function":{"name":"clock"}}`, say("hi"), "clock"},
		"mentioned":           {`"auto"`, say("use a tool!"), "weather"},
		"mentioned in a part": {`"auto"`, `[{"role":"user","content":[{"type":"text","text":"a TOOL"}]}]`, "weather"},
		"forbidden":           {`"none"`, say("use a tool!"), ""},
		"not asked":           {`"auto"`, say("stools and tooling"), ""},
		"already answered":    {`"auto"`, `[{"role":"user","content":"tool"},{"role":"tool","tool_call_id":"c","content":"1"}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"model":"m","tools":[` + weatherTool + `,` + second + `],"tool_choice":` + test.choice + `,"messages":` + test.messages + `}`
			choice := at(t, object(t, do(t, New(fast()), "POST", "/v1/chat/completions", body), 200), "choices", 0)
			if test.calls == "" {
				want(t, "finish", at(t, choice, "finish_reason"), "stop")
				return
			}
			want(t, "finish", at(t, choice, "finish_reason"), "tool_calls")
			want(t, "content", at(t, choice, "message", "content"), nil)
			want(t, "name", at(t, choice, "message", "tool_calls", 0, "function", "name"), test.calls)
			want(t, "arguments", at(t, choice, "message", "tool_calls", 0, "function", "arguments"), `{"n":1}`)
		})
	}
}

func TestResponseFormat(t *testing.T) {
	schema := `{"type":"object","required":["name","mood"],"properties":{"name":{"type":"string"},"mood":{"enum":["glad é","sad"]}}}`
	for format, text := range map[string]string{
		`{"type":"json_schema","json_schema":{"name":"s","schema":` + schema + `}}`: `{"mood":"glad é","name":"simulated"}`,
		`{"type":"json_object"}`: `{"answer": "simulated"}`,
		`{"type":"text"}`:        "the river runs",
	} {
		messages := `"messages":[{"role":"user","content":"hi"}]}`
		v := object(t, do(t, New(fast()), "POST", "/v1/chat/completions", `{"model":"m","response_format":`+format+`,`+messages), 200)
		want(t, format, at(t, v, "choices", 0, "message", "content"), text)
		streamed := ""
		w := do(t, New(fast()), "POST", "/v1/chat/completions", `{"model":"m","stream":true,"response_format":`+format+`,`+messages)
		list := events(w.Body.String())
		for _, e := range list[:len(list)-2] {
			streamed += at(t, data(t, e), "choices", 0, "delta", "content").(string)
		}
		want(t, format+" streamed", streamed, text)
		want(t, "tokens are events", at(t, v, "usage", "completion_tokens"), float64(len(list)-3))
	}
	v := object(t, do(t, New(fast()), "POST", "/v1/responses", `{"model":"m","input":"hi","text":{"format":{"type":"json_schema","name":"s","schema":`+schema+`}}}`), 200)
	want(t, "responses", at(t, v, "output", 0, "content", 0, "text"), `{"mood":"glad é","name":"simulated"}`)
}

func TestSampleJSON(t *testing.T) {
	for schema, sample := range map[string]string{
		``:                 `{}`,
		`{}`:               `{}`,
		`true`:             `{}`,
		`{"type":"array"}`: `[]`,
		`{"type":"object","properties":{"s":{"type":"string"},"i":{"type":"integer"},"f":{"type":"number"},"b":{"type":"boolean"},"z":{"type":"null"}}}`: `{"b":true,"f":1,"i":1,"s":"simulated","z":null}`,
		`{"type":"array","minItems":2,"items":{"type":"integer","minimum":3.5}}`:                                                                         `[4,4]`,
		`{"type":["string","null"],"minLength":12}`:                                                                                                      `"simulated simulated"`,
		`{"const":12345678901234567890}`:                                                                                                                 `12345678901234567890`,
		`{"anyOf":[{"$ref":"#"},{"type":"null"}]}`:                                                                                                       `null`,
		`{"properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"enum":[7]}}}`:                                                                           `{"a":7}`,
		`{"type":"object","required":["odd"],"properties":{}}`:                                                                                           `{"odd":"simulated"}`,
		`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"required":["a"]}`:                                                  `{"a":"simulated"}`,
	} {
		want(t, schema, sampleJSON(json.RawMessage(schema)), sample)
	}
}

// covers RES-05: schemas that grow without end stay small.
func TestSampleJSONIsBounded(t *testing.T) {
	for _, schema := range []string{
		`{"type":"object","required":["a","b"],"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}}}`,
		`{"type":"array","minItems":1000000000,"items":{"$ref":"#"}}`,
		`{"type":"string","minLength":1000000000}`,
	} {
		if got := sampleJSON(json.RawMessage(schema)); len(got) > 100_000 || !json.Valid([]byte(got)) {
			t.Errorf("%s: %d bytes", schema, len(got))
		}
	}
}

func TestCompletionsJSON(t *testing.T) {
	for prompt, choices := range map[string]int{`"hello there"`: 1, `["a","b"]`: 2, `[1,2,3]`: 1, `[[1],[2],[3]]`: 3} {
		v := object(t, do(t, New(fast()), "POST", "/v1/completions", `{"model":"m","prompt":`+prompt+`}`), 200)
		want(t, "object", at(t, v, "object"), "text_completion")
		want(t, "choices of "+prompt, len(at(t, v, "choices").([]any)), choices)
		want(t, "text", at(t, v, "choices", 0, "text"), "the river runs")
		want(t, "tokens", at(t, v, "usage", "completion_tokens"), float64(3*choices))
	}
}

func TestResponsesJSON(t *testing.T) {
	p := New(fast())
	v := object(t, do(t, p, "POST", "/responses", `{"input":[{"role":"user","content":[{"type":"input_text","text":"hello there"}]}]}`), 200)
	want(t, "object", at(t, v, "object"), "response")
	want(t, "model", at(t, v, "model"), "simulated-1")
	want(t, "text", at(t, v, "output", 0, "content", 0, "text"), "the river runs")
	want(t, "input tokens", at(t, v, "usage", "input_tokens"), 3.0)
	want(t, "cached", at(t, v, "usage", "input_tokens_details", "cached_tokens"), 0.0)
	want(t, "reasoning", at(t, v, "usage", "output_tokens_details", "reasoning_tokens"), 0.0)
	id := at(t, v, "id").(string)
	want(t, "stored", at(t, object(t, do(t, p, "GET", "/v1/responses/"+id, ""), 200), "id"), id)
	next := object(t, do(t, p, "POST", "/responses", `{"model":"m","input":"more","previous_response_id":"`+id+`"}`), 200)
	want(t, "previous", at(t, next, "previous_response_id"), id)
	want(t, "deleted", at(t, object(t, do(t, p, "DELETE", "/v1/responses/"+id, ""), 200), "deleted"), true)
	object(t, do(t, p, "GET", "/v1/responses/"+id, ""), 404)
	object(t, do(t, p, "DELETE", "/v1/responses/"+id, ""), 404)
	e := object(t, do(t, p, "POST", "/responses", `{"model":"m","input":"more","previous_response_id":"`+id+`"}`), 400)
	want(t, "code", at(t, e, "error", "code"), "previous_response_not_found")
	v = object(t, do(t, p, "POST", "/responses", `{"model":"m","input":"hi","store":false}`), 200)
	object(t, do(t, p, "GET", "/v1/responses/"+at(t, v, "id").(string), ""), 404)
	tools := `{"model":"m","input":"a tool","tools":[{"type":"function","name":"weather","parameters":{"type":"object"}}]}`
	v = object(t, do(t, p, "POST", "/responses", tools), 200)
	want(t, "call", at(t, v, "output", 0, "name"), "weather")
}

func TestResponseStoreIsBounded(t *testing.T) {
	var s responseStore
	for i := range maxStored + 10 {
		s.put(fmt.Sprint(i), []byte("x"))
	}
	want(t, "count", len(s.bodies), maxStored)
	want(t, "oldest", s.get("9") == nil, true)
	want(t, "newest", s.get("1009") != nil, true)
	s.put("big", make([]byte, maxStoredBytes))
	want(t, "only the big one", len(s.bodies), 1)
}

func TestEmbeddings(t *testing.T) {
	p := New(fast())
	ask := func(fields string) map[string]any {
		return object(t, do(t, p, "POST", "/v1/embeddings", `{"model":"m",`+fields+`}`), 200)
	}
	v := ask(`"input":["hello","there"],"dimensions":8`)
	floats := at(t, v, "data", 1, "embedding").([]any)
	want(t, "dimensions", len(floats), 8)
	want(t, "index", at(t, v, "data", 1, "index"), 1.0)
	want(t, "tokens", at(t, v, "usage", "total_tokens"), 3.0)
	v = ask(`"input":"there","dimensions":8,"encoding_format":"base64"`)
	raw, err := base64.StdEncoding.DecodeString(at(t, v, "data", 0, "embedding").(string))
	if err != nil || len(raw) != 32 {
		t.Fatalf("base64: %v, %d bytes", err, len(raw))
	}
	length := 0.0
	for i := range 8 {
		x := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		want(t, "same vector in both forms", x, float32(floats[i].(float64)))
		length += float64(x) * float64(x)
	}
	if math.Abs(length-1) > 1e-5 {
		t.Errorf("squared length %v", length)
	}
	want(t, "default size", len(at(t, ask(`"input":[1,2,3]`), "data", 0, "embedding").([]any)), defaultDimensions)
	want(t, "token lists", len(at(t, ask(`"input":[[1],[2]]`), "data").([]any)), 2)
}

func TestModerations(t *testing.T) {
	v := object(t, do(t, New(fast()), "POST", "/v1/moderations", `{"input":["kittens","Violence!"]}`), 200)
	want(t, "first", at(t, v, "results", 0, "flagged"), false)
	want(t, "second", at(t, v, "results", 1, "flagged"), true)
	want(t, "category", at(t, v, "results", 1, "categories", "violence"), true)
	v = object(t, do(t, New(fast()), "POST", "/v1/moderations", `{"input":[{"type":"text","text":"violence"},{"type":"image_url","image_url":{"url":"x"}}]}`), 200)
	want(t, "parts are one input", len(at(t, v, "results").([]any)), 1)
	want(t, "flagged", at(t, v, "results", 0, "flagged"), true)
}

func TestModels(t *testing.T) {
	c := fast()
	c.Models, c.Strict = []string{"a", "org/b"}, true
	p := New(c)
	want(t, "list", at(t, object(t, do(t, p, "GET", "/v1/models", ""), 200), "data", 1, "id"), "org/b")
	for _, path := range []string{"/models/org/b", "/v1/models/org%2Fb"} {
		want(t, path, at(t, object(t, do(t, p, "GET", path, ""), 200), "id"), "org/b")
	}
	for _, w := range []*httptest.ResponseRecorder{
		do(t, p, "GET", "/v1/models/c", ""),
		do(t, p, "POST", "/v1/chat/completions", chatJSON),
		do(t, p, "POST", "/v1/embeddings", `{"model":"c","input":"x"}`),
	} {
		want(t, "code", at(t, object(t, w, 404), "error", "code"), "model_not_found")
	}
	want(t, "nothing admitted", p.Stats().Admitted.Requests, int64(0))
	object(t, do(t, New(fast()), "GET", "/v1/models/anything", ""), 200)
}

func isPixel(t *testing.T, v any) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(v.(string))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(raw)); err != nil {
		t.Errorf("not a PNG: %v", err)
	}
}

func TestImages(t *testing.T) {
	p := New(fast())
	v := object(t, do(t, p, "POST", "/v1/images/generations", `{"prompt":"a cat","n":2}`), 200)
	isPixel(t, at(t, v, "data", 1, "b64_json"))
	want(t, "tokens", at(t, v, "usage", "output_tokens"), 2.0*imageOutputTokens)
	w := do(t, p, "POST", "/v1/images/generations", `{"prompt":"a cat","stream":true,"partial_images":2}`)
	var kinds []string
	for _, e := range events(w.Body.String()) {
		v := data(t, e)
		kinds = append(kinds, at(t, v, "type").(string))
		isPixel(t, at(t, v, "b64_json"))
	}
	want(t, "events", strings.Join(kinds, " "), "image_generation.partial_image image_generation.partial_image image_generation.completed")
	want(t, "tokens served", p.Stats().OutputTokens, int64(3*imageOutputTokens))
}

// multi builds a form of fields and one file.
func multi(t *testing.T, file []byte, fields ...string) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if file != nil {
		part, err := w.CreateFormFile(fields[0], "name.bin")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(file); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i+1 < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func doForm(t *testing.T, p *Provider, path string, file []byte, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	body, contentType := multi(t, file, fields...)
	return do(t, p, "POST", path, body, "Content-Type", contentType)
}

func TestImageEdits(t *testing.T) {
	p := New(fast())
	v := object(t, doForm(t, p, "/v1/images/edits", []byte("png"), "image", "prompt", "a cat", "n", "2", "model", "m"), 200)
	want(t, "pictures", len(at(t, v, "data").([]any)), 2)
	want(t, "input", at(t, v, "usage", "input_tokens"), 2.0+imageTokens)
	w := doForm(t, p, "/v1/images/edits", []byte("png"), "image[]", "prompt", "a cat", "stream", "true")
	want(t, "event", at(t, data(t, events(w.Body.String())[0]), "type"), "image_edit.completed")
	object(t, do(t, p, "POST", "/v1/images/edits", `{"prompt":"a cat"}`), 200)
	object(t, doForm(t, p, "/v1/images/edits", nil, "", "prompt", "a cat"), 400)
	object(t, doForm(t, p, "/v1/images/edits", []byte("png"), "image", "prompt", "a cat", "n", "two"), 400)
}

func TestSpeech(t *testing.T) {
	p := New(fast())
	w := do(t, p, "POST", "/v1/audio/speech", `{"model":"m","input":"hello","voice":"v"}`)
	want(t, "type", w.Header().Get("Content-Type"), "audio/mpeg")
	want(t, "bytes", w.Body.Len(), 3*speechChunk)
	w = do(t, p, "POST", "/v1/audio/speech", `{"model":"m","input":"hello","voice":"v","response_format":"wav"}`)
	want(t, "wav", w.Body.String()[:4]+w.Body.String()[8:12], "RIFFWAVE")
	want(t, "declared size", int(binary.LittleEndian.Uint32(w.Body.Bytes()[4:]))+8, w.Body.Len())
	w = do(t, p, "POST", "/v1/audio/speech", `{"model":"m","input":"hello","voice":"v","stream_format":"sse"}`)
	list := events(w.Body.String())
	want(t, "events", len(list), 4)
	want(t, "last", at(t, data(t, list[3]), "usage", "output_tokens"), 3.0)
}

func TestTranscriptions(t *testing.T) {
	p := New(fast())
	sound := make([]byte, 10*audioBytesPerToken)
	for format, body := range map[string]string{
		"text": "the river runs\n",
		"vtt":  "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nthe river runs\n",
		"srt":  "1\n00:00:00,000 --> 00:00:01,000\nthe river runs\n\n",
	} {
		w := doForm(t, p, "/v1/audio/transcriptions", sound, "file", "model", "m", "response_format", format)
		want(t, format, w.Body.String(), body)
	}
	v := object(t, doForm(t, p, "/v1/audio/transcriptions", sound, "file", "model", "m"), 200)
	want(t, "text", at(t, v, "text"), "the river runs")
	want(t, "input", at(t, v, "usage", "input_tokens"), 10.0)
	object(t, doForm(t, p, "/v1/audio/transcriptions", sound, "file", "model", "m", "response_format", "verbose_json"), 200)
	w := doForm(t, p, "/v1/audio/transcriptions", sound, "file", "model", "m", "stream", "true")
	list := events(w.Body.String())
	want(t, "events", len(list), 4)
	want(t, "delta", at(t, data(t, list[1]), "delta"), " river")
	want(t, "done", at(t, data(t, list[3]), "type"), "transcript.text.done")
	v = object(t, doForm(t, p, "/v1/audio/translations", sound, "file", "model", "m", "stream", "true"), 200)
	want(t, "translations do not stream", at(t, v, "text"), "the river runs")
	object(t, doForm(t, p, "/v1/audio/transcriptions", nil, "", "model", "m"), 400)
	object(t, doForm(t, p, "/v1/audio/transcriptions", sound, "file"), 400)
}

func TestFiles(t *testing.T) {
	c := fast()
	c.KeepFileBytes = 1000
	p := New(c)
	small, large := bytes.Repeat([]byte{0, 1, 255}, 333), bytes.Repeat([]byte("x"), 1001)
	v := object(t, doForm(t, p, "/v1/files", small, "file", "purpose", "batch"), 200)
	id := at(t, v, "id").(string)
	sum := sha256.Sum256(small)
	want(t, "bytes", at(t, v, "bytes"), 999.0)
	want(t, "hash", at(t, v, "sha256"), hex.EncodeToString(sum[:]))
	want(t, "name", at(t, v, "filename"), "name.bin")
	big := at(t, object(t, doForm(t, p, "/v1/files", large, "file", "purpose", "evals"), 200), "id").(string)

	w := do(t, p, "GET", "/v1/files/"+id+"/content", "")
	want(t, "content", bytes.Equal(w.Body.Bytes(), small), true)
	object(t, do(t, p, "GET", "/v1/files/"+big+"/content", ""), 404)
	want(t, "size of the large one", at(t, object(t, do(t, p, "GET", "/files/"+big, ""), 200), "bytes"), 1001.0)
	list := object(t, do(t, p, "GET", "/v1/files", ""), 200)
	want(t, "newest first", at(t, list, "data", 0, "id"), big)
	list = object(t, do(t, p, "GET", "/v1/files?purpose=batch", ""), 200)
	want(t, "by purpose", len(at(t, list, "data").([]any)), 1)
	want(t, "deleted", at(t, object(t, do(t, p, "DELETE", "/v1/files/"+id, ""), 200), "deleted"), true)
	object(t, do(t, p, "GET", "/v1/files/"+id, ""), 404)
	object(t, do(t, p, "DELETE", "/v1/files/"+id, ""), 404)
	object(t, doForm(t, p, "/v1/files", small, "file"), 400)
	object(t, doForm(t, p, "/v1/files", nil, "", "purpose", "batch"), 400)
	object(t, do(t, p, "POST", "/v1/files", "{}"), 400)
	body, contentType := multi(t, small, "file", "purpose", "batch")
	object(t, do(t, p, "POST", "/v1/files", body[:len(body)/2], "Content-Type", contentType), 400)
}

func TestFileStoreIsBounded(t *testing.T) {
	var s fileStore
	for i := range maxStored + 5 {
		s.add(file{ID: fmt.Sprint(i), content: []byte("x")})
	}
	want(t, "count", len(s.files), maxStored)
	s.add(file{ID: "big", content: make([]byte, maxStoredBytes)})
	want(t, "only the big one", len(s.files), 1)
}

func TestEcho(t *testing.T) {
	p := New(fast())
	sum := sha256.Sum256([]byte("body"))
	for _, method := range []string{"GET", "PATCH"} {
		v := object(t, do(t, p, method, "/v1/simulator/echo/a%2Fb?x=1&y", "body", "X-Test", "yes"), 200)
		want(t, "method", at(t, v, "method"), method)
		want(t, "path", at(t, v, "path"), "/v1/simulator/echo/a%2Fb")
		want(t, "query", at(t, v, "query"), "x=1&y")
		want(t, "header", at(t, v, "headers", "X-Test", 0), "yes")
		want(t, "body", at(t, v, "body_base64"), "Ym9keQ==")
		want(t, "sum", at(t, v, "body_sha256"), hex.EncodeToString(sum[:]))
	}
	v := object(t, do(t, p, "POST", "/simulator/echo", strings.Repeat("x", maxEcho+5)), 200)
	want(t, "long body", at(t, v, "body_bytes"), float64(maxEcho+5))
}

func TestKey(t *testing.T) {
	c := fast()
	c.APIKey = "sk-right"
	p := New(c)
	object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON, "Authorization", "Bearer sk-right"), 200)
	for _, key := range []string{"Bearer sk-wrong", "Bearer sk-righ", "", "Bearer "} {
		w := do(t, p, "POST", "/v1/chat/completions", chatJSON, "Authorization", key, "x-simulate", "status=500")
		want(t, "code", at(t, object(t, w, 401), "error", "code"), "invalid_api_key")
		if strings.Contains(w.Body.String(), "sk-") {
			t.Errorf("the answer shows a key: %s", w.Body)
		}
	}
	object(t, do(t, p, "GET", "/v1/models", ""), 401)
	object(t, do(t, p, "GET", "/simulator/stats", ""), 200)
}

func TestInvalidRequests(t *testing.T) {
	messages := `"messages":[{"role":"user","content":"hi"}]`
	for _, test := range []struct{ path, body, param string }{
		{"chat/completions", `{`, ""},
		{"chat/completions", ``, ""},
		{"chat/completions", `[]`, ""},
		{"chat/completions", `{"model":"m"}`, ""},
		{"chat/completions", `{` + messages + `}`, ""},
		{"chat/completions", `{"model":"m","max_tokens":0,` + messages + `}`, "max_tokens"},
		{"chat/completions", `{"model":"m","max_tokens":-1,` + messages + `}`, "max_tokens"},
		{"chat/completions", `{"model":"m","max_tokens":1.5,` + messages + `}`, "max_tokens"},
		{"chat/completions", `{"model":"m","max_completion_tokens":"5",` + messages + `}`, "max_completion_tokens"},
		{"chat/completions", `{"model":"m","max_completion_tokens":99999999999999999999,` + messages + `}`, "max_completion_tokens"},
		{"chat/completions", `{"model":"m","n":0,` + messages + `}`, "n"},
		{"chat/completions", `{"model":"m","n":129,` + messages + `}`, "n"},
		{"chat/completions", `{"model":"m","messages":"x"}`, "messages"},
		{"chat/completions", `{"model":"m","messages":["x"]}`, "messages"},
		{"chat/completions", `{"model":"m","max_tokens":"x",` + messages + `}`, "max_tokens"},
		{"completions", `{"prompt":"x"}`, "model"},
		{"completions", `{"model":"m","n":100,"prompt":["a","b"]}`, "prompt"},
		{"responses", `{"model":"m","input":"x","max_output_tokens":0}`, "max_output_tokens"},
		{"embeddings", `{"model":"m"}`, "input"},
		{"embeddings", `{"model":"m","input":[]}`, "input"},
		{"embeddings", `{"model":"m","input":"x","dimensions":0}`, "dimensions"},
		{"embeddings", `{"model":"m","input":"x","encoding_format":"hex"}`, "encoding_format"},
		{"embeddings", `{"input":"x"}`, "model"},
		{"moderations", `{}`, "input"},
		{"images/generations", `{}`, "prompt"},
		{"images/generations", `{"prompt":"x","n":11}`, "n"},
		{"images/generations", `{"prompt":"x","partial_images":4}`, "partial_images"},
		{"audio/speech", `{"model":"m"}`, ""},
		{"audio/speech", `{"model":"m","input":"x","response_format":"midi"}`, "response_format"},
	} {
		p := New(fast())
		v := object(t, do(t, p, "POST", "/v1/"+test.path, test.body), 400)
		want(t, test.path+" "+test.body, at(t, v, "error", "type"), "invalid_request_error")
		if test.param != "" {
			want(t, test.path+" "+test.body, at(t, v, "error", "param"), test.param)
		}
		if text := fmt.Sprint(at(t, v, "error", "message")); strings.Contains(text, "slice") || strings.Contains(text, "struct") {
			t.Errorf("%s %s: %s", test.path, test.body, text)
		}
		want(t, "nothing admitted", p.Stats().Admitted.Requests, int64(0))
	}
	for _, path := range []string{"/v1/nothing", "/", "/v1", "/v1/chat/completions/x", "/v1/files//content"} {
		v := object(t, do(t, New(fast()), "GET", path, ""), 404)
		want(t, path, at(t, v, "error", "code"), "unknown_url")
	}
}

func TestPromptEstimate(t *testing.T) {
	for raw, n := range map[string]int{
		`"hello"`:      5,
		`"a\nb\u00e9"`: 5,
		`null`:         0,
		`""`:           0,
		`["ab","cd"]`:  4,
		`[1,22,333]`:   12,
		`[{"type":"text","text":"abc"},{"type":"image_url","image_url":{"url":"https://long"}}]`:                         3 + imageTokens*4,
		`[{"role":"user","content":[{"type":"input_text","text":"abc"}]},{"type":"function_call_output","output":"xy"}]`: 5,
		`[[[[[[[["deep"]]]]]]]]`: 0,
	} {
		want(t, raw, textBytes(json.RawMessage(raw)), n)
	}
}
