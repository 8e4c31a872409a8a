package simulate

import (
	"maps"
	"strconv"
	"sync"
	"time"
)

// Stats is what a Provider has done since its start or its last reset.
// Requests to /simulator/ are not in it, except for the echo endpoint.
type Stats struct {
	ElapsedSeconds float64 `json:"elapsed_seconds"`

	// Open is the number of requests in any state now, refused and unmetered
	// ones included. InFlight are those that the limits admitted.
	Open         int `json:"open"`
	InFlight     int `json:"in_flight"`
	PeakInFlight int `json:"peak_in_flight"`

	// Requests that have ended, by endpoint and by status. Status "0" is an
	// answer that never began, as after a reset or when the client left first.
	Requests map[string]map[string]int64 `json:"requests"`
	// Refused are the answers with 429 by reason: requests, tokens,
	// concurrency, too_large, or fault if a directive asked for it.
	Refused map[string]int64 `json:"refused"`
	// Abandoned are requests whose client left before the end.
	Abandoned int64 `json:"abandoned"`

	Streams Streams `json:"streams"`

	// InputTokens and OutputTokens of admitted requests, as usage reports them.
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`

	// Admitted is what was charged to the limits. Under Count Actual its tokens
	// include output and are charged as they are produced.
	Admitted Amounts `json:"admitted"`
	// Capacity is the most that the limits could have admitted since the start;
	// 0 without a limit. Utilisation is Admitted divided by it. Debt from
	// output can bring it above 1.
	Capacity    Amounts     `json:"capacity"`
	Utilisation Utilisation `json:"utilisation"`
	// PeakWindow is the most that was charged in any span of one window. In
	// mode sliding, charges made at admission never exceed the limit there; in
	// mode bucket a window holds at most twice the limit.
	PeakWindow Amounts `json:"peak_window"`
	// LogDropped are charges too old for PeakWindow: it looks at the last
	// 100,000 admissions and as many charges of tokens.
	LogDropped int64 `json:"log_dropped"`
}

// Streams counts the answers with status 200 to streaming requests, by how they ended.
type Streams struct {
	Completed int64 `json:"completed"`
	Aborted   int64 `json:"aborted"` // by the client
	Cut       int64 `json:"cut"`     // by a fault
}

// Utilisation is a share of what was possible; 0 without a limit.
type Utilisation struct {
	Requests float64 `json:"requests"`
	Tokens   float64 `json:"tokens"`
}

// Stats returns a snapshot. It is safe for concurrent use.
func (p *Provider) Stats() Stats {
	s := p.counts.snapshot()
	p.limits.snapshot(&s)
	return s
}

// counters count requests as they end. The zero value is ready.
type counters struct {
	mu        sync.Mutex
	openNow   int
	requests  map[string]map[int]int64
	refused   map[string]int64
	abandoned int64
	streams   Streams
	input     int64
	output    int64
}

func (k *counters) open() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.openNow++
}

func (k *counters) done(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.openNow--
	if k.requests == nil {
		k.requests, k.refused = map[string]map[int]int64{}, map[string]int64{}
	}
	if k.requests[c.endpoint] == nil {
		k.requests[c.endpoint] = map[int]int64{}
	}
	k.requests[c.endpoint][c.status]++
	if c.reason != "" {
		k.refused[c.reason]++
	}
	if c.ending == gone {
		k.abandoned++
	}
	k.input += int64(c.input)
	k.output += int64(c.output)
	if !c.stream || c.status != 200 {
		return
	}
	switch c.ending {
	case whole:
		k.streams.Completed++
	case gone:
		k.streams.Aborted++
	case cut:
		k.streams.Cut++
	}
}

// reset forgets everything but the requests that are open.
func (k *counters) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests, k.refused = nil, nil
	k.abandoned, k.streams, k.input, k.output = 0, Streams{}, 0, 0
}

func (k *counters) snapshot() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Stats{
		Open: k.openNow, Requests: map[string]map[string]int64{}, Refused: map[string]int64{}, Abandoned: k.abandoned,
		Streams: k.streams, InputTokens: k.input, OutputTokens: k.output,
	}
	maps.Copy(s.Refused, k.refused)
	for endpoint, byStatus := range k.requests {
		s.Requests[endpoint] = make(map[string]int64, len(byStatus))
		for status, n := range byStatus {
			s.Requests[endpoint][strconv.Itoa(status)] = n
		}
	}
	return s
}

// snapshot adds what the limiter knows to s.
func (l *limiter) snapshot(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	elapsed := time.Since(l.epoch) - l.since
	s.ElapsedSeconds = elapsed.Seconds()
	s.InFlight, s.PeakInFlight = l.running, l.peak
	s.Admitted = l.admitted
	s.PeakWindow = Amounts{l.requestLog.peak(l.rates.window), l.tokenLog.peak(l.rates.window)}
	s.LogDropped = l.logDropped
	s.Capacity = Amounts{l.rates.capacity(l.rates.requests, elapsed), l.rates.capacity(l.rates.tokens, elapsed)}
	s.Utilisation = Utilisation{share(s.Admitted.Requests, s.Capacity.Requests), share(s.Admitted.Tokens, s.Capacity.Tokens)}
}

func share(part, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}
