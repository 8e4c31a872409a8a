package openai

import (
	"runtime"
	"syscall"
	"time"
)

// cost is the processor time that f takes, of the fastest of three runs: a busy
// machine stretches any other. Where the system does not tell it for a thread, it is
// the time that passes.
func cost(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := time.Hour
	for range 3 {
		start, before := time.Now(), threadTime()
		f()
		took := time.Since(start)
		if after := threadTime(); after > before {
			took = min(took, after-before)
		}
		best = min(best, took)
	}
	return best
}

// threadTime is the processor time of this thread, 0 where it is not known.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD, of Linux
	var r syscall.Rusage
	if runtime.GOOS != "linux" || syscall.Getrusage(thread, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
