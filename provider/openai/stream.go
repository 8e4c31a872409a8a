package openai

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"penstock/provider"
	"penstock/sse"
)

// A stream is the body of an event stream. Bytes pass as they are, except that the
// usage chunk is left out when the client did not ask for it.
type stream struct {
	src   io.ReadCloser
	tap   *tap
	split sse.Splitter
	strip bool

	ready   []byte // read before the reply: to be passed on first
	partial []byte // with strip: beginning of an event whose end has not arrived
	open    bool   // the beginning of the event under way has been passed on
	err     error  // of src, to be reported once ready is out
}

// peekSize is how much is read at once before the first meaningful event.
const peekSize = 4 << 10

var peeks = sync.Pool{New: func() any { b := make([]byte, peekSize); return &b }}

// streamReply reads a stream up to its first meaningful event, so that an error
// behind a 200 is still a failed attempt. Comments and chunks without a choice are
// held until then.
func streamReply(r *provider.Reply, t *provider.Target, c *provider.Call, resp *http.Response) error {
	s := &stream{src: resp.Body, tap: newTap(c), strip: injectsUsage(t, c)}
	buf := peeks.Get().(*[]byte)
	for !s.tap.started && s.err == nil && len(s.ready) < maxPeek {
		s.ready = append(s.ready, s.next(*buf)...)
	}
	peeks.Put(buf)
	if s.tap.failure != nil && s.tap.events == 0 {
		return errorEvent(t, resp, s.tap.failure)
	}
	if !s.tap.started && s.err != nil {
		if errors.Is(s.err, io.EOF) {
			return &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
		}
		return readError(s.err)
	}
	r.Body, r.Stream, r.Length = s, true, -1
	r.Usage = s.tap.current
	r.Cut = func(code, message string) []byte {
		return ErrorEvent(c.Op.Name, code, message, s.tap.response, s.tap.sequence)
	}
	return nil
}

// next reads once into buf, behind what was held of the read before, and returns
// what of it may be passed on: a part of buf. At the end of the source it sets err.
func (s *stream) next(buf []byte) []byte {
	held := copy(buf, s.partial)
	n, err := s.src.Read(buf[held:])
	out := s.pass(buf[:held+n], held, len(buf)/4)
	if err == nil {
		return out
	}
	switch {
	case s.tap.done:
		err = io.EOF // all there was to say has been said
	case errors.Is(err, io.EOF) && !s.tap.complete():
		// A stream that ends without its terminal event was cut, however cleanly.
		err = &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
	}
	s.err = err
	return append(out, s.partial...)
}

// pass watches b, of which the first held bytes have been seen, and returns what
// of it the client gets now. With strip that is whole events, moved together where
// one is left out; the rest, if it is not longer than most, is held.
func (s *stream) pass(b []byte, held, most int) []byte {
	if !s.strip {
		s.split.Feed(b, func(e *sse.Event, _ int) { s.tap.see(e) })
		return b
	}
	kept, begin := 0, 0 // b[:kept] passes; the event under way begins at begin
	keep := func(end int) {
		if kept != begin {
			copy(b[kept:], b[begin:end])
		}
		kept, begin = kept+end-begin, end
	}
	s.split.Feed(b[held:], func(e *sse.Event, end int) {
		if s.tap.see(e) && !s.open {
			begin = held + end
		} else {
			keep(held + end)
		}
		s.open = false
	})
	if s.open || len(b)-begin > most { // no usage chunk is that long
		s.open = true
		keep(len(b))
	}
	s.partial = append(s.partial[:0], b[begin:]...)
	return b[:kept]
}

// Read implements io.Reader. p must be larger than the key that is masked; with
// less than peekSize, the usage chunk may pass.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		if s.err != nil {
			return 0, readError(s.err)
		}
		if out := s.next(p); len(out) > 0 {
			return len(out), nil
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	if len(s.ready) == 0 {
		s.ready = nil
	}
	return n, nil
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.src.Close() }
