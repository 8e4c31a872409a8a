package openai

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"penstock/provider"
	"penstock/sse"
)

var (
	doneData    = []byte("[DONE]")
	quotedError = []byte(`"error"`)
)

const (
	nameError = "error"
	namePing  = "ping"
)

// family is how a stream of an operation ends.
type family int

const (
	familyOther     family = iota // no known terminal event
	familyChat                    // chat completions and completions: finish reasons, then [DONE]
	familyResponses               // a response.completed, .incomplete or .failed event
	familyMedia                   // images, speech, transcriptions: an event of its own for each
)

func familyOf(op string) family {
	switch op {
	case opChat, opCompletions:
		return familyChat
	case opResponses:
		return familyResponses
	case opImagesGenerations, opImagesEdits, opAudioSpeech, opAudioTranscriptions:
		return familyMedia
	}
	return familyOther
}

// A tap watches the events of a stream as they pass: for usage, for the terminal
// event, for errors. It does not change them.
type tap struct {
	family  family
	choices int64 // finish reasons to expect

	usage    provider.Usage
	events   int64 // events with text
	text     int64 // bytes of text
	finished int64 // choices with a finish reason
	done     bool  // terminal event seen
	failure  []byte
	started  bool // a meaningful event was seen

	head     []byte // how the last event of a chat began, see likeLast
	response string // id of the response, for familyResponses
	sequence int64  // last sequence number, for familyResponses
}

// streamOp is the operation whose stream a call gets: a stored response is streamed
// again as it was when it was made.
func streamOp(c *provider.Call) string {
	if c.Op.Name == opPassthrough && c.Method == http.MethodGet && strings.HasPrefix(c.Path, "/responses/") {
		return opResponses
	}
	return c.Op.Name
}

func newTap(c *provider.Call) *tap {
	t := &tap{family: familyOf(streamOp(c)), choices: max(1, c.Choices), sequence: -1}
	if c.Op.Name == opCompletions {
		t.choices = 1 // best_of and lists of prompts make another number come back
	}
	return t
}

// see looks at one event, and says what becomes of it.
func (t *tap) see(e *sse.Event) verdict {
	if !e.HasData || len(e.Data) == 0 {
		return asIs
	}
	if bytes.Equal(e.Data, doneData) {
		t.done, t.started = true, true
		return asIs
	}
	if t.isPing(e) {
		return ping
	}
	m := t.members(e)
	if t.failure != nil {
		return m.error
	}
	t.count(m.text)
	switch t.family {
	case familyChat:
		t.started = t.started || !m.noChoice
		if m.usage && m.noChoice {
			return usageChunk
		}
	case familyResponses:
		t.started = true
		t.seeResponses(e)
	case familyMedia:
		t.started = true
		if mediaEnds[eventType(e)] {
			t.finished++
		}
		t.done = t.finished >= t.choices
	case familyOther:
		t.started = true
	}
	return m.error
}

// found is what the members of one event tell.
type found struct {
	error    verdict // on a top-level error, or one that says that there is none
	usage    bool    // it holds a usage object
	noChoice bool    // its choices are empty: usage, and Azure's filter results
	text     int64   // bytes that the model wrote
}

