package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A reader of the log takes lines only while its gate is open.
type logReader struct {
	mu   sync.Mutex
	got  bytes.Buffer
	gate chan struct{} // closed when it reads
	err  error
}

func (r *logReader) Write(p []byte) (int, error) {
	<-r.gate
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	return r.got.Write(p)
}

// text is what was read since the last time that it was asked to forget.
func (r *logReader) text(forget bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.got.String()
	if forget {
		r.got.Reset()
	}
	return text
}

func (r *logReader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func missingLines(n int64) []byte { return fmt.Appendf(nil, "%d missing\n", n) }

// Lines are written soon, in order, and all of them at the end.
func TestLogWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &logReader{gate: make(chan struct{})}
		close(r.gate)
		l := newLogWriter(r, missingLines)
		want := ""
		say := func(text string) { want += text; _, _ = l.Write([]byte(text)) }
		say("a\n")
		say("b\n")
		time.Sleep(2 * flushEvery)
		if r.text(false) != want {
			t.Errorf("got %q", r.text(false))
		}
		for i := range 10_000 {
			say(fmt.Sprintf("line %d of many\n", i))
		}
		synctest.Wait()
		if len(r.text(false)) < flushAt {
			t.Errorf("%d bytes are written of %d", len(r.text(false)), len(want))
		}
		say("last\n")
		l.close()
		if r.text(false) != want {
			t.Errorf("%d bytes are written of %d", len(r.text(false)), len(want))
		}
		l.close()
	})
}

// A log that nobody reads stops neither requests nor the end of the process, and
// says what is missing when it is read again.
func TestLogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &logReader{gate: make(chan struct{})}
		l := newLogWriter(r, missingLines)
		line := strings.Repeat("x", 1023) + "\n"
		begin := time.Now()
		_, _ = l.Write([]byte("first\n"))
		time.Sleep(2 * flushEvery)
		for range maxLog/1024 + 100 {
			_, _ = l.Write([]byte(line))
		}
		l.close()
		if took := time.Since(begin); took > closeWithin+time.Second {
			t.Errorf("closed after %v", took)
		}
		close(r.gate)
		time.Sleep(2 * flushEvery)
		if want := "first\n" + strings.Repeat(line, maxLog/1024) + "100 missing\n"; r.text(false) != want {
			t.Errorf("%d bytes are written, want %d", len(r.text(false)), len(want))
		}
		// A disk that was full takes the log again.
		r.text(true)
		r.fail(errors.New("no space"))
		_, _ = l.Write([]byte("lost\n"))
		time.Sleep(2 * flushEvery)
		r.fail(nil)
		_, _ = l.Write([]byte("kept\n"))
		time.Sleep(2 * flushEvery)
		if r.text(false) != "kept\n" {
			t.Errorf("got %q", r.text(false))
		}
	})
}
