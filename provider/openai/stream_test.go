package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"penstock/provider"
	"penstock/sse"
)

const (
	helloEvent  = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}]}\n\n"
	stopEvent   = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	usageEvent  = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n"
	doneEvent   = "data: [DONE]\n\n"
	failEvent   = "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n"
	comments    = ": ping\n\n:\r\n\r\n"
	responseEnd = "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":7,\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n"
)

// A relayed stream is what came of one: the bytes, the usage, how it ended.
type relayed struct {
	bytes string
	usage provider.Usage
	code  string // of the error; empty for a whole stream
}

// relay sends a stream in pieces through the adapter to a reader with a buffer of
// n bytes.
func relay(c *provider.Call, stream string, sizes []byte, n int, end error) relayed {
	resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: &pieces{data: []byte(stream), sizes: sizes, err: end}}
	target := &provider.Target{Credential: secretKey, StreamUsage: true, MaxAnswer: 1 << 20}
	reply, err := Adapter{}.Reply(target, c, resp)
	if err != nil {
		return relayed{code: "failed " + codeOf(err)}
	}
	got, err := readSized(reply.Body, n)
	return relayed{string(got), reply.Usage(), codeOf(err)}
}

func codeOf(err error) string {
	var e *provider.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

func streamCall(t testing.TB, path string, asked bool) *provider.Call {
	return &provider.Call{Op: operation(t, path), Stream: true, IncludeUsage: asked, Choices: 1}
}

// Where the pieces of a stream end, and how large the reader's buffer is, changes
// nothing: not a byte, not the usage, not how it ends.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		helloEvent + stopEvent + usageEvent + doneEvent, comments + helloEvent, helloEvent + failEvent, failEvent, responseEnd,
		"event: response.created\r\ndata: {\"response\":{\"id\":\"r\"}}\r\n\r\n" + responseEnd, "data: [DONE]", "\n\n\n", usageEvent,
		helloEvent + usageEvent[:30], "data: a\ndata: b\n\n" + strings.ReplaceAll(usageEvent, "\n", "\r\n") + doneEvent, "data:\r\r\n\n",
	} {
		f.Add(s, []byte{1, 9}, uint16(7), true)
		f.Add(s, []byte{200}, uint16(3), false)
	}
	f.Fuzz(func(t *testing.T, stream string, sizes []byte, buffer uint16, reset bool) {
		if len(stream) > 16<<10 || strings.Contains(stream, secretKey[:minSecret]) {
			return // else the beginning that is held back differs
		}
		end := io.EOF
		if reset {
			end = io.ErrUnexpectedEOF
		}
		for _, path := range []string{"/chat/completions", "/responses"} {
			for _, asked := range []bool{true, false} {
				c := streamCall(t, path, asked)
				whole := relay(c, stream, []byte{255, 255, 255}, 32<<10, end)
				got := relay(c, stream, sizes, int(buffer)+1, end)
				if strings.HasPrefix(whole.code, "failed error") != strings.HasPrefix(got.code, "failed error") {
					continue // an error that was in time to be tried again, because it came in one piece
				}
				if strings.Contains(stream, "\r") { // line ends of several kinds become one or the other
					whole.bytes, got.bytes = strings.ReplaceAll(whole.bytes, "\r\n", "\n"), strings.ReplaceAll(got.bytes, "\r\n", "\n")
				}
				if !reflect.DeepEqual(whole, got) {
					t.Fatalf("%s, usage asked for: %v: %q gives\n%+v %q whole and\n%+v %q in pieces", path, asked, stream, whole, whole.bytes, got, got.bytes)
				}
				checkRelayed(t, c, stream, got)
			}
		}
	})
}

// checkRelayed fails unless all of a stream came through, except usage chunks that
// the client did not ask for, and what no SDK can read.
func checkRelayed(t *testing.T, c *provider.Call, stream string, got relayed) {
	t.Helper()
	if strings.HasPrefix(got.code, "failed") {
		return
	}
	if want, ok := readable(c, stream); ok && got.bytes != want {
		t.Fatalf("%q\ncame through as %q\nwant %q", stream, got.bytes, want)
	}
	for line := range strings.Lines(got.bytes) {
		if strings.HasPrefix(line, "id:") || strings.HasPrefix(line, "retry:") {
			t.Fatalf("%q has passed", line)
		}
	}
	if got.usage.Input < 0 || got.usage.Output < 0 || got.usage.Input > maxUsage || got.usage.Output > int64(max(maxUsage, len(stream))) {
		t.Fatalf("usage %+v", got.usage)
	}
}

