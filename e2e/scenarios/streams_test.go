package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// mostStreams are as many streams as the descriptors of this process and of the
// gateway allow: each needs two in either.
func mostStreams(t testing.TB) int {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	return int(min(8000, max(int64(lim.Cur)-1000, 200)/2))
}

// A watchedStream is what a client saw of a stream.
type watchedStream struct {
	text string
	done bool
	gap  time.Duration // longest silence after the first event
}

// watch reads a stream event by event.
func watch(t testing.TB, c chat, base string, open *atomic.Int64) (w watchedStream, err error) {
	resp, err := transport.RoundTrip(c.request(t.Context(), base))
	if err != nil {
		return w, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return w, fmt.Errorf("status %d", resp.StatusCode)
	}
	var text strings.Builder
	last := time.Time{}
	lines := bufio.NewReaderSize(resp.Body, 1024)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			w.text = text.String()
			return w, nil // done tells whether that was the end
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if last.IsZero() {
			open.Add(1)
		} else {
			w.gap = max(w.gap, time.Since(last))
		}
		last = time.Now()
		if bytes.HasPrefix(data, []byte("[DONE]")) {
			w.done = true
			continue
		}
		var event struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal(data, &event); err != nil {
			return w, fmt.Errorf("event %q: %w", data, err)
		}
		for _, choice := range event.Choices {
			text.WriteString(choice.Delta.Content)
		}
	}
}

// Thousands of streams are open at once on one gateway. Each client gets every
// word, and none waits for long between them, beside what those wait who read from the
// provider itself at the same time: the machine may be busy.
func TestS8OpenStreams(t *testing.T) {
	harness.Rounds(t, s8)
}

func s8(t *harness.Round) {
	const words, pause = 7, 4 * time.Second
	n := mostStreams(t)
	config := simulate.Config{TTFT: simulate.NoWait, TokenTime: pause, OutputTokens: words}
	p := simulate.New(config)
	url, itself := harness.Serve(t, p), harness.Serve(t, simulate.New(config))
	g := start(t, `
upstreams:
  up: {base_url: "%s/v1"}
models: {m: up}
`, url)
	var open atomic.Int64
	direct, err := watch(t, chat{Stream: true, Simulate: "token-time=0s"}, url, new(atomic.Int64))
	if err != nil || !direct.done || direct.text == "" {
		t.Fatalf("the provider itself: %+v, %v", direct, err)
	}
	if _, err := watch(t, chat{Stream: true, Simulate: "token-time=0s"}, g.URL, new(atomic.Int64)); err != nil {
		t.Fatal(err)
	}
	before := holds(t, g)

	var mu sync.Mutex
	var broken, unanswered []string
	var longest, atBest time.Duration
	whole := 0
	var perStream float64
	var all sync.WaitGroup
	all.Go(func() { // measures when all are open
		for open.Load() < int64(n) && t.Context().Err() == nil {
			<-time.After(50 * time.Millisecond)
		}
		now := g.Metric(t, "process_resident_memory_bytes")
		perStream = (now - before.memory) / float64(n)
	})
	arrive(n, 1000, func(i int) {
		if i%(n/50) == 0 {
			all.Go(func() {
				w, err := watch(t, chat{Stream: true}, itself, new(atomic.Int64))
				mu.Lock()
				defer mu.Unlock()
				atBest = max(atBest, w.gap)
				if err != nil || !w.done {
					t.Errorf("the provider itself: %+v, %v", w, err)
				}
			})
		}
		w, err := watch(t, chat{Stream: true}, g.URL, &open)
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, w.gap)
		if err == nil && w.done && w.text == direct.text {
			whole++
			return
		}
		open.Add(1) // so that nobody waits for it
		if text := fmt.Sprintf("%+v, %v", w, err); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			unanswered = append(unanswered, text)
		} else {
			broken = append(broken, text)
		}
	})
	all.Wait()

	if len(broken) > 0 {
		t.Errorf("%d of %d streams are not whole, such as %s", len(broken), n, broken[0])
	}
	// A gateway that gets no processor for 10 s takes clients for some that send no head.
	if starved := longest > pause+5*time.Second; len(unanswered) > 0 && !starved {
		t.Errorf("%d of %d streams were not answered, such as %s", len(unanswered), n, unanswered[0])
	} else if len(unanswered) > 0 {
		t.Missed("%d of %d streams were not answered, such as %s", len(unanswered), n, unanswered[0])
	}
	if peak := p.Stats().PeakInFlight; peak != n {
		t.Missed("%d streams were open at once, want %d", peak, n)
	}
	if longest > pause+5*time.Second+3*(atBest-pause) {
		t.Missed("a client waited %v between two words that the provider sends every %v, and at best %v", longest, pause, atBest)
	}
	if perStream > 128<<10 {
		t.Errorf("%.0f KiB of memory for a stream, want at most 128", perStream/1024)
	}
	harness.Eventually(t, 30*time.Second, "nothing is left of the streams", func() bool { return quiet(t, g) })
	record(figures{Scenario: fmt.Sprintf("S8 %d open streams", n), Success: percent(float64(whole), float64(n)), Memory: fmt.Sprintf("%.1f KiB", perStream/1024),
		Note: fmt.Sprintf("longest gap %.1f s where the provider pauses %v", longest.Seconds(), pause)})
}
