package proxy

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"penstock/provider"
)

// A watch holds an attempt to its time limits, one after the other, with a single
// timer. When one passes, the attempt's context ends with that limit as its cause.
type watch struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer

	mu    sync.Mutex
	code  string        // error code of the limit in force
	limit time.Duration // 0 for none
	since time.Time
	fires time.Time       // when the timer is set to, zero while it is not
	hit   *provider.Error // the limit that has passed

	idling atomic.Bool  // every read starts the limit anew
	read   atomic.Int64 // nanoseconds from since to the last read
}

// phase puts the next limit in force. end, if not zero, is when the answer must
// have begun; code is then attempts_timeout if that comes first.
func (w *watch) phase(code string, limit time.Duration, end time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enter(code, limit, end)
}

// renew begins the phase of a code anew, if it is still in force.
func (w *watch) renew(code string, limit time.Duration, end time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.code == code && w.limit > 0 {
		w.enter(code, limit, end)
	}
}

func (w *watch) enter(code string, limit time.Duration, end time.Time) {
	now := time.Now()
	if !end.IsZero() {
		if left := max(end.Sub(now), time.Millisecond); limit <= 0 || left < limit {
			code, limit = "attempts_timeout", left
		}
	}
	w.code, w.limit, w.since = code, limit, now
	w.read.Store(0)
	w.idling.Store(code == "idle_timeout")
	if limit > 0 {
		w.arm(now, limit)
	}
}

// arm sets the timer, unless it fires before that anyway and will then look again.
func (w *watch) arm(now time.Time, d time.Duration) {
	at := now.Add(d)
	if !w.fires.IsZero() && w.fires.Before(at) {
		return
	}
	w.fires = at
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.fire)
		return
	}
	w.timer.Reset(d)
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fires = time.Time{}
	if w.limit <= 0 {
		return
	}
	now := time.Now()
	if quiet := now.Sub(w.since) - time.Duration(w.read.Load()); quiet < w.limit {
		w.arm(now, w.limit-quiet)
		return
	}
	w.hit = &provider.Error{Kind: provider.KindHealth, Code: w.code}
	w.cancel(w.hit)
}

// passed is the limit that has passed, or nil.
func (w *watch) passed() *provider.Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hit
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit, w.fires = 0, time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
}

// A watched body makes every read of an answer count for the idle limit.
type watched struct {
	io.ReadCloser
	w *watch
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.w.idling.Load() {
		b.w.read.Store(int64(time.Since(b.w.since)))
	}
	return n, err
}
