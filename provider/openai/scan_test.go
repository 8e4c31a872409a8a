package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

var testBounds = Bounds{MaxOutput: 100_000, MaxChoices: 16, Image: 1000, Audio: 2000, File: 3000}

func operation(t testing.TB, path string) provider.Operation {
	t.Helper()
	op, ok := operations["POST "+path]
	if !ok {
		t.Fatalf("no operation %s", path)
	}
	return op
}

// scanned scans a body for the operation at path.
func scanned(t testing.TB, path, body string) (*provider.Call, error) {
	t.Helper()
	c := &provider.Call{Op: operation(t, path), Body: []byte(body)}
	err := Scan(c, testBounds)
	if string(c.Body) != body {
		t.Fatalf("Scan changed the body %q to %q", body, c.Body)
	}
	return c, err
}

func wantRefusal(t testing.TB, err error, code, param string) {
	t.Helper()
	var refused *RequestError
	if !errors.As(err, &refused) {
		t.Errorf("error %v, want %s", err, code)
		return
	}
	if refused.Code != code || refused.Param != param {
		t.Errorf("refused with %s %q (%s), want %s %q", refused.Code, refused.Param, refused.Message, code, param)
	}
}

func text(body []byte, s provider.Span) string { return string(body[s.Start:s.End]) }

