package limitstest

import (
	"fmt"
	"sync"
	"time"
)

// A Lateness is how much later than asked this process was woken in a span of time: on
// a machine that is busy with other things nobody can be on time.
type Lateness struct {
	Mean, Most time.Duration // once ended

	stop chan struct{}
	done sync.WaitGroup
}

// WatchLateness begins a span. End it.
func WatchLateness() *Lateness {
	l := &Lateness{stop: make(chan struct{})}
	l.done.Go(func() {
		const nap = 10 * time.Millisecond
		n, sum := 0, time.Duration(0)
		for {
			begin := time.Now()
			select {
			case <-l.stop:
				l.Mean = sum / time.Duration(max(n, 1))
				return
			case <-time.After(nap):
			}
			late := time.Since(begin) - nap
			n, sum, l.Most = n+1, sum+late, max(l.Most, late)
		}
	})
	return l
}

// End ends the span.
func (l *Lateness) End() {
	close(l.stop)
	l.done.Wait()
}

// Busy reports whether the machine was too late for bars that a quiet one keeps.
func (l *Lateness) Busy() bool { return l.Most > 100*time.Millisecond }

// Note says how late the machine was, and nothing of a quiet one.
func (l *Lateness) Note() string {
	if !l.Busy() {
		return ""
	}
	return fmt.Sprintf("the machine was up to %d ms late", l.Most.Milliseconds())
}
