package openai

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"penstock/provider"
)

// through reads an upstream's stream as the relay does. The answer arrives in
// pieces of so many bytes; 0 is all at once.
func through(t *testing.T, c *provider.Call, in string, piece int) (string, *provider.Reply, error) {
	t.Helper()
	var src io.Reader = strings.NewReader(in)
	if piece > 0 {
		src = &cuts{r: src, lengths: []int{piece}}
	}
	return inPieces(t, c, src, 32<<10)
}

func chatCall() *provider.Call {
	return &provider.Call{Op: operations["POST /chat/completions"], Stream: true, IncludeUsage: true, Choices: 1}
}

// covers UP-01
func TestStreamIsReadableByEverySDK(t *testing.T) {
	whole := helloEvent + stopEvent + doneEvent
	responses := &provider.Call{Op: operations["POST /responses"], Stream: true, Choices: 1}
	for _, c := range []struct {
		name     string
		call     *provider.Call
		in, want string
	}{
		{"as it is", nil, helloEvent + stopEvent + usageEvent + doneEvent, helloEvent + stopEvent + usageEvent + doneEvent},
		{"comments", nil, ": keep-alive\n\n\n: OPENROUTER PROCESSING\n\n" + whole, ": keep-alive\n\n\n: OPENROUTER PROCESSING\n\n" + whole},
		{"CRLF", nil, strings.ReplaceAll(whole, "\n", "\r\n"), strings.ReplaceAll(whole, "\n", "\r\n")},
		{"bare CR", nil, strings.ReplaceAll(whole, "\n", "\r"), whole},
		{"byte order mark", nil, "\xef\xbb\xbf" + whole, whole},
		{"no space after the colon", nil, "data:{\"choices\":[]}\n\n" + whole, "data:{\"choices\":[]}\n\n" + whole},
		{"id", nil, "id: 7\n" + helloEvent + "id: 8\n" + stopEvent + doneEvent, whole},
		{"id behind the data", nil, helloEvent[:len(helloEvent)-1] + "id: 7\n\n" + stopEvent + doneEvent, whole},
		{"retry", nil, "retry: 3000\n\n" + whole, whole},
		{"retry beside a comment", nil, ": hello\nretry: 3000\n\n" + whole, ": hello\n\n" + whole},
		{"empty data", nil, "data:\n\n" + helloEvent + "data: \n\n" + stopEvent + doneEvent, whole},
		{"event without data", nil, "event: ping\n\n" + whole, whole},
		{"ping with data", nil, "event: ping\ndata: {\"type\":\"ping\"}\n\n" + helloEvent + "data: {\"type\": \"ping\"}\n\n" + stopEvent + doneEvent, ": ping\n\n" + helloEvent + ": ping\n\n" + stopEvent + doneEvent},
		{"null error", nil, `data: {"error":null,"id":"1","choices":[]}` + "\n\n" + `data: {"id":"1" , "error" : null, "n":1.50}` + "\n\n" + `data: {"id":"1","error":null}` + "\n\n" + `data: { "error": null }` + "\n\n" + whole,
			`data: {"id":"1","choices":[]}` + "\n\n" + `data: {"id":"1", "n":1.50}` + "\n\n" + `data: {"id":"1"}` + "\n\n" + `data: { }` + "\n\n" + whole},
		{"null error of a choice", nil, `data: {"choices":[{"index":0,"error":null,"delta":{"content":"\"error\":null"}}]}` + "\n\n" + whole,
			`data: {"choices":[{"index":0,"error":null,"delta":{"content":"\"error\":null"}}]}` + "\n\n" + whole},
		{"last blank line missing", nil, strings.TrimSuffix(whole, "\n"), whole},
		{"last line end missing", nil, strings.TrimSuffix(whole, "\n\n"), whole},
		{"error behind a chunk", nil, helloEvent + "data: {\"error\":{\"message\":\"no\",\"code\":null}}\n\n" + doneEvent, helloEvent + "data: {\"error\":{\"message\":\"no\",\"code\":null}}\n\n" + doneEvent},
		{"text as an error", nil, helloEvent + "data: {\"error\":\"no\"}\n\n", helloEvent + `data: {"error":{"message":"no","type":"server_error","param":null,"code":"upstream_error"}}` + "\n\n"},
		{"flat error", nil, helloEvent + "event: error\ndata: {\"message\":\"no\",\"code\":17}\n\n", helloEvent + "event: error\n" + `data: {"error":{"message":"no","type":"server_error","param":null,"code":"17"}}` + "\n\n"},
		{"flat error without a name", nil, helloEvent + `data: {"type":"error","code":"x","message":"no"}` + "\n\n", helloEvent + `data: {"error":{"message":"no","type":"server_error","param":null,"code":"x"}}` + "\n\n"},
		{"responses", responses, "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"error\":null}}\n\nevent: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":1}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\nevent: error\ndata: {\"type\":\"error\",\"code\":\"x\",\"message\":\"no\"}\n\n",
			"event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"error\":null}}\n\nevent: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":1}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\nevent: error\ndata: {\"type\":\"error\",\"code\":\"x\",\"message\":\"no\"}\n\n"},
	} {
		for _, piece := range []int{0, 1, 2, 3, 7, 64} {
			call := c.call
			if call == nil {
				call = chatCall()
			}
			got, _, err := through(t, call, c.in, piece)
			var up *provider.Error
			if told := strings.Contains(c.in, "no\""); told != errors.As(err, &up) || told && up.Code != "error_event" {
				t.Errorf("%s, pieces of %d: error %v", c.name, piece, err)
			}
			if got != c.want {
				t.Errorf("%s, pieces of %d: got\n%q\nwant\n%q", c.name, piece, got, c.want)
			}
		}
	}
}

