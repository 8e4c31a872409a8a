// Package sse splits server-sent events out of a stream of bytes without changing
// them (WHATWG HTML, section 9.2.6).
package sse

import "bytes"

// MaxEvent bounds the data that is kept of one event, in bytes. What is longer is
// still passed on by the relay, but is reported with Truncated set.
const MaxEvent = 4 << 20

// An Event is one dispatched event. Its bytes are valid only during the call.
type Event struct {
	Name      string // of the event: line, empty without one
	Data      []byte // data lines joined by \n
	HasData   bool   // there was a data: line, perhaps an empty one
	Truncated bool   // Data is only the beginning
	Resumes   bool   // it has an id: or retry: line, which serve to reconnect
}

// freeEvent is how much of an event is kept without asking for room, in bytes.
const freeEvent = 64 << 10

// A Splitter finds events in a stream that arrives in pieces. The zero Splitter is
// ready to use. Lines end in \n or \r\n; a bare \r, which no provider sends, does
// not end one.
type Splitter struct {
	// Room, if not nil, is asked for memory to keep more than 64 KiB of an event.
	// Where it refuses, the event is reported with Truncated set.
	Room func(n int64) bool

	room  int    // how much may be kept, once it is more than freeEvent
	line  []byte // beginning of a line whose end has not arrived
	long  bool   // line was cut at MaxEvent
	event Event
	multi []byte // data of an event with several data lines, or of one in several pieces
	name  string // the last one
	raw   bool   // something of the current event has been seen, if only a comment
}

var (
	dataField = []byte("data:")
	space     = []byte(" ")
	cr        = []byte("\r")
)

// Feed takes the next piece and calls found for each event that ends in it. end is
// the offset in the piece just behind the blank line. Blocks without data, such as
// comments, are reported too, so that whoever cuts the stream at the offsets
// misses nothing.
func (s *Splitter) Feed(piece []byte, found func(e *Event, end int)) {
	for at := 0; at < len(piece); {
		nl := bytes.IndexByte(piece[at:], '\n')
		if nl < 0 {
			s.keep(piece[at:])
			return
		}
		line := piece[at : at+nl]
		at += nl + 1
		if len(s.line) > 0 {
			s.keep(line)
			line = s.line
		} else if !s.raw && at < len(piece) && piece[at] == '\n' && bytes.HasPrefix(line, dataField) {
			at++ // an event of one data line, as most are
			s.event.HasData, s.event.Data = true, bytes.TrimPrefix(bytes.TrimSuffix(line[len(dataField):], cr), space)
			found(&s.event, at)
			s.event = Event{}
			continue
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if len(line) == 0 {
			if s.raw {
				found(&s.event, at)
			}
			s.event, s.multi, s.raw = Event{}, s.multi[:0], false
		} else {
			s.take(line, at < len(piece) && piece[at] == '\n')
		}
		s.line, s.long = s.line[:0], false
	}
}

// keep appends to the unfinished line, up to MaxEvent.
func (s *Splitter) keep(b []byte) {
	if room := s.allowed(len(s.line)+len(b)) - len(s.line); len(b) > room {
		b, s.long = b[:max(room, 0)], true
	}
	s.line = append(s.line, b...)
}

// allowed returns how much of n bytes may be kept.
func (s *Splitter) allowed(n int) int {
	s.room = max(s.room, freeEvent)
	for n > s.room && s.room < MaxEvent {
		// A line and the data of an event may both be kept.
		if s.Room != nil && !s.Room(2*int64(s.room)) {
			break
		}
		s.room *= 2
	}
	return min(n, s.room)
}

// take reads one line of an event. last says that the event ends right behind it
// in the same piece, so that its data need not be copied.
func (s *Splitter) take(line []byte, last bool) {
	s.raw = true
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, space)
	switch string(name) {
	case "event":
		if s.name != string(value) { // names come again and again
			s.name = string(value)
		}
		s.event.Name = s.name
	case "data":
		s.event.Truncated = s.event.Truncated || s.long
		if !s.event.HasData && last && len(s.line) == 0 {
			s.event.HasData, s.event.Data = true, value
			return
		}
		s.append(value)
	case "id", "retry":
		s.event.Resumes = true
	}
}

func (s *Splitter) append(value []byte) {
	if s.event.HasData {
		if len(s.event.Data) > 0 && len(s.multi) == 0 {
			s.multi = append(s.multi, s.event.Data...)
		}
		s.multi = append(s.multi, '\n')
	}
	if room := s.allowed(len(s.multi)+len(value)) - len(s.multi); len(value) > room {
		value, s.event.Truncated = value[:max(room, 0)], true
	}
	s.multi = append(s.multi, value...)
	s.event.HasData, s.event.Data = true, s.multi
}
