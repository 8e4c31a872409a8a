package openai

import (
	"bytes"

	"penstock/provider"
	"penstock/sse"
)

// A verdict says what becomes of an event on its way to the client. Bytes are
// changed only where an SDK would break on them: openai-python on id: and retry:
// lines, most on events without data, openai-go and the AI SDK on "error": null, and
// all of them miss errors that are not an object under "error".
type verdict int

const (
	asIs       verdict = iota
	usageChunk         // nothing but usage, for clients that asked for it
	ping               // a keep-alive in the form of an event
	resumes            // has lines that serve to reconnect
	nullError          // has a top-level "error" that says that there is none
	flatError          // an error in another shape than an object under "error"
	dropped            // no data, or cut short
)

// rewrite returns what the client gets in place of an event. Its comments stay.
func rewrite(v verdict, e *sse.Event, raw []byte) []byte {
	switch v {
	case nullError:
		return rebuild(raw, withoutMember(e.Data, nameError))
	case flatError:
		shaped, _, _ := shapeError(e.Data, 0)
		return rebuild(raw, shaped)
	case resumes:
		return rebuild(raw, e.Data)
	case ping:
		return append(rebuild(raw, nil), ": ping\n\n"...)
	case asIs:
		return raw
	case usageChunk, dropped:
	}
	return rebuild(raw, nil)
}

// rebuild puts an event together again from its comments, its event: line and other
// data. Without data only the comments stay.
func rebuild(raw, data []byte) []byte {
	out := make([]byte, 0, len(raw)+16)
	for line := range bytes.Lines(raw) {
		name, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		comment := line[0] == ':'
		if comment || len(data) > 0 && string(name) == "event" {
			out = append(out, line...)
		}
	}
	for line := range bytes.Lines(data) {
		out = append(append(out, "data: "...), bytes.TrimRight(line, "\n")...)
		out = append(out, '\n')
	}
	if len(out) > 0 {
		out = append(out, '\n')
	}
	return out
}

// withoutMember returns a JSON object without its member of a name.
func withoutMember(object []byte, name string) []byte {
	start := bytes.IndexByte(object, '{')
	if start < 0 || !validJSON(object) {
		return object
	}
	cut := provider.Span{Start: start + 1} // from the end of the member before
	members(object, start, func(found []byte, value provider.Span) bool {
		if cut.End = 0; isString(found, name) {
			cut.End = value.End
			return false
		}
		cut.Start = value.End
		return true
	})
	if cut.End == 0 {
		return object
	}
	rest := object[cut.End:]
	if after := skipSpace(rest, 0); cut.Start == start+1 && rest[after] == ',' {
		rest = rest[after+1:]
	}
	return append(bytes.Clone(object[:cut.Start]), rest...)
}

// withoutResumes returns the beginning of an event without its lines that serve to
// reconnect; its last line may not be whole.
func withoutResumes(event []byte) []byte {
	if !bytes.Contains(event, []byte("id")) && !bytes.Contains(event, []byte("retry")) {
		return event
	}
	out := make([]byte, 0, len(event))
	for line := range bytes.Lines(event) {
		if !bytes.HasPrefix(line, []byte("id:")) && !bytes.HasPrefix(line, []byte("retry:")) {
			out = append(out, line...)
		}
	}
	return out
}

// lineEnds takes out of a stream what not every SDK takes for a line end or for
// nothing: bare carriage returns, and a byte order mark at the beginning. The zero
// value is ready to use.
type lineEnds struct {
	begun bool
	bare  bool   // the stream's lines end in bare carriage returns
	skip  bool   // a line feed that comes next belongs to one
	held  []byte // beginning of a mark, or a carriage return, that may not be complete
}

var mark = []byte("\xef\xbb\xbf")

// fix changes a piece in place, and returns as much of it as there is left. The
// piece begins with what was held.
func (l *lineEnds) fix(piece []byte) []byte {
	l.held = l.held[:0]
	if !l.begun {
		if len(piece) < len(mark) && bytes.HasPrefix(mark, piece) {
			l.held = append(l.held, piece...)
			return nil
		}
		l.begun = true
		piece = drop(piece, len(piece)-len(bytes.TrimPrefix(piece, mark)))
	}
	if l.skip && len(piece) > 0 {
		if l.skip = false; piece[0] == '\n' {
			piece = drop(piece, 1)
		}
	}
	for from := 0; ; {
		at := bytes.IndexByte(piece[from:], '\r')
		if at < 0 {
			return piece
		}
		switch at += from; {
		case at+1 < len(piece) && piece[at+1] == '\n': // passes as it is
		case at+1 < len(piece):
			piece[at], l.bare = '\n', true
		case l.bare:
			piece[at], l.skip = '\n', true
		default:
			l.held = append(l.held, '\r')
			return piece[:at]
		}
		from = at + 1
	}
}

// drop removes the first n bytes, in place.
func drop(b []byte, n int) []byte {
	if n == 0 {
		return b
	}
	return b[:copy(b, b[n:])]
}