// The usage chunk that was asked for on the client's behalf does not reach it,
// wherever the pieces begin and end.
func TestUsageChunkIsLeftOutOfAnyPieces(t *testing.T) {
	for piece := range 40 {
		call := chatCall()
		call.IncludeUsage = false
		got, reply, err := through(t, call, "id: 1\n"+helloEvent+stopEvent+usageEvent+doneEvent, piece)
		if want := helloEvent + stopEvent + doneEvent; err != nil || got != want {
			t.Fatalf("pieces of %d: %v\n%q", piece, err, got)
		}
		if use := reply.Usage(); use.Input != 9 || use.Output != 2 || !use.Reported {
			t.Fatalf("usage %+v", use)
		}
	}
}

// covers UP-01: an event that is cut within does not reach the client, which would
// read the error behind it as its end.
func TestCutWithinAnEvent(t *testing.T) {
	for name, tail := range map[string]string{"data": `data: {"id":"1","cho`, "name": "data", "after a line": helloEvent[:30] + "\n"} {
		got, reply, err := through(t, chatCall(), helloEvent+tail, 0)
		var up *provider.Error
		if got != helloEvent || !errors.As(err, &up) || up.Code != "truncated" {
			t.Errorf("%s: %v\n%q", name, err, got)
		}
		if cut := string(reply.Cut("x", "y")); !strings.HasPrefix(cut, `data: {"error":{`) || !strings.HasSuffix(cut, "\n\n") {
			t.Errorf("%s: the cut is told by %q", name, cut)
		}
	}
	// An event of which a part has passed is ended first.
	long := `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", 64<<10)
	got, reply, err := through(t, chatCall(), helloEvent+long, 0)
	if err == nil || !strings.HasPrefix(got, helloEvent+long) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	if cut := string(reply.Cut("x", "y")); !strings.Contains(got+cut, "x\n\n"+`data: {"error":{`) {
		t.Errorf("the cut is told by %q", cut)
	}
}

// Events of any length pass whole, and what follows them is still looked at.
func TestLongEventsPass(t *testing.T) {
	for _, n := range []int{1000, 8 << 10, 9 << 10, 16 << 10, 32 << 10, maxPeek, 5 << 20} {
		long := `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", n) + `"}}]}` + "\n\n"
		got, _, err := through(t, chatCall(), "id: 0\n"+long+"id: 1\n"+stopEvent+doneEvent, 1000)
		if want := long + stopEvent + doneEvent; err != nil || got != want {
			t.Errorf("%d bytes: %v, got %d bytes, want %d", n, err, len(got), len(want))
		}
	}
}

// covers CL-02: what breaks after the terminal event breaks nothing.
func TestResetAfterTheEndIsNoFailure(t *testing.T) {
	in := io.MultiReader(strings.NewReader(helloEvent+stopEvent+doneEvent), iotest.ErrReader(errors.New("connection reset")))
	resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, ContentLength: -1, Body: io.NopCloser(in)}
	reply, err := Adapter{}.Reply(&provider.Target{MaxAnswer: 1 << 20}, chatCall(), resp)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(reply.Body); err != nil || string(out) != helloEvent+stopEvent+doneEvent {
		t.Errorf("%v %q", err, out)
	}
}

// covers CL-03: text is counted also where JSON is written with spaces.
func TestTextIsCountedWithoutUsage(t *testing.T) {
	in := `data: {"choices": [{"index": 0, "delta": {"type": "text", "text": "four words of text"}}]}` + "\n\n" + stopEvent + doneEvent
	_, reply, err := through(t, chatCall(), in, 0)
	if err != nil {
		t.Fatal(err)
	}
	if use := reply.Usage(); use.Output != 5 || use.Reported {
		t.Errorf("%+v", use)
	}
}

// A stored response that is streamed again is cut as a new one is; other streams
// have no end that is known, and may hold nothing.
func TestStreamsOfStoredObjects(t *testing.T) {
	const event = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":5,\"delta\":\"x\"}\n\n"
	stored := &provider.Call{Op: provider.Operation{Name: opPassthrough}, Method: "GET", Path: "/responses/resp_1", Query: "stream=true"}
	_, reply, err := through(t, stored, event, 0)
	var up *provider.Error
	if !errors.As(err, &up) || up.Code != "truncated" || !strings.HasPrefix(string(reply.Cut("x", "y")), "event: error\ndata: {\"type\":\"error\",\"sequence_number\":6,") {
		t.Errorf("%v %q", err, reply.Cut("x", "y"))
	}
	for _, in := range []string{"", ": nothing yet\n\n", "event: ping\ndata: {\"type\":\"ping\"}\n\n"} {
		other := &provider.Call{Op: provider.Operation{Name: opPassthrough}, Method: "GET", Path: "/agents/sessions/1/events"}
		if got, _, err := through(t, other, in, 0); err != nil || got != in {
			t.Errorf("%v %q, want %q", err, got, in)
		}
	}
}