// members goes through the members of an event, once and without decoding them. Those of
// a head like that of the last event have been gone through already.
func (t *tap) members(e *sse.Event) (f found) {
	b, flat := e.Data, false // it may be an error
	begin := likeLast(t.head, b)
	plain, dull := 0, begin == 0 && t.family == familyChat // b[:plain] tells nothing
	for name, i := nextMember(b, begin); name != nil; name, i = nextMember(b, i) {
		matters := false
		switch string(name) {
		case "content", "arguments", "reasoning_content", "reasoning", "text":
			if matters = t.family == familyChat && b[i] == '"'; matters {
				f.text += int64(stringLen(b[i+1:]))
			}
		case "delta": // a string in the events of the Responses API
			if matters = t.family == familyResponses && b[i] == '"'; matters {
				f.text += int64(stringLen(b[i+1:]))
			}
		case "finish_reason":
			if matters = b[i] == '"'; matters {
				t.finished++
			}
		case "choices":
			f.noChoice = b[i] == '[' && bytes.HasPrefix(bytes.TrimLeft(b[i+1:], " "), []byte("]"))
			matters = f.noChoice
		case "sequence_number":
			t.sequence, matters = number(b[i:], t.sequence), true
		case "usage":
			if matters = b[i] == '{'; matters && !f.usage {
				f.usage = true
				if use, ok := readUsage(b[i:]); ok {
					t.usage = use
				}
			}
		case "type", "object":
			matters = bytes.HasPrefix(b[i:], quotedError)
			flat = flat || matters
		case "error":
			flat, matters = true, true
		default:
			if dull {
				plain = i
			}
		}
		dull = dull && !matters
	}
	if plain > 0 && plain <= maxHead {
		t.head = append(t.head[:0], b[:plain]...)
	}
	if flat || e.Name == nameError {
		f.error = t.seeError(e)
	}
	return f
}

// number is the natural number at the beginning of b, or otherwise.
func number(b []byte, otherwise int64) int64 {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	if v, err := strconv.ParseInt(string(b[:n]), 10, 64); err == nil {
		return v
	}
	return otherwise
}

var mediaEnds = map[string]bool{
	"image_generation.completed": true, "image_edit.completed": true,
	"speech.audio.done": true, "transcript.text.done": true,
}

// eventType is the event's name, or its "type" where it has no name.
func eventType(e *sse.Event) string {
	if e.Name != "" {
		return e.Name
	}
	return gjson.GetBytes(e.Data, "type").String()
}

func (t *tap) seeResponses(e *sse.Event) {
	switch eventType(e) {
	case "response.created":
		t.response = gjson.GetBytes(e.Data, "response.id").String()
	case "response.completed", "response.incomplete", "response.failed":
		t.done = true
	}
}

// isPing tells keep-alive events, as Anthropic's API has them, where no SDK of
// OpenAI's expects one.
func (t *tap) isPing(e *sse.Event) bool {
	if t.family == familyOther || len(e.Data) > 64 {
		return false
	}
	return (e.Name == namePing || e.Name == "") && gjson.GetBytes(e.Data, "type").String() == namePing
}

// seeError notes an error event: a top-level "error", or the flat form, which is
// that of the Responses API and which SDKs do not see on other streams.
func (t *tap) seeError(e *sse.Event) verdict {
	top, v := gjson.GetBytes(e.Data, nameError), asIs
	switch {
	case top.IsObject():
	case top.Exists() && (top.Type == gjson.Null || top.Type == gjson.False || top.Type == gjson.String && top.Str == ""):
		return nullError
	case top.Exists():
		v = flatError
	case t.family == familyOther || !isErrorType(e):
		return asIs
	case t.family != familyResponses:
		v = flatError
	}
	t.failure, t.done, t.started = bytes.Clone(e.Data), true, true
	return v
}

func isErrorType(e *sse.Event) bool {
	return e.Name == nameError || gjson.GetBytes(e.Data, "type").String() == nameError || gjson.GetBytes(e.Data, "object").String() == nameError
}

// count adds what the model wrote in an event to the count that stands in for
// usage until, or unless, it is reported.
func (t *tap) count(text int64) {
	if text > 0 {
		t.events++
		t.text += text
	}
}

// counted is the output seen so far: one token for each event or four bytes,
// whichever is more.
func (t *tap) counted() int64 { return max(t.events, (t.text+3)/4) }

// current is the best knowledge of usage so far.
func (t *tap) current() provider.Usage {
	if t.usage.Reported {
		return t.usage
	}
	return provider.Usage{Output: t.counted()}
}

// complete reports whether the stream, having ended cleanly, is whole.
func (t *tap) complete() bool {
	return t.done || t.family == familyOther || t.family == familyChat && t.finished >= t.choices
}
