package simulate

import (
	"net/http"
	"time"
)

// A stream is an answer sent event by event, each in one write and one flush.
type stream struct {
	c           *call
	contentType string
	failure     func(sequence int) []byte // an in-band error; nil where there is none
	opened      bool
	events      int
	due         time.Time // of the next token
	timer       *time.Timer
}

func (c *call) newStream(contentType string, failure func(int) []byte) *stream {
	return &stream{c: c, contentType: contentType, failure: failure}
}

// newEventStream makes a stream of server-sent events.
func (c *call) newEventStream(failure func(int) []byte) *stream {
	return c.newStream("text/event-stream; charset=utf-8", failure)
}

// open sends the header, once, and the comments that comment-first asks for.
func (s *stream) open() error {
	if s.opened {
		return nil
	}
	s.opened = true
	h := s.c.w.Header()
	h["Content-Type"] = []string{s.contentType}
	h["Cache-Control"] = []string{"no-cache"}
	s.c.head(http.StatusOK)
	if n := s.c.faults.CommentFirst; n != nil && s.failure != nil {
		for range *n {
			if err := s.c.flushed([]byte(": simulated provider is thinking\n\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// first waits for the first visible token of each choice, which come after so
// many hidden ones.
func (s *stream) first(hidden, choices int) error {
	if s.c.faults.CommentFirst != nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if !s.c.wait(s.c.ttft()) {
		return errGone
	}
	if hidden > 0 {
		each, start := s.c.tokenTime(), time.Now()
		if !s.c.wait(times(each, hidden)) {
			s.c.produced(min(int(time.Since(start)/each), hidden) * choices)
			return errGone
		}
		s.c.produced(hidden * choices)
	}
	s.due = time.Now()
	return nil
}

// tokens produces the visible tokens of o for so many choices at once. emit
// sends the tokens from..from+n of each choice.
func (s *stream) tokens(o *output, choices int, emit func(from, n int) error) error {
	chunk := s.c.set.chunkTokens
	for from := 0; from < o.tokens; from += chunk {
		n := min(chunk, o.tokens-from)
		if from > 0 {
			if err := s.pace(n); err != nil {
				return err
			}
		}
		s.c.produced(n * choices)
		if err := emit(from, n); err != nil {
			return err
		}
	}
	return nil
}

// pace waits until the next n tokens are due. Time spent writing counts; a
// stream that has fallen behind does not hurry to catch up.
func (s *stream) pace(n int) error {
	each := s.c.tokenTime()
	if each <= 0 {
		return nil
	}
	s.due = s.due.Add(times(each, n))
	d := time.Until(s.due)
	if d <= 0 {
		s.due = time.Now()
		return nil
	}
	if s.timer == nil {
		s.timer = time.NewTimer(d)
	} else {
		s.timer.Reset(d)
	}
	select {
	case <-s.timer.C:
		return nil
	case <-s.c.ctx().Done():
		s.timer.Stop()
		return errGone
	}
}

// event sends one event, or does what a fault wants in its place.
func (s *stream) event(b []byte) error {
	if err := s.fault(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if s.events == 0 {
		b = s.c.echoKeyEvent(b)
	}
	s.events++
	if err := s.c.send(b); err != nil {
		return err
	}
	return s.c.flush()
}

// fault applies the faults that are due after the events sent so far.
func (s *stream) fault() error {
	f, due := &s.c.faults, func(at *int) bool { return at != nil && *at == s.events }
	switch {
	case due(f.StallAfter):
		if err := s.catchUp(nil); err != nil {
			return err
		}
		return s.c.stall()
	case due(f.ErrorEventAfter) && s.failure != nil:
		if err := s.catchUp(s.failure(s.events)); err != nil {
			return err
		}
		return errCut
	case due(f.TruncateAfter), due(f.ErrorEventAfter):
		if err := s.catchUp(nil); err != nil {
			return err
		}
		return errCut
	case due(f.ResetAfter):
		if err := s.catchUp(nil); err != nil {
			return err
		}
		return s.c.reset()
	}
	return nil
}

// catchUp delivers the header, whatever is held back, and b.
func (s *stream) catchUp(b []byte) error {
	if err := s.open(); err != nil {
		return err
	}
	return s.c.flushed(b)
}

// close ends the stream, after err if that is not nil.
func (s *stream) close(err error) {
	if err == nil {
		err = s.fault()
	}
	if err == nil {
		err = s.catchUp(nil)
	}
	s.c.ended(err)
}
