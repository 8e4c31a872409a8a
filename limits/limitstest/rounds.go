package limitstest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// rounds is how many rounds a test of real time has.
const rounds = 3

// Rounds runs a test whose figures depend on real time, and runs it anew, up to three
// times in all, where it fails: a busy machine may spoil a round, but not each of them.
// What must hold at any speed is tested without, or in a round by the Error and Errorf of
// t itself, which fail the test at once.
func Rounds(t *testing.T, round func(t testing.TB)) {
	t.Helper()
	for n := 1; ; n++ {
		r := &trial{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			round(r)
		}()
		<-done
		said := r.all()
		if len(said) == 0 || t.Failed() {
			return
		}
		for _, text := range said {
			t.Logf("round %d: %s", n, text)
		}
		if n == rounds {
			t.Fatalf("each of %d rounds has failed", rounds)
		}
	}
}

// A trial collects what a round says of its failures.
type trial struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

func (r *trial) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

func (r *trial) say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, text)
}

func (r *trial) Failed() bool                      { return len(r.all()) > 0 || r.TB.Failed() }
func (r *trial) Fail()                             { r.say("failed") }
func (r *trial) Error(args ...any)                 { r.say(fmt.Sprint(args...)) }
func (r *trial) Errorf(format string, args ...any) { r.say(fmt.Sprintf(format, args...)) }
func (r *trial) FailNow()                          { r.Fail(); runtime.Goexit() }
func (r *trial) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *trial) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }
