package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"penstock/provider"
)

// inPieces reads a stream whose source ends each read where told, with buffers of
// the size given, and returns what came out and the final error.
func inPieces(t interface{ Fatal(...any) }, c *provider.Call, src io.Reader, size int) (string, *provider.Reply, error) {
	r := &provider.Reply{}
	target := &provider.Target{StreamUsage: true}
	if err := streamReply(r, target, c, &http.Response{StatusCode: 200, Body: io.NopCloser(src)}); err != nil {
		return "", nil, err
	}
	var out bytes.Buffer
	p := make([]byte, size)
	for {
		n, err := r.Body.Read(p)
		out.Write(p[:n])
		if errors.Is(err, io.EOF) {
			return out.String(), r, nil
		}
		if err != nil {
			return out.String(), r, err
		}
		if n == 0 {
			t.Fatal("a read of nothing")
		}
	}
}

// cuts is a source that ends its reads after the lengths given, in turn.
type cuts struct {
	r       io.Reader
	lengths []int
	n       int
}

func (c *cuts) Read(p []byte) (int, error) {
	most := c.lengths[c.n%len(c.lengths)]
	c.n++
	return c.r.Read(p[:min(len(p), most)])
}

const (
	wordEvent   = `data: {"id":"1","choices":[{"index":0,"delta":{"content":"wörd \"x\""},"finish_reason":null}],"usage":null}` + "\n\n"
	spacedEvent = `data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": null}]}` + "\r\n\r\n"
	endEvent    = `data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	countEvent  = `data: {"id":"1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}` + "\n\n"
	lastEvent   = "data: [DONE]\n\n"
)

// A stream comes out byte for byte, but for the usage chunk and ids, however its source
// cuts it and whatever is read at once.
func TestStreamInPieces(t *testing.T) {
	kinds := []string{wordEvent, spacedEvent, ": comment\n\n", "event: x\nid: 7\ndata: {}\n\n", "data:\ndata: {\"a\":1,\ndata: \"b\":2}\n\n", "data: {\"long\":\"" + strings.Repeat("y", 9000) + "\"}\n\n"}
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 20).Draw(t, "events")
		lengths := rapid.SliceOfN(rapid.IntRange(1, 600), 1, 8).Draw(t, "lengths")
		asked := rapid.Bool().Draw(t, "asked")
		size := rapid.SampledFrom([]int{peekSize, 32 << 10}).Draw(t, "size")
		text := strings.Join(events, "") + wordEvent + endEvent
		want := strings.ReplaceAll(text, "id: 7\n", "") + lastEvent
		if asked {
			want = strings.ReplaceAll(text, "id: 7\n", "") + countEvent + lastEvent
		}
		c := &provider.Call{Op: provider.Operation{Name: opChat, Stream: true, Metered: true}, Stream: true, Choices: 1, IncludeUsage: asked}
		got, r, err := inPieces(t, c, &cuts{r: strings.NewReader(text + countEvent + lastEvent), lengths: lengths}, size)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("got %d bytes, want %d:\n%q", len(got), len(want), got)
		}
		if use := r.Usage(); use != (provider.Usage{Input: 7, Output: 5, Reported: true}) {
			t.Fatalf("usage %+v", use)
		}
	})
}

// What a tap counts where no usage is reported, and how it takes the end.
func TestTap(t *testing.T) {
	const responses = `event: response.created` + "\n" + `data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","error":null}}` + "\n\n" +
		`event: response.output_text.delta` + "\n" + `data: {"type":"response.output_text.delta","sequence_number":1,"delta":"word"}` + "\n\n"
	tests := []struct {
		name, op, stream string
		output           int64
		code             string // of the error at the end
	}{
		{"chat, one event of text", opChat, wordEvent + endEvent + lastEvent, 3, ""},
		{"chat with spaces", opChat, spacedEvent + spacedEvent + endEvent, 2, ""},
		{"chat without an end", opChat, wordEvent, 3, "truncated"},
		{"tool call", opChat, `data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"a\":1}"}}]},"finish_reason":null}]}` + "\n\n" + lastEvent, 3, ""},
		{"text that looks like a member", opChat, `data: {"choices":[{"delta":{"content":"\"usage\":{\"error\":{}}"}}]}` + "\n\n" + lastEvent, 6, ""},
		{"completion", opCompletions, `data: {"choices":[{"text":"abcdefgh","finish_reason":"length"}]}` + "\n\n", 2, ""},
		{"responses", opResponses, responses + "event: response.completed\ndata: {\"type\":\"response.completed\",\"text\":\"word\"}\n\n", 1, ""},
		{"responses, cut", opResponses, responses, 1, "truncated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &provider.Call{Op: provider.Operation{Name: tt.op, Stream: true, Metered: true}, Stream: true, Choices: 1}
			got, r, err := inPieces(t, c, strings.NewReader(tt.stream), peekSize)
			code := ""
			if e := (*provider.Error)(nil); errors.As(err, &e) {
				code = e.Code
			}
			if code != tt.code || got != tt.stream {
				t.Fatalf("error %v, want %q; got %q", err, tt.code, got)
			}
			if use := r.Usage(); use.Output != tt.output || use.Reported {
				t.Errorf("usage %+v, want %d of output", use, tt.output)
			}
		})
	}
}

// Errors behind a 200 fail the attempt while nothing of the answer has come.
func TestStreamErrors(t *testing.T) {
	for name, tt := range map[string]struct{ op, stream string }{
		"chat":              {opChat, `data: {"error":{"message":"no","code":"overloaded"}}` + "\n\n"},
		"chat, text":        {opChat, `data: {"error": "no"}` + "\n\n"},
		"responses, flat":   {opResponses, "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"no\"}\n\n"},
		"responses, nested": {opResponses, "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"no\"}}\n\n"},
		"after a comment":   {opChat, ": hold on\n\n" + `data: {"choices":[],"error":{"message":"no"}}` + "\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &provider.Call{Op: provider.Operation{Name: tt.op, Stream: true, Metered: true}, Stream: true, Choices: 1}
			_, _, err := inPieces(t, c, strings.NewReader(tt.stream), peekSize)
			var e *provider.Error
			if !errors.As(err, &e) || e.Code != "error_event" {
				t.Fatalf("error %v", err)
			}
		})
	}
}
