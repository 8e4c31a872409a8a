package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"

	"penstock/provider"
	"penstock/sse"
)

// A stream is the body of an event stream. Whole events pass, byte for byte, except
// for the usage chunk that the client did not ask for and for what SDKs cannot read
// (see verdict). An event that is cut short does not pass: what follows it would be
// read as its end.
type stream struct {
	src   io.ReadCloser
	tap   *tap
	ends  lineEnds
	split sse.Splitter
	strip bool // leave the usage chunk out

	ready   []byte // to be passed on before what is read next
	partial []byte // beginning of an event whose end has not arrived
	open    bool   // the beginning of the event under way has been passed on
	ending  bool   // nothing more comes of src
	err     error  // of src, to be reported once ready is out

	explain func(event []byte) *provider.Error // what an upstream's error event means
}

// peekSize is how much is read at once before the first meaningful event, and where
// the reader's own buffer is too small for what is held.
const peekSize = 8 << 10

// minRead is how much room a buffer must have behind what is held to be read into.
const minRead = 1 << 10

// maxHeld bounds what is held of an event whose end has not arrived. Longer ones
// pass as they are.
const maxHeld = peekSize / 2

var peeks = sync.Pool{New: func() any { b := make([]byte, peekSize); return &b }}

// streamReply reads a stream up to its first meaningful event, so that an error
// behind a 200 is still a failed attempt. Comments and chunks without a choice are
// held until then.
func streamReply(r *provider.Reply, t *provider.Target, c *provider.Call, resp *http.Response) error {
	s := &stream{src: resp.Body, tap: newTap(c), strip: injectsUsage(t, c)}
	s.split.Room = c.Reserve
	s.explain = func(event []byte) *provider.Error { return errorEvent(t, resp, event) }
	for !s.tap.started && s.err == nil && len(s.ready) < maxPeek {
		s.fill()
	}
	if s.tap.failure != nil && s.tap.events == 0 {
		return s.explain(s.tap.failure)
	}
	if !s.tap.started && s.err != nil && !(errors.Is(s.err, io.EOF) && s.tap.complete()) {
		if errors.Is(s.err, io.EOF) {
			return &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
		}
		return readError(s.err)
	}
	r.Body, r.Stream, r.Length = s, true, -1
	r.Usage = s.tap.current
	r.Ended = func() bool { return s.tap.done }
	r.Cut = func(code, message string) []byte { return s.cut(streamOp(c), code, message) }
	return nil
}

// cut is what tells the client of a failure; nothing where the upstream has told it
// already.
func (s *stream) cut(op, code, message string) []byte {
	if s.tap.failure != nil {
		return nil
	}
	event := ErrorEvent(op, code, message, s.tap.response, s.tap.sequence)
	if s.open { // ends the event of which a part has passed
		return append([]byte("\n\n"), event...)
	}
	return event
}

// next reads once into buf, behind what was held of the read before, and returns
// what of it may be passed on: a part of buf. What does not fit there is then in
// ready. At the end of the source it sets err.
func (s *stream) next(buf []byte) []byte {
	held := copy(buf, s.partial)
	odd := copy(buf[held:], s.ends.held)
	n, err := s.src.Read(buf[held+odd:])
	n = len(s.ends.fix(buf[held : held+odd+n]))
	out := s.pass(buf[:held+n], held, maxHeld)
	if err != nil {
		s.end(err)
	}
	return out
}

// end notes how the source ended. A stream that ends without its terminal event
// was cut, however cleanly.
func (s *stream) end(err error) {
	if errors.Is(err, io.EOF) { // the last event's blank line may be missing
		s.ending = true
		last := append(bytes.Clone(s.partial), s.ends.held...)
		last = append(last, "\n\n"...)
		last = s.pass(last, len(s.partial), len(last))
		s.ready = append(last, s.ready...)
	}
	s.partial = nil
	switch {
	case s.tap.failure != nil:
		err = s.explain(s.tap.failure)
	case s.tap.done:
		err = io.EOF // all there was to say has been said
	case errors.Is(err, io.EOF) && !s.tap.complete():
		err = &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
	}
	s.err = err
}

// pass watches b, of which the first held bytes have been seen, and returns what
// of it the client gets now. That is whole events, moved together where one is left
// out or shortened; the rest, if it is not longer than most, is held.
func (s *stream) pass(b []byte, held, most int) []byte {
	kept, begin := 0, 0 // b[:kept] passes; the event under way begins at begin
	keep := func(event []byte, end int) {
		if s.ready != nil || kept+len(event) > end { // longer than it was
			s.ready = append(s.ready, event...)
		} else if kept != begin || len(event) != end-begin {
			kept += copy(b[kept:], event)
		} else {
			kept = end
		}
		begin = end
	}
	s.split.Feed(b[held:], func(e *sse.Event, end int) {
		event := b[begin : held+end]
		if v := s.judge(e); v != asIs {
			event = rewrite(v, e, event)
		}
		keep(event, held+end)
		s.open = false
	})
	if s.open || len(b)-begin > most {
		event := b[begin:]
		if !s.open {
			event = withoutResumes(event)
		}
		s.open = len(b) > begin || s.open
		keep(event, len(b))
	}
	s.partial = append(s.partial[:0], b[begin:]...)
	return b[:kept]
}

// judge looks at an event whose end has arrived. What has passed in part cannot be
// changed any more.
func (s *stream) judge(e *sse.Event) verdict {
	if s.ending && !bytes.Equal(e.Data, doneData) && !validJSON(e.Data) {
		if s.open {
			return asIs
		}
		return dropped // it was cut within
	}
	v := s.tap.see(e)
	switch {
	case s.open || v == usageChunk && !s.strip:
		return asIs
	case v == asIs && e.Name != "" && !e.HasData, v == asIs && e.HasData && len(e.Data) == 0:
		return dropped
	case v == asIs && e.Resumes:
		return resumes
	}
	return v
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		s.ready = nil
		if s.err != nil {
			return 0, readError(s.err)
		}
		if len(p) < len(s.partial)+minRead {
			s.fill()
		} else if out := s.next(p); len(out) > 0 {
			return len(out), nil
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// fill reads once and appends what may be passed on to ready.
func (s *stream) fill() {
	buf := peeks.Get().(*[]byte)
	defer peeks.Put(buf)
	ready := s.ready
	s.ready = nil
	ready = append(ready, s.next(*buf)...)
	s.ready = append(ready, s.ready...)
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.src.Close() }
