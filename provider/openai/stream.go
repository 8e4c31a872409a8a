package openai

import (
	"errors"
	"io"
	"net/http"

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

	ready   []byte // to be read next
	partial []byte // with strip: beginning of an event whose end has not arrived
	err     error  // of src, to be reported once ready is out
}

// streamReply reads a stream up to its first meaningful event, so that an error
// behind a 200 is still a failed attempt. Comments and chunks without a choice are
// held until then.
func streamReply(r *provider.Reply, t *provider.Target, c *provider.Call, resp *http.Response) error {
	s := &stream{src: resp.Body, tap: newTap(c), strip: injectsUsage(t, c)}
	s.split.Room = c.Reserve
	buf := make([]byte, 4<<10)
	for !s.tap.started && s.err == nil && len(s.ready) < maxPeek {
		s.fill(buf)
	}
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

// fill reads once into buf and appends what may be passed on to ready.
func (s *stream) fill(buf []byte) {
	n, err := s.src.Read(buf)
	s.ready = append(s.ready, s.pass(buf[:n])...)
	s.end(err)
}

// end notes how the source ended. A stream that ends without its terminal event
// was cut, however cleanly.
func (s *stream) end(err error) {
	if err == nil {
		return
	}
	switch {
	case s.tap.done:
		err = io.EOF // all there was to say has been said
	case errors.Is(err, io.EOF) && !s.tap.complete():
		err = &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
	}
	s.err = err
	s.ready = append(s.ready, s.partial...)
	s.partial = nil
}

// pass watches a piece and returns what of it the client gets now.
func (s *stream) pass(piece []byte) []byte {
	if !s.strip {
		s.split.Feed(piece, func(e *sse.Event, _ int) { s.tap.see(e) })
		return piece
	}
	var out []byte
	from := 0
	s.split.Feed(piece, func(e *sse.Event, end int) {
		if !s.tap.see(e) {
			out = append(append(out, s.partial...), piece[from:end]...)
		}
		s.partial, from = s.partial[:0], end
	})
	s.partial = append(s.partial, piece[from:]...)
	if len(s.partial) > maxPeek { // no usage chunk is that long
		out = append(out, s.partial...)
		s.partial = s.partial[:0]
	}
	return out
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		if s.err != nil {
			return 0, readError(s.err)
		}
		n, err := s.src.Read(p)
		if !s.strip {
			s.pass(p[:n])
			s.end(err)
			if n > 0 {
				return n, nil
			}
			continue
		}
		s.ready = append(s.ready[:0], s.pass(p[:n])...)
		s.end(err)
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.src.Close() }
