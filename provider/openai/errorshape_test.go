package openai

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"penstock/provider"
)

// covers CL-07: whatever an upstream calls an error, SDKs find an object under
// "error", with a text as its message and a text or null as its code.
func TestErrorsHaveOneShape(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		in     string
		want   string // the whole body; empty when only the parts below are asked for
		text   string
		code   string
		kind   provider.Kind
	}{
		{"OpenAI's own", 400, ` {"error": {"message":"no","type":"invalid_request_error","param":null,"code":null},"x":1.50}` + "\n", `{"error": {"message":"no","type":"invalid_request_error","param":null,"code":null},"x":1.50}`, "no", "", provider.KindClient},
		{"vLLM, number as code", 400, `{"error":{"message":"no","type":"BadRequestError","param":null,"code": 400},"n":1}`, `{"error":{"message":"no","type":"BadRequestError","param":null,"code": "400"},"n":1}`, "no", "400", provider.KindClient},
		{"Gemini, array", 429, `[{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED"}}]`, `{"error":{"code":"429","message":"no","status":"RESOURCE_EXHAUSTED"}}`, "no", "429", provider.KindCapacity},
		{"Ollama, text", 404, `{"error":"model \"x\" not found"}`, "", `model "x" not found`, "upstream_error", provider.KindClient},
		{"Mistral, flat", 429, `{"object":"error","message":"slow down","type":"rate_limited","param":null,"code":"1300"}`, `{"error":{"message":"slow down","type":"rate_limited","param":null,"code":"1300"}}`, "slow down", "1300", provider.KindCapacity},
		{"FastAPI, text", 404, `{"detail":"Not Found"}`, "", "Not Found", "upstream_error", provider.KindClient},
		{"FastAPI, list", 422, `{"detail":[{"loc":["body","n"],"msg":"not a number","type":"x"}]}`, "", "not a number", "upstream_error", provider.KindClient},
		{"Azure's gateway", 429, `{"statusCode":429,"message":"Rate limit is exceeded."}`, "", "Rate limit is exceeded.", "upstream_error", provider.KindCapacity},
		{"Bedrock", 400, `{"message":"too long"}`, "", "too long", "upstream_error", provider.KindClient},
		{"message missing", 400, `{"error":{"code":7}}`, "", "the upstream answered 400 Bad Request", "7", provider.KindClient},
		{"quota", 429, `{"error":{"message":"pay","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, "", "pay", "insufficient_quota", provider.KindBilling},
		{"HTML", 404, "<html>\n<h1>nginx at 10.0.0.7</h1></html>", "", "the upstream answered 404 Not Found", "upstream_error", provider.KindClient},
		{"plain text", 413, "payload too large", "", "payload too large", "upstream_error", provider.KindClient},
		{"plain text of a broken server", 502, "dial 10.0.0.7: refused", "", "the upstream answered 502 Bad Gateway", "upstream_error", provider.KindHealth},
		{"empty", 500, "", "", "the upstream answered 500 Internal Server Error", "upstream_error", provider.KindHealth},
		{"a string", 400, `"no"`, "", "no", "upstream_error", provider.KindClient},
		{"null", 400, `null`, "", "the upstream answered 400 Bad Request", "upstream_error", provider.KindClient},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{"Content-Type": {"text/html"}}
			resp := &http.Response{StatusCode: c.status, Header: header, ContentLength: -1, Body: io.NopCloser(strings.NewReader(c.in))}
			_, err := Adapter{}.Reply(&provider.Target{MaxAnswer: 1 << 20}, chatCall(), resp)
			var up *provider.Error
			if !errors.As(err, &up) || up.Kind != c.kind || up.Status != c.status {
				t.Fatalf("got %v, kind %v", err, provider.KindOf(err))
			}
			var e struct {
				Error struct {
					Message *string
					Code    *string
				}
			}
			if err := json.Unmarshal(up.Body, &e); err != nil || e.Error.Message == nil {
				t.Fatalf("%v: %s", err, up.Body)
			}
			if *e.Error.Message != c.text || e.Error.Code == nil && c.code != "" || e.Error.Code != nil && *e.Error.Code != c.code {
				t.Errorf("got %s", up.Body)
			}
			if c.want != "" && string(up.Body) != c.want {
				t.Errorf("got\n%s\nwant\n%s", up.Body, c.want)
			}
			if up.Header.Get("Content-Type") != "application/json" {
				t.Errorf("Content-Type is %q", up.Header.Get("Content-Type"))
			}
		})
	}
}

func zipped(text string) *bytes.Buffer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return &b
}

// An answer that comes compressed although nobody asked for it is opened: its usage
// is read, its errors are classified, and clients that cannot open it understand it.
func TestCompressedAnswersAreOpened(t *testing.T) {
	whole := helloEvent + stopEvent + usageEvent + doneEvent
	answer := `{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}`
	for _, c := range []struct{ kind, body string }{{"text/event-stream", whole}, {"application/json", answer}} {
		body := zipped(c.body)
		resp := &http.Response{StatusCode: 200, ContentLength: int64(body.Len()), Body: io.NopCloser(body),
			Header: http.Header{"Content-Type": {c.kind}, "Content-Encoding": {"gzip"}}}
		reply, err := Adapter{}.Reply(&provider.Target{MaxAnswer: 1 << 20}, chatCall(), resp)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reply.Body)
		if err != nil || string(got) != c.body || reply.Header.Get("Content-Encoding") != "" || reply.Usage().Input != 9 {
			t.Errorf("%s: %v %q %v", c.kind, err, got, reply.Header)
		}
	}
	resp := &http.Response{StatusCode: 429, Body: io.NopCloser(zipped(`{"error":{"message":"pay","type":"insufficient_quota","code":null}}`)),
		Header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}}
	_, err := Adapter{}.Reply(&provider.Target{}, chatCall(), resp)
	var up *provider.Error
	if !errors.As(err, &up) || up.Kind != provider.KindBilling || up.Header.Get("Content-Encoding") != "" || !strings.Contains(string(up.Body), `"pay"`) {
		t.Errorf("%v %s", err, up.Body)
	}
	short := zipped(answer)
	short.Truncate(short.Len() - 12)
	resp = &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(short), Header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}}
	if _, err := (Adapter{}).Reply(&provider.Target{MaxAnswer: 1 << 20}, chatCall(), resp); !errors.As(err, &up) || up.Code != "truncated" {
		t.Errorf("cut short: %v", err)
	}
	// What nobody has to read stays as it is.
	file := &provider.Call{Op: provider.Operation{Name: "files"}, Method: "GET"}
	resp = &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(zipped("x")), Header: http.Header{"Content-Encoding": {"gzip"}}}
	reply, err := Adapter{}.Reply(&provider.Target{}, file, resp)
	if got, _ := io.ReadAll(reply.Body); err != nil || !bytes.Equal(got, zipped("x").Bytes()) || reply.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%v %q", err, got)
	}
}

// covers UP-01: what stands behind a 200 and is no answer is a failed attempt.
func TestNoAnswerBehindA200(t *testing.T) {
	quiet := chatCall()
	quiet.Stream = false
	for _, c := range []struct {
		name, kind, body string
		call             *provider.Call
		code             string // of the error; empty for none
	}{
		{"page", "text/html", "<h1>Log in</h1>", quiet, "not_json"},
		{"page in place of a stream", "text/html; charset=utf-8", "<h1>Log in</h1>", chatCall(), "not_json"},
		{"half an object", "application/json", `{"id":"1","choices":[`, quiet, "not_json"},
		{"nothing", "application/json", "", quiet, "not_json"},
		{"JSON by another name", "text/plain", `{"object":"chat.completion","choices":[]}`, quiet, ""},
		{"stream by another name", "application/octet-stream", helloEvent + stopEvent + doneEvent, chatCall(), ""},
		{"text in place of a stream", "text/plain", "hello", chatCall(), "truncated"},
		{"blank lines first", "application/json", "\n\n\n" + `{"object":"chat.completion","choices":[]}`, quiet, ""},
		{"error", "application/json", "\n\n" + `{"error":{"message":"no","code":502}}`, quiet, "error_event"},
		{"error as a text", "application/json", `{"error":"no"}`, quiet, "error_event"},
		{"flat error", "application/json", `{"object":"error","message":"no","code":"x"}`, quiet, "error_event"},
		{"no error", "application/json", `{"object":"response","error":null,"output":[]}`, quiet, ""},
		{"a choice's error", "application/json", `{"choices":[{}],"error":{"message":"no"}}`, quiet, ""},
	} {
		resp := &http.Response{StatusCode: 200, ProtoMajor: 1, ContentLength: int64(len(c.body)), Body: io.NopCloser(strings.NewReader(c.body)), Header: http.Header{"Content-Type": {c.kind}}}
		reply, err := Adapter{}.Reply(&provider.Target{MaxAnswer: 1 << 20}, c.call, resp)
		var up *provider.Error
		if c.code == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if got, _ := io.ReadAll(reply.Body); string(got) != c.body {
				t.Errorf("%s: got %q", c.name, got)
			}
		} else if !errors.As(err, &up) || up.Code != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
}
