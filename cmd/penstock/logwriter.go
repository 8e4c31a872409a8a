package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// flushEvery is how long a log line may stay in memory before it is written.
const flushEvery = 100 * time.Millisecond

// The log holds so many bytes for whoever reads it. From flushAt on they are written
// at once; what comes beyond maxLog is left out.
const (
	flushAt = 64 << 10
	maxLog  = 4 << 20
)

// closeWithin is how long the last lines may take to be written.
const closeWithin = time.Second

// A logWriter holds log lines until a goroutine of its own has written them, so that
// nothing waits for the disk, or for a reader of the log that has stalled. The timer
// runs only while something is held.
type logWriter struct {
	w io.Writer
	// missing makes the line that tells how many were left out.
	missing func(lines int64) []byte

	mu      sync.Mutex
	held    []byte
	spare   []byte // its room is used in turn
	dropped int64  // lines
	timer   *time.Timer
	armed   bool // flush will run, or runs
	idle    sync.Cond
}

func newLogWriter(w io.Writer, missing func(int64) []byte) *logWriter {
	l := &logWriter{w: w, missing: missing}
	l.idle.L = &l.mu
	l.timer = time.AfterFunc(time.Hour, l.flush)
	l.timer.Stop()
	return l
}

// Write implements io.Writer. It takes whole lines and never fails.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held)+len(p) > maxLog {
		l.dropped++
		return len(p), nil
	}
	before := len(l.held)
	l.held = append(l.held, p...)
	switch {
	case !l.armed:
		l.armed = true
		l.timer.Reset(flushEvery)
	case before < flushAt && len(l.held) >= flushAt && l.timer.Stop(): // or else it runs
		l.timer.Reset(0)
	}
	return len(p), nil
}

// flush writes what is held until nothing is left.
func (l *logWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.held) > 0 || l.dropped > 0 {
		out := l.held
		if l.dropped > 0 {
			out = append(out, l.missing(l.dropped)...)
		}
		l.held, l.dropped = l.spare[:0], 0
		l.mu.Unlock()
		_, _ = l.w.Write(out)
		l.mu.Lock()
		l.spare = out
	}
	if cap(l.spare) > 2*flushAt {
		l.spare = nil
	}
	l.armed = false
	l.idle.Broadcast()
}

// close waits until all has been written, but not for ever.
func (l *logWriter) close() {
	late := time.AfterFunc(closeWithin, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.armed = false
		l.idle.Broadcast()
	})
	defer late.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.armed && l.timer.Stop() {
		l.timer.Reset(0)
	}
	for l.armed {
		l.idle.Wait()
	}
}

// containerMemory is the memory limit of the container (cgroup v2), 0 for none.
func containerMemory() int64 {
	b, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
