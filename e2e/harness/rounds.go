package harness

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Round is one try of a test whose bars are times. It is a subtest, so what it starts
// ends with it. What has to hold at any speed fails it, as it fails any test, and then
// no other round is tried; only what a busy machine misses as well is noted as missed.
// Its own methods are safe for concurrent use.
type Round struct {
	*testing.T
	mu     sync.Mutex
	missed []string
}

// Rounds runs rounds of a test until one misses no bar of time, at most three. The test
// fails if each of them misses some, and at once if anything else fails.
func Rounds(t *testing.T, round func(r *Round)) {
	t.Helper()
	const most = 3
	for n := 1; ; n++ {
		r := &Round{}
		ok := t.Run(fmt.Sprintf("round %d", n), func(t *testing.T) {
			r.T = t
			round(r)
		})
		switch {
		case !ok || len(r.missed) == 0:
			return
		case n == most:
			t.Errorf("each of %d rounds has missed a bar, the last one: %s", most, strings.Join(r.missed, "; "))
			return
		}
	}
}

// Missed notes a bar of time that the round has missed.
func (r *Round) Missed(format string, args ...any) {
	r.Helper()
	text := fmt.Sprintf(format, args...)
	r.Logf("missed: %s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = append(r.missed, text)
}

// AtMost notes a miss where something took longer than a bar.
func (r *Round) AtMost(bar, took time.Duration, what string) {
	r.Helper()
	if took > bar {
		r.Missed("%s took %v, want at most %v", what, took.Round(time.Millisecond), bar)
	}
}

// Within waits for ok until the bar, and reports whether it came true. If it did not,
// that is noted as a miss, and the round may go on with what is to hold nevertheless.
func (r *Round) Within(bar time.Duration, what string, ok func() bool) bool {
	r.Helper()
	for begin := time.Now(); !ok(); <-time.After(look) {
		if time.Since(begin) > bar {
			r.Missed("not within %v: %s", bar, what)
			return false
		}
	}
	return true
}
