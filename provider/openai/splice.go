package openai

import (
	"bytes"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"penstock/provider"
)

// A Spliced body is a client's body with a few bytes replaced. It shares the
// client's bytes and is immutable: any number of readers may be open at once.
// The zero Spliced is empty.
type Spliced struct {
	whole []byte   // the client's body, unchanged, when segs is nil
	segs  [][]byte // else what it is made of
	size  int64
}

// Len returns the length in bytes: the Content-Length to send, or with Call.Rest
// the length of what is sent before the rest.
func (b Spliced) Len() int64 { return b.size }

// Reader returns a new reader of the body from its beginning. It is a
// *bytes.Reader when nothing was changed.
func (b Spliced) Reader() io.Reader {
	if b.segs == nil {
		return bytes.NewReader(b.whole)
	}
	return &segments{left: b.segs}
}

// segments reads byte slices one after the other. It fills the caller's buffer
// across them, so that small segments cost no writes of their own.
type segments struct {
	left [][]byte // not yet read
	pos  int      // in left[0]
}

func (s *segments) Read(p []byte) (n int, err error) {
	for n < len(p) && len(s.left) > 0 {
		k := copy(p[n:], s.left[0][s.pos:])
		n += k
		if s.pos += k; s.pos == len(s.left[0]) {
			s.left, s.pos = s.left[1:], 0
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// An edit replaces a span of a body, or inserts where the span is empty.
type edit struct {
	provider.Span
	text []byte
}

// Splice returns the body to send for a call that has been scanned. In it
//   - the model is the given one, or the call's own if that is empty; it replaces
//     the client's, or is added where the client named none in the body
//   - with injectUsage, a JSON body asks for usage in its stream
//     (stream_options.include_usage is true)
//
// Every other byte is the client's. When nothing has to change, no byte is
// copied. A form that is held only in part and has no model in that part gets
// none added, since one may follow.
func Splice(c *provider.Call, model string, injectUsage bool) Spliced {
	if model == "" {
		model = c.Model
	}
	model = strings.ToValidUTF8(model, "\uFFFD")
	var edits []edit
	switch {
	case c.Multipart:
		edits = formEdits(c, model)
	case c.ObjectEnd > 0:
		edits = objectEdits(c, model, injectUsage)
	}
	if len(edits) == 0 {
		return Spliced{whole: c.Body, size: int64(len(c.Body))}
	}
	return apply(c.Body, edits)
}

// apply makes the edits, which are in order and do not overlap.
func apply(body []byte, edits []edit) Spliced {
	segs := make([][]byte, 0, 2*len(edits)+1)
	var size int64
	add := func(b []byte) {
		if len(b) > 0 {
			segs = append(segs, b)
			size += int64(len(b))
		}
	}
	from := 0
	for _, e := range edits {
		add(body[from:e.Start])
		add(e.text)
		from = e.End
	}
	add(body[from:])
	return Spliced{segs: segs, size: size}
}

// objectEdits lists the changes to a JSON object, by offset.
func objectEdits(c *provider.Call, model string, injectUsage bool) []edit {
	var edits []edit
	tail := addition{body: c.Body, end: c.ObjectEnd}
	switch {
	case model == "":
	case c.ModelSpan == provider.Span{}:
		tail.add(`"model":` + quote(model))
	case !isString(c.Body[c.ModelSpan.Start:c.ModelSpan.End], model):
		edits = append(edits, edit{c.ModelSpan, []byte(quote(model))})
	}
	if injectUsage && !c.IncludeUsage {
		if c.StreamOptions == (provider.Span{}) {
			tail.add(`"stream_options":{"include_usage":true}`)
		} else {
			edits = append(edits, usageEdit(c.Body, c.StreamOptions))
		}
	}
	if len(edits) == 2 && edits[1].Start < edits[0].Start {
		edits[0], edits[1] = edits[1], edits[0]
	}
	if tail.text != nil {
		edits = append(edits, tail.edit())
	}
	return edits
}

// usageEdit changes stream_options, an object or null, to include usage.
func usageEdit(body []byte, options provider.Span) edit {
	if body[options.Start] != '{' {
		return edit{options, []byte(`{"include_usage":true}`)}
	}
	var found provider.Span
	object := body[:options.End]
	members(object, options.Start, func(name []byte, value provider.Span) bool {
		if isString(name, keyIncludeUsage) {
			found = value
		}
		return found == provider.Span{}
	})
	if found != (provider.Span{}) {
		return edit{found, []byte("true")}
	}
	tail := addition{body: body, end: options.End - 1}
	tail.add(`"include_usage":true`)
	return tail.edit()
}

// An addition is members added at the end of an object.
type addition struct {
	body []byte
	end  int // offset of the object's closing brace
	text []byte
}

func (a *addition) add(member string) {
	before := bytes.TrimRight(a.body[:a.end], " \t\r\n")
	if a.text != nil || before[len(before)-1] != '{' {
		a.text = append(a.text, ',')
	}
	a.text = append(a.text, member...)
}

func (a *addition) edit() edit {
	return edit{provider.Span{Start: a.end, End: a.end}, a.text}
}

// formEdits lists the change to a form: its model.
func formEdits(c *provider.Call, model string) []edit {
	if c.ModelSpan != (provider.Span{}) {
		if model == "" || string(c.Body[c.ModelSpan.Start:c.ModelSpan.End]) == model {
			return nil
		}
		return []edit{{c.ModelSpan, []byte(model)}}
	}
	if model == "" || c.Rest != nil {
		return nil
	}
	boundary, err := formBoundary(c.Header.Get("Content-Type"))
	if err != nil {
		return nil
	}
	f := form{call: c, dash: []byte("--" + boundary)}
	first, err := f.line(0)
	if err != nil || first.cut || first.last {
		return nil
	}
	var text strings.Builder
	text.WriteString("Content-Disposition: form-data; name=\"model\"\r\n\r\n")
	text.WriteString(model)
	text.WriteString("\r\n--" + boundary + "\r\n")
	return []edit{{provider.Span{Start: first.end, End: first.end}, []byte(text.String())}}
}

// quote returns the JSON string of a text in UTF-8.
func quote(text string) string {
	quoted, _ := jsontext.AppendQuote(nil, text) // fails on invalid UTF-8 only
	return string(quoted)
}

// isString reports whether a valid JSON value is the string text.
func isString(value []byte, text string) bool {
	if value[0] != '"' {
		return false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1:len(value)-1]) == text
	}
	return unquote(value) == text
}