func TestScan(t *testing.T) {
	type want struct {
		model, modelText string
		stream, usage    bool
		options          string
		output, choices  int64
	}
	const chat, responses = "/chat/completions", "/responses"
	tests := []struct {
		name, path, body string
		want             want
	}{
		{"fields", chat, `{"model":"gpt-6","stream":true,"n":2,"max_tokens":10,"max_completion_tokens":20,"stream_options":{"include_usage":true},"messages":[]}`,
			want{"gpt-6", `"gpt-6"`, true, true, `{"include_usage":true}`, 20, 2}},
		{"model last", chat, "\n { \"messages\" : [] , \"model\" : \"m\" } \n", want{"m", `"m"`, false, false, "", 0, 1}},
		{"escapes in model and key", chat, `{"m\u006fdel":"a\/b\"\u00e9"}`, want{`a/b"é`, `"a\/b\"\u00e9"`, false, false, "", 0, 1}},
		{"nulls", chat, `{"model":"m","stream":null,"n":null,"max_tokens":null,"stream_options":null}`,
			want{"m", `"m"`, false, false, "null", 0, 1}},
		{"usage off", chat, `{"model":"m","stream_options":{"x":[1],"include_usage":false}}`,
			want{"m", `"m"`, false, false, `{"x":[1],"include_usage":false}`, 0, 1}},
		{"usage null", chat, `{"model":"m","stream_options":{"include_usage":null}}`,
			want{"m", `"m"`, false, false, `{"include_usage":null}`, 0, 1}},
		{"best_of over n", "/completions", `{"model":"m","prompt":"x","n":1,"best_of":5}`, want{"m", `"m"`, false, false, "", 0, 5}},
		{"several prompts", "/completions", `{"model":"m","prompt":["a","b","c"],"n":2}`, want{"m", `"m"`, false, false, "", 0, 6}},
		{"one prompt of tokens", "/completions", `{"model":"m","prompt":[1,2,3],"n":2}`, want{"m", `"m"`, false, false, "", 0, 2}},
		{"several prompts of tokens", "/completions", `{"model":"m","prompt":[[1,2],[3]],"n":2}`, want{"m", `"m"`, false, false, "", 0, 4}},
		{"no model", responses, `{"input":"x","max_output_tokens":7}`, want{"", "", false, false, "", 7, 1}},
		{"null model", responses, `{"model":null}`, want{"", "null", false, false, "", 0, 1}},
		{"empty model", responses, `{"model":""}`, want{"", `""`, false, false, "", 0, 1}},
		{"nested names do not decide", chat, `{"model":"m","metadata":{"model":"x","Stream":"y","n":0},"messages":[{"Model":1}]}`,
			want{"m", `"m"`, false, false, "", 0, 1}},
		{"the largest", chat, `{"model":"m","n":16,"max_tokens":100000}`, want{"m", `"m"`, false, false, "", 100000, 16}},
		{"unknown fields and odd numbers", chat, `{"model":"m","x":12345678901234567890,"y":-0.1e-400,"z":1E+99}`, want{"m", `"m"`, false, false, "", 0, 1}},
		{"speech as events", "/audio/speech", `{"model":"m","input":"x","stream_format":"sse"}`, want{"m", `"m"`, true, false, "", 0, 1}},
		{"speech as audio", "/audio/speech", `{"model":"m","input":"x","stream_format":"audio","stream":true}`, want{"m", `"m"`, false, false, "", 0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := scanned(t, tt.path, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			got := want{c.Model, text(c.Body, c.ModelSpan), c.Stream, c.IncludeUsage, text(c.Body, c.StreamOptions), c.MaxOutput, c.Choices}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if c.Body[c.ObjectEnd] != '}' || len(bytes.TrimSpace(c.Body[c.ObjectEnd+1:])) != 0 {
				t.Errorf("the object ends at %d, not at the last brace", c.ObjectEnd)
			}
		})
	}
}

func TestScanKeepsModelOfPath(t *testing.T) {
	c := &provider.Call{Op: operation(t, "/chat/completions"), Model: "deployment", Body: []byte(`{"model":"other"}`)}
	if err := Scan(c, testBounds); err != nil {
		t.Fatal(err)
	}
	if c.Model != "deployment" || text(c.Body, c.ModelSpan) != `"other"` {
		t.Errorf("model %q at %q, want that of the path and the span of the body", c.Model, text(c.Body, c.ModelSpan))
	}
	c = &provider.Call{Op: operation(t, "/chat/completions"), Model: "deployment", Body: []byte(`{}`)}
	if err := Scan(c, testBounds); err != nil {
		t.Errorf("a model in the path is not enough: %v", err)
	}
}

func TestScanLeavesUnknownOperationsAlone(t *testing.T) {
	for _, path := range []string{"/v1/realtime", "/v1/files", "/v1/organization/users"} {
		op, _, _, _ := Lookup("POST", path)
		c := &provider.Call{Op: op, Body: []byte("not { JSON")}
		if err := Scan(c, testBounds); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestScanInvalidJSON(t *testing.T) {
	tests := []struct{ body, says string }{
		{"", "empty"},
		{" \n", "empty"},
		{"\xef\xbb\xbf{\"model\":\"m\"}", "byte order mark"},
		{`[]`, "not a JSON object"},
		{`"model"`, "not a JSON object"},
		{`null`, "not a JSON object"},
		{`{"model":"m"`, "the end of the body"},
		{`{"model":"m`, "the end of the body"},
		{`{"model":"m"} {}`, "goes on after"},
		{`{"model":"m"}x`, "offset 13"},
		{`{"model":"m",}`, "offset 12"},
		{`{,"model":"m"}`, "offset 1"},
		{`{"model":"m","messages":[tru],}`, "offset 2"},
		{`{"model":"m","x":01}`, "offset 1"},
		{`{"model":"m","x":NaN}`, "offset 17"},
		{`{"model":"m",x:1}`, "offset 13"},
		{`{"model":"m",1:1}`, "not a string"},
		{`{"model":"m","x":[1}`, "offset 1"},
		{`{"model":"m"]`, "offset 12"},
		{`{"model" "m"}`, "offset 9"},
		{`{'model':'m'}`, "offset 1"},
		{"{\"model\":\"m\",\"x\":\"\xff\"}", "invalid UTF-8"},
		{"{\"model\":\"m\",\"x\":\"\xc0\xaf\"}", "invalid UTF-8"},
		{"{\"model\":\"m\",\"\xff\":1}", "invalid UTF-8"},
		{`{"model":"m","x":"\ud800"}`, "escape"},
		{`{"model":"m","x":"\q"}`, "escape"},
		{"{\"model\":\"m\",\"x\":\"a\nb\"}", "control character"},
		{"{\"model\":\"m\",\"x\":/* c */1}", "offset 17"},
		{"\x00{}", "offset 0"},
		{`{"model":"m","x":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, "nested more than 256 deep"},
		{`{"model":"m","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "nested more than 256 deep"},
		{`{"model":"m","stream_options":{"x":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}}`, "nested more than 256 deep"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.40q", tt.body), func(t *testing.T) {
			_, err := scanned(t, "/chat/completions", tt.body)
			wantRefusal(t, err, CodeInvalidJSON, "")
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

// No refusal repeats what the client wrote, which may be a prompt or a secret.
// covers SEC-03
func TestScanErrorsQuoteNothing(t *testing.T) {
	const secret = "sesame"
	for _, body := range []string{
		`{"model":"m","messages":"sesame`, `{"sesame":1,"sesame":2}`, `{"model":"m","a":{"sesame":1,"sesame":1}}`,
		`{"model":"m","n":"sesame"}`, `{"model":["sesame"]}`, `{"model":"m","stream":"sesame"}`, `{"model":"m","sesame" 1}`,
		`{"model":"m","x":"\sesame"}`, `{"model":"m","x":sesame}`, `"sesame"`, `{"model":"sesame\u0000"}`,
	} {
		_, err := scanned(t, "/chat/completions", body)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: error %v", body, err)
		}
	}
}

// Names that occur twice are read differently by different parsers.
// covers CL-06
func TestScanDuplicateNames(t *testing.T) {
	tests := []struct{ body, param string }{
		{`{"model":"cheap","model":"dear"}`, "model"},
		{`{"model":"cheap","mode\u006c":"dear"}`, "model"},
		{`{"model":"m","stream":true,"stream":false}`, "stream"},
		{`{"model":"m","messages":[],"messages":[]}`, "messages"},
		{`{"model":"m","x":1,"x":1}`, ""},
		{`{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}`, ""},
		{`{"model":"m","stream_options":{"include_usage":true,"include_usage":false}}`, ""},
	}
	for _, tt := range tests {
		_, err := scanned(t, "/chat/completions", tt.body)
		t.Run(tt.body, func(t *testing.T) { wantRefusal(t, err, CodeDuplicateKey, tt.param) })
	}
}

// Names that some parser takes for a deciding one are refused, alone or beside it.
// covers CL-06
func TestScanAmbiguousNames(t *testing.T) {
	variants := map[string][]string{
		"model":                 {"Model", "MODEL", "mOdel", "model_", "mo-del", `Mod\u0065l`, `model\u0000x`},
		"stream":                {"Stream", "STREAM", "ſtream", `\u017Ftream`},
		"n":                     {"N", "_n"},
		"best_of":               {"bestOf", "Best_Of", "best-of", "beſt_of"},
		"max_tokens":            {"Max_Tokens", "maxTokens", "MaxTokens", "max_to\u212aens", `max_to\u212aens`, "maxtokens"},
		"max_completion_tokens": {"maxCompletionTokens", "MAX_COMPLETION_TOKENS", "max-completion-tokens"},
		"max_output_tokens":     {"maxOutputTokens", "Max_output_tokens"},
		"stream_options":        {"streamOptions", "Stream_Options", "ſtream_optionſ"},
	}
	for name, list := range variants {
		for _, variant := range list {
			for _, body := range []string{
				fmt.Sprintf(`{"model":"m","%s":1}`, variant),
				fmt.Sprintf(`{"%s":1,"model":"m","stream":false,"n":1,"max_tokens":5}`, variant),
			} {
				t.Run(body, func(t *testing.T) {
					_, err := scanned(t, "/chat/completions", body)
					wantRefusal(t, err, CodeAmbiguousKey, name)
				})
			}
		}
	}
	for _, variant := range []string{"Include_Usage", "includeUsage", "include_uſage"} {
		_, err := scanned(t, "/chat/completions", fmt.Sprintf(`{"model":"m","stream_options":{"%s":true}}`, variant))
		wantRefusal(t, err, CodeAmbiguousKey, "include_usage")
	}
	for _, name := range []string{"models", "mode", "model2", "streaming", "ｍodel", "nn", "Messages", "Temperature", ""} {
		if _, err := scanned(t, "/chat/completions", fmt.Sprintf(`{"model":"m","%s":1}`, name)); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
}

// Fields that set cost are integers from 1 to the cap, or null.
// covers CL-05
func TestScanCostFields(t *testing.T) {
	bad := []string{"0", "-1", "-0", "0.5", "1.0", "1e3", "1E0", `"5"`, "true", "[1]", "{}", "9223372036854775808",
		"12345678901234567890", "1000000000000000000000000000000"}
	over := map[string]string{"n": "1000000", "best_of": "17", "max_tokens": "100001",
		"max_completion_tokens": "100001", "max_output_tokens": "9223372036854775807"}
	for name, tooMuch := range over {
		for _, value := range append(bad, tooMuch) {
			_, err := scanned(t, "/chat/completions", fmt.Sprintf(`{"model":"m","%s":%s}`, name, value))
			t.Run(name+"="+value, func(t *testing.T) { wantRefusal(t, err, CodeInvalidValue, name) })
		}
		for _, value := range []string{"1", "16", "null"} {
			if _, err := scanned(t, "/chat/completions", fmt.Sprintf(`{"model":"m","%s":%s}`, name, value)); err != nil {
				t.Errorf("%s: %s is refused: %v", name, value, err)
			}
		}
	}
}

func TestScanInvalidValues(t *testing.T) {
	tests := []struct{ path, body, code, param string }{
		{"/chat/completions", `{"messages":[]}`, CodeMissingModel, "model"},
		{"/chat/completions", `{"model":null}`, CodeMissingModel, "model"},
		{"/chat/completions", `{"model":""}`, CodeMissingModel, "model"},
		{"/chat/completions", `{"model":5}`, CodeInvalidValue, "model"},
		{"/chat/completions", `{"model":["m"]}`, CodeInvalidValue, "model"},
		{"/chat/completions", `{"model":"a\nb"}`, CodeInvalidValue, "model"},
		{"/chat/completions", `{"model":"` + strings.Repeat("m", 257) + `"}`, CodeInvalidValue, "model"},
		{"/chat/completions", `{"model":"m","stream":"true"}`, CodeInvalidValue, "stream"},
		{"/chat/completions", `{"model":"m","stream":1}`, CodeInvalidValue, "stream"},
		{"/chat/completions", `{"model":"m","stream_options":true}`, CodeInvalidValue, "stream_options"},
		{"/chat/completions", `{"model":"m","stream_options":{"include_usage":1}}`, CodeInvalidValue, "include_usage"},
		{"/responses", ``, CodeInvalidJSON, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.60s", tt.body), func(t *testing.T) {
			_, err := scanned(t, tt.path, tt.body)
			wantRefusal(t, err, tt.code, tt.param)
		})
	}
}

// covers CL-05
func TestMaxTotalOutput(t *testing.T) {
	tests := []struct{ output, choices, want int64 }{
		{0, 1, 0}, {0, 5, 0}, {10, 0, 10}, {10, 3, 30},
		{math.MaxInt64, 2, math.MaxInt64}, {math.MaxInt64, 1, math.MaxInt64}, {1 << 32, 1 << 32, math.MaxInt64},
	}
	for _, tt := range tests {
		if got := MaxTotalOutput(&provider.Call{MaxOutput: tt.output, Choices: tt.choices}); got != tt.want {
			t.Errorf("%d × %d = %d, want %d", tt.output, tt.choices, got, tt.want)
		}
	}
	c := &provider.Call{Op: operation(t, "/completions"), Body: []byte(`{"model":"m","prompt":["a","b"],"n":9223372036854775807,"max_tokens":9223372036854775807}`)}
	if err := Scan(c, Bounds{}); err != nil {
		t.Fatal(err)
	}
	if c.Choices != math.MaxInt64 || MaxTotalOutput(c) != math.MaxInt64 {
		t.Errorf("choices %d, output %d: not saturated", c.Choices, MaxTotalOutput(c))
	}
}

// Hostile bodies cost no more than long ones: time grows with the size.
// covers RES-05
func TestScanIsLinear(t *testing.T) {
	const size = 4 << 20
	var keys, nested strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&keys, `,"key%d":%d`, i, i)
		fmt.Fprintf(&nested, `,{"a%d":{}}`, i)
	}
	pair := func(s string) string { return strings.Repeat(s, size/len(s)) }
	bodies := map[string]string{
		"one character": `{"model":"m","messages":"` + pair("a") + `"}`,
		"escapes":       `{"model":"m","messages":"` + pair(`\n`) + `"}`,
		"quotes":        `{"model":"m","messages":"` + pair(`\"`) + `"}`,
		"backslashes":   `{"model":"m","messages":"` + pair(`\\`) + `"}`,
		"unicode":       `{"model":"m","messages":"` + pair(`\u00e9`) + `"}`,
		"chinese":       `{"model":"m","messages":"` + pair("水") + `"}`,
		"keys":          `{"model":"m"` + keys.String() + `}`,
		"nested keys":   `{"model":"m","tools":{"a":1` + keys.String() + `}}`,
		"objects":       `{"model":"m","messages":[0` + nested.String() + `]}`,
		"deep":          `{"model":"m","messages":` + strings.Repeat(`[`, 250) + pair(`[],`) + `1` + strings.Repeat(`]`, 250) + `}`,
		"too deep":      `{"model":"m","messages":` + pair("[") + `}`,
		"deep objects":  `{"model":"m","messages":` + pair(`{"":`) + `}`,
		"numbers":       `{"model":"m","prompt":[1` + pair(",1") + `]}`,
		"spaces":        `{"model":"m"` + pair(" ") + `}`,
		"long key":      `{"model":"m","` + pair("_") + `":1}`,
		"long number":   `{"model":"m","n":` + pair("1") + `}`,
		"parts":         `{"model":"m","messages":[1` + pair(`,{"type":"image_url"}`) + `]}`,
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			c := &provider.Call{Op: operation(t, "/chat/completions"), Body: []byte(body)}
			best := cost(func() {
				*c = provider.Call{Op: c.Op, Body: c.Body}
				if err := Scan(c, testBounds); err != nil && !errors.As(err, new(*RequestError)) {
					t.Fatal(err)
				}
			})
			if best > limitForRace(200*time.Millisecond) {
				t.Errorf("took %v", best)
			}
			t.Logf("%v", best)
		})
	}
}

// A goReader is how an upstream written in Go reads the deciding fields.
type goReader struct {
	Model         *string
	Stream        *bool
	N             *int64
	BestOf        *int64 `json:"best_of"`
	MaxTokens     *int64 `json:"max_tokens"`
	MaxCompletion *int64 `json:"max_completion_tokens"`
	MaxOutput     *int64 `json:"max_output_tokens"`
	StreamOptions *struct {
		IncludeUsage *bool `json:"include_usage"`
	} `json:"stream_options"`
}

// checkAgainstGo fails unless encoding/json, which matches names in any case,
// sees what Scan saw.
func checkAgainstGo(t *testing.T, c *provider.Call) {
	t.Helper()
	var g goReader
	if err := json.Unmarshal(c.Body, &g); err != nil {
		t.Fatalf("Scan accepted what encoding/json refuses: %v", err)
	}
	if model := value(g.Model); c.Model != model {
		t.Fatalf("model %q, encoding/json sees %q", c.Model, model)
	}
	if stream := value(g.Stream); c.Stream != stream {
		t.Fatalf("stream %v, encoding/json sees %v", c.Stream, stream)
	}
	if n := max(value(g.N), value(g.BestOf), 1); c.Choices != n {
		t.Fatalf("choices %d, encoding/json sees %d", c.Choices, n)
	}
	if n := max(value(g.MaxTokens), value(g.MaxCompletion), value(g.MaxOutput)); c.MaxOutput != n {
		t.Fatalf("output %d, encoding/json sees %d", c.MaxOutput, n)
	}
	if usage := g.StreamOptions != nil && value(g.StreamOptions.IncludeUsage); c.IncludeUsage != usage {
		t.Fatalf("include_usage %v, encoding/json sees %v", c.IncludeUsage, usage)
	}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Whatever Scan accepts is valid JSON, and every parser reads the same from it.
// covers CL-06
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"model":"gpt-6","stream":true,"n":2,"max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`,
		`{"model":"m","stream_options":{"include_usage":true}}`,
		`{"m\u006fdel":"a\/b","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:,x"}}]}]}`,
		`{"Model":"m"}`, `{"model":"m","ſtream":true}`, `{"model":"m","max_to\u212aens":5}`,
		`{"model":"a","model":"b"}`, `{"model":null,"n":null}`, `{"n":1e3}`, `{"n":-0}`, `[]`, `{"a":[1,[2,{"b":"\ud83d\ude00"}]],"tools":[{"x":true}]}`,
		"{\"model\":\"\xff\"}", "\xef\xbb\xbf{}", `{"model":"m"} x`, `{"input":[1,2,-3.5e7],"prompt":"\"\\\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	op := provider.Operation{Name: "responses", Model: provider.ModelOptional, Metered: true, Stream: true}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &provider.Call{Op: op, Body: bytes.Clone(body)}
		err := Scan(c, testBounds)
		if !bytes.Equal(c.Body, body) {
			t.Fatal("Scan changed the body")
		}
		if err != nil {
			if !errors.As(err, new(*RequestError)) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		checkAgainstGo(t, c)
		if c.ModelSpan != (provider.Span{}) {
			var model *string
			if err := json.Unmarshal(c.Body[c.ModelSpan.Start:c.ModelSpan.End], &model); err != nil || value(model) != c.Model {
				t.Fatalf("the span reads %q, the model is %q", text(c.Body, c.ModelSpan), c.Model)
			}
		}
		if c.InputText < 0 || c.InputText > int64(len(body)) {
			t.Fatalf("%d bytes of text in a body of %d", c.InputText, len(body))
		}
	})
}
