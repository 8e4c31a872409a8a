package openai

import (
	"bytes"
	"strconv"

	"github.com/tidwall/gjson"

	"penstock/provider"
	"penstock/sse"
)

// textKeys are the members of a delta that hold what the model wrote.
var textKeys = [][]byte{[]byte(`"content":"`), []byte(`"arguments":"`), []byte(`"reasoning_content":"`), []byte(`"reasoning":"`), []byte(`"text":"`)}

// deltaKey holds it in the events of the Responses API.
var deltaKeys = [][]byte{[]byte(`"delta":"`)}

var (
	doneData     = []byte("[DONE]")
	finishKey    = []byte(`"finish_reason"`)
	errorKey     = []byte(`"error"`)
	emptyChoices = []byte(`"choices":[]`)
	sequenceKey  = []byte(`"sequence_number":`)
)

// family is how a stream of an operation ends.
type family int

const (
	familyOther     family = iota // no known terminal event
	familyChat                    // chat completions and completions: finish reasons, then [DONE]
	familyResponses               // a response.completed, .incomplete or .failed event
	familyMedia                   // images, speech, transcriptions: an event of its own
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

	response string // id of the response, for familyResponses
	sequence int64  // last sequence number, for familyResponses
}

func newTap(c *provider.Call) *tap {
	t := &tap{family: familyOf(c.Op.Name), choices: max(1, c.Choices), sequence: -1}
	if c.Op.Name == opCompletions {
		t.choices = 1 // best_of and lists of prompts make another number come back
	}
	return t
}

// see looks at one event. It reports whether the event is the usage chunk of a
// chat or completion stream, which clients get only if they asked.
func (t *tap) see(e *sse.Event) (usageChunk bool) {
	if !e.HasData || len(e.Data) == 0 {
		return false
	}
	if bytes.Equal(e.Data, doneData) {
		t.done, t.started = true, true
		return false
	}
	if bytes.Contains(e.Data, errorKey) && t.seeError(e) {
		t.started = true
		return false
	}
	if u, ok := usageObject(e.Data); ok {
		if use, ok := readUsage(u); ok {
			t.usage = use
		}
		usageChunk = t.family == familyChat && isEmptyChoices(e.Data)
	}
	switch t.family {
	case familyChat:
		t.seeChat(e.Data)
	case familyResponses:
		t.seeResponses(e)
	case familyMedia:
		t.started = true
		t.done = t.done || mediaEnds[eventType(e)]
	case familyOther:
		t.started = true
	}
	return usageChunk
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

// isEmptyChoices tells chunks without a choice: usage, and Azure's filter results.
func isEmptyChoices(data []byte) bool {
	if bytes.Contains(data, emptyChoices) {
		return true
	}
	c := gjson.GetBytes(data, "choices")
	return c.IsArray() && len(c.Array()) == 0
}

func (t *tap) seeChat(data []byte) {
	if !t.started && !isEmptyChoices(data) {
		t.started = true
	}
	t.countText(data, textKeys)
	for rest := data; ; {
		at := bytes.Index(rest, finishKey)
		if at < 0 {
			return
		}
		rest = bytes.TrimLeft(rest[at+len(finishKey):], " :")
		if len(rest) > 0 && rest[0] == '"' {
			t.finished++
		}
	}
}

func (t *tap) seeResponses(e *sse.Event) {
	t.started = true
	t.countText(e.Data, deltaKeys)
	if at := bytes.LastIndex(e.Data, sequenceKey); at >= 0 {
		digits := e.Data[at+len(sequenceKey):]
		n := 0
		for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
			n++
		}
		if v, err := strconv.ParseInt(string(digits[:n]), 10, 64); err == nil {
			t.sequence = v
		}
	}
	switch eventType(e) {
	case "response.created":
		t.response = gjson.GetBytes(e.Data, "response.id").String()
	case "response.completed", "response.incomplete", "response.failed":
		t.done = true
	}
}

// seeError notes an error event: a top-level "error" object, or the flat form of
// the Responses API.
func (t *tap) seeError(e *sse.Event) bool {
	top := gjson.GetBytes(e.Data, "error")
	flat := t.family == familyResponses && eventType(e) == "error"
	if !top.IsObject() && !flat && !(top.Type == gjson.String && t.family == familyChat) {
		return false
	}
	t.failure, t.done = bytes.Clone(e.Data), true
	return true
}

// countText adds what the model wrote in an event to the count that stands in for
// usage until, or unless, it is reported.
func (t *tap) countText(data []byte, keys [][]byte) {
	n := int64(0)
	for _, key := range keys {
		if at := bytes.Index(data, key); at >= 0 {
			n += int64(stringLen(data[at+len(key):]))
		}
	}
	if n > 0 {
		t.events++
		t.text += n
	}
}

// stringLen is the length of a JSON string up to its closing quote.
func stringLen(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(b)
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