// readable is what the client gets of a stream of whole events, all of which SDKs
// can read; it is not ok for others.
func readable(c *provider.Call, stream string) (want string, ok bool) {
	var out strings.Builder
	var split sse.Splitter
	from := 0
	ok = !strings.ContainsAny(stream, "\r\ufeff")
	split.Feed([]byte(stream), func(e *sse.Event, end int) {
		v := newTap(c).see(e)
		if v != usageChunk || c.IncludeUsage {
			out.WriteString(stream[from:end])
		}
		ok = ok && (v == asIs || v == usageChunk) && !e.Resumes && (len(e.Data) > 0 || e.Name == "" && !e.HasData)
		from = end
	})
	return out.String(), ok && from == len(stream)
}

// How a stream ended is known from what came, for each of the ways it can end.
// covers UP-01
func TestStreamEnds(t *testing.T) {
	for _, c := range []struct {
		name, path, stream string
		end                error
		code               string
		usage              provider.Usage
	}{
		{"whole", "/chat/completions", helloEvent + stopEvent + usageEvent + doneEvent, io.EOF, "", provider.Usage{Input: 9, Output: 2, Reported: true}},
		{"no [DONE]", "/chat/completions", helloEvent + stopEvent, io.EOF, "", provider.Usage{Output: 2}},
		{"reset behind [DONE]", "/chat/completions", helloEvent + stopEvent + doneEvent, io.ErrUnexpectedEOF, "", provider.Usage{Output: 2}},
		{"reset before [DONE]", "/chat/completions", helloEvent + stopEvent, io.ErrUnexpectedEOF, "truncated", provider.Usage{Output: 2}},
		{"clean end in the middle", "/chat/completions", helloEvent, io.EOF, "truncated", provider.Usage{Output: 2}},
		{"error in the middle", "/chat/completions", helloEvent + failEvent, io.EOF, "error_event", provider.Usage{Output: 2}},
		{"error first", "/chat/completions", failEvent, io.EOF, "failed error_event", provider.Usage{}},
		{"nothing", "/chat/completions", "", io.EOF, "failed truncated", provider.Usage{}},
		{"comments only", "/chat/completions", comments, io.EOF, "failed truncated", provider.Usage{}},
		{"responses", "/responses", responseEnd, io.EOF, "", provider.Usage{Input: 3, Output: 4, Reported: true}},
		{"responses, cut", "/responses", "event: response.created\ndata: {\"response\":{\"id\":\"r\"}}\n\n", io.EOF, "truncated", provider.Usage{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := relay(streamCall(t, c.path, true), c.stream, []byte{50}, 100, c.end)
			if got.code != c.code || got.usage != c.usage {
				t.Errorf("got %q, %+v; want %q, %+v", got.code, got.usage, c.code, c.usage)
			}
		})
	}
}

// A key that is echoed in a stream is masked at any split, and the rest of the
// stream stays as it is.
// covers SEC-01
func TestStreamMasksTheKey(t *testing.T) {
	event := fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":\"your key is %s\"},\"finish_reason\":\"stop\"}]}\n\n", secretKey)
	stream := helloEvent + event + doneEvent
	want := strings.ReplaceAll(stream, secretKey, strings.Repeat("*", len(secretKey)))
	for size := range 120 {
		for _, asked := range []bool{true, false} {
			got := relay(streamCall(t, "/chat/completions", asked), stream, []byte{byte(size)}, 32<<10, io.EOF)
			if got.bytes != want || got.code != "" {
				t.Fatalf("pieces of %d: %+v", size, got)
			}
		}
	}
}

// An upstream that never ends a line, an event or its comments costs no more than
// the memory that is counted.
// covers RES-04
func TestEndlessEventsAreBounded(t *testing.T) {
	for name, line := range map[string]string{"line": "x", "data lines": "data: x\n", "comments": ":\n"} {
		t.Run(name, func(t *testing.T) {
			held := int64(0)
			c := streamCall(t, "/chat/completions", false)
			c.Reserve = func(n int64) bool {
				if held+n > 1<<20 {
					return false
				}
				held += n
				return true
			}
			src := &endlessly{piece: bytes.Repeat([]byte(line), 32<<10/len(line))}
			s := &stream{src: src, tap: newTap(c), strip: true}
			s.split.Room = c.Reserve
			buf, came := make([]byte, 32<<10), 0
			for range 400 {
				came += len(s.next(buf)) + len(s.ready)
				s.ready = nil
			}
			if waiting := src.sent - came; waiting > maxPeek {
				t.Errorf("%d bytes are held back", waiting)
			}
			if held > 1<<20 || name != "comments" && held == 0 {
				t.Errorf("%d bytes were counted", held)
			}
		})
	}
}

// endlessly is a body that repeats its piece.
type endlessly struct {
	piece []byte
	sent  int
}

func (e *endlessly) Read(p []byte) (int, error) {
	n := copy(p, e.piece[e.sent%len(e.piece):])
	e.sent += n
	return n, nil
}

func (e *endlessly) Close() error { return nil }
