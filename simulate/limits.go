package simulate

import (
	"sync"
	"time"
)

// rates are the limits a limiter enforces. Zero is no limit.
type rates struct {
	requests, tokens int64 // per window
	concurrency      int
	window           time.Duration
	mode             Mode
	count            Count
}

// A limiter admits requests within rates and keeps count of what it admitted.
// It is safe for concurrent use.
type limiter struct {
	mu       sync.Mutex
	epoch    time.Time
	rates    rates
	requests meter // nil without a limit
	tokens   meter // nil without a limit

	running, peak int
	since         time.Duration // start of what follows
	admitted      Amounts
	requestLog    timeline // for Stats only: enforcement has its own state
	tokenLog      timeline
	logDropped    int64
}

// logEntries is how many admissions, and how many charges of tokens, a limiter
// remembers for Stats.
const logEntries = 100_000

// Amounts are requests and tokens.
type Amounts struct {
	Requests int64 `json:"requests"`
	Tokens   int64 `json:"tokens"`
}

func newLimiter(r rates) *limiter {
	l := &limiter{epoch: time.Now()}
	l.setLocked(r)
	return l
}

// set replaces the limits; rates start anew, requests in flight stay counted.
func (l *limiter) set(r rates) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setLocked(r)
}

func (l *limiter) setLocked(r rates) {
	now := time.Since(l.epoch)
	l.rates = r
	l.requests = newMeter(r.mode, r.requests, r.window, now)
	l.tokens = newMeter(r.mode, r.tokens, r.window, now)
}

// reset starts rates and counts anew, except for requests in flight.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setLocked(l.rates)
	l.since = time.Since(l.epoch)
	l.peak = l.running
	l.admitted = Amounts{}
	l.requestLog, l.tokenLog, l.logDropped = timeline{}, timeline{}, 0
}

func (l *limiter) current() rates {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rates
}

// A refusal says which limit refused a request and how long until it would fit.
type refusal struct {
	reason                 string // one of the reason constants
	limit, used, requested int64
	wait                   time.Duration // negative: never
}

// Reasons of a 429, as Stats names them.
const (
	reasonRequests    = "requests"
	reasonTokens      = "tokens"
	reasonConcurrency = "concurrency"
	reasonTooLarge    = "too_large"
	reasonFault       = "fault"
)

// A quota is what the x-ratelimit headers of one answer say. A limit of zero
// is none.
type quota struct {
	limit, remaining Amounts
	resetRequests    time.Duration
	resetTokens      time.Duration
}

// admit takes a slot, one request and the tokens of a request with so much
// prompt and at most so much output, or nothing and says why.
// An admitted request must be released.
func (l *limiter) admit(prompt, output int64) (quota, *refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.epoch)
	cost := prompt
	if l.rates.count == MaxTokens {
		cost += output
	}
	if r := l.refuse(now, cost); r != nil {
		return l.quota(now), r
	}
	if l.requests != nil {
		l.requests.take(now, 1, false)
	}
	if l.tokens != nil {
		l.tokens.take(now, cost, false)
	}
	l.running++
	l.peak = max(l.peak, l.running)
	l.admitted.Requests++
	l.record(&l.requestLog, now, 1, false)
	l.admitted.Tokens += cost
	l.record(&l.tokenLog, now, cost, false)
	return l.quota(now), nil
}

// refuse returns the reason that would last longest, or nil.
func (l *limiter) refuse(now time.Duration, cost int64) *refusal {
	if l.tokens != nil && cost > l.rates.tokens {
		return &refusal{reasonTooLarge, l.rates.tokens, l.tokens.used(now), cost, -1}
	}
	var worst *refusal
	if c := l.rates.concurrency; c > 0 && l.running >= c {
		// How long nobody knows; a second is what the shortest honest hint can say.
		worst = &refusal{reasonConcurrency, int64(c), int64(l.running), 1, time.Second}
	}
	if l.requests != nil {
		if w := l.requests.wait(now, 1); w > 0 && (worst == nil || w > worst.wait) {
			worst = &refusal{reasonRequests, l.rates.requests, l.requests.used(now), 1, w}
		}
	}
	if l.tokens != nil {
		if w := l.tokens.wait(now, cost); w > 0 && (worst == nil || w > worst.wait) {
			worst = &refusal{reasonTokens, l.rates.tokens, l.tokens.used(now), cost, w}
		}
	}
	return worst
}

// charge counts output tokens as they are produced.
func (l *limiter) charge(tokens int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rates.count != Actual || tokens <= 0 {
		return
	}
	now := time.Since(l.epoch)
	if l.tokens != nil {
		l.tokens.take(now, tokens, true)
	}
	l.admitted.Tokens += tokens
	l.record(&l.tokenLog, now, tokens, true)
}

// release gives an admitted request's slot back.
func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
}

func (l *limiter) record(log *timeline, now time.Duration, n int64, late bool) {
	log.add(now, n, late, l.rates.window/1000)
	if len(log.entries()) > logEntries {
		log.dropOldest()
		l.logDropped++
	}
}

func (l *limiter) quota(now time.Duration) quota {
	q := quota{limit: Amounts{l.rates.requests, l.rates.tokens}}
	if l.requests != nil {
		q.remaining.Requests = max(0, l.rates.requests-l.requests.used(now))
		q.resetRequests = l.requests.idle(now)
	}
	if l.tokens != nil {
		q.remaining.Tokens = max(0, l.rates.tokens-l.tokens.used(now))
		q.resetTokens = l.tokens.idle(now)
	}
	return q
}

// capacity is the most that the limits could have admitted in a time.
func (r rates) capacity(limit int64, elapsed time.Duration) int64 {
	windows := int64(elapsed / r.window)
	whole := limit * (windows + 1)
	if r.mode == Sliding {
		return whole
	}
	part := float64(elapsed%r.window) / float64(r.window)
	return whole + int64(part*float64(limit))
}
