package proxy

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"penstock/limits"
	"penstock/provider/openai"
)

// fail tells the client of an error: by a status before the commit, by an event in
// its stream after it. It reports whether the connection must be broken off, so
// that what was cut never looks whole.
func (x *exchange) fail(err error) (abort bool) {
	x.out.quiet()
	cause := x.cause()
	if errors.Is(cause, errGone) && !errors.Is(err, errBodyTimeout) || errors.Is(cause, errCut) || errors.Is(cause, errTotal) {
		err = cause // net/http takes a body that does not come for a client that has gone
	}
	e := describe(err)
	x.rec.Error = e.Code
	if e == errInternal && !errors.Is(err, errInternal) { // a panic has been logged
		x.p.log.Error("internal error", "request_id", x.rec.ID, "error", err.Error())
	}
	if x.rec.Outcome == "" || e.Outcome == "client_closed" || e.Outcome == "internal" {
		x.rec.Outcome = e.Outcome
	}
	committed, alive := x.out.written()
	if !committed {
		x.respondError(e)
		return false
	}
	if alive && x.rec.Status == 0 {
		x.rec.Status = http.StatusOK // a comment had sent it
	}
	if e.Outcome == "client_closed" {
		return true
	}
	event := []byte(nil)
	switch {
	case x.rec.cut != nil:
		event = x.rec.cut(e.Code, e.message())
	case alive:
		event = openai.ErrorEvent(x.call.Op.Name, e.Code, e.message(), "", -1)
	}
	// What has come is delivered before the connection is broken off.
	_ = x.pass(event, true)
	return !alive
}

// message is what the client reads; where an upstream's own error stands behind
// it, that one's text is not repeated in a stream of ours.
func (e *apiError) message() string {
	if e.Message == "" {
		return fmt.Sprintf("the upstream answered %d", e.Status)
	}
	return e.Message
}

// respondError commits with an error.
func (x *exchange) respondError(e *apiError) {
	h := x.out.w.Header()
	body := []byte(nil)
	if e.upstream != nil {
		for name, values := range e.upstream.Header {
			h[name] = values
		}
		body = e.upstream.Body
		waitAsStated(h, e.upstream.RetryAfter)
	}
	if body == nil {
		body = openai.ErrorBody(e.Code, e.Type, e.message(), e.Param)
		h.Set("Content-Type", "application/json")
		h.Del("Content-Encoding")
	}
	x.own(h)
	hints(h, e)
	if e == errMethod {
		h.Set("Allow", strings.Join(methods, ", "))
	}
	if e.Close {
		h.Set("Connection", "close")
	}
	x.rec.Status = e.Status
	x.leaveUnread()
	x.out.begin(e.Status, int64(len(body)))
	if x.r.Method != http.MethodHead {
		_, _ = x.out.Write(body)
	}
}

// waitAsStated replaces an upstream's Retry-After by what was understood of it,
// which is bounded.
func waitAsStated(h http.Header, after time.Duration) {
	h.Del("Retry-After")
	h.Del("Retry-After-Ms")
	if after > 0 {
		h.Set("Retry-After", itoa(int64((after+time.Second-1)/time.Second)))
	}
}

// hints tell SDKs when to come again, and whether to. Every 429 and 503 says when.
func hints(h http.Header, e *apiError) {
	waitHelps := e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
	if e.NoRetry {
		h.Set("X-Should-Retry", "false")
	} else if waitHelps {
		h.Set("X-Should-Retry", "true")
	}
	if !waitHelps || e.NoRetry && e.RetryAfter == 0 && e.Status != http.StatusServiceUnavailable {
		return
	}
	// Whole seconds, rounded up; the jitter lies within the rounding, so that it
	// never sends anybody away for longer than needed.
	exact := max(e.RetryAfter, time.Millisecond)
	whole := (exact + time.Second - 1).Truncate(time.Second)
	jittered := exact + rand.N(whole-exact+1)
	h.Set("Retry-After", itoa(int64(whole/time.Second)))
	h.Set("Retry-After-Ms", itoa(int64((jittered+time.Millisecond-1)/time.Millisecond)))
}

// stated are the limits that callers are told of, in OpenAI's format.
var stated = [...]struct {
	counts                  func(limits.Dimension) bool
	limit, remaining, reset string
}{
	{func(d limits.Dimension) bool { return d == limits.Requests },
		"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"},
	{func(d limits.Dimension) bool {
		return d == limits.Tokens || d == limits.InputTokens || d == limits.OutputTokens
	}, "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"},
}

// rateHeaders tell the caller how its own limits stand: for requests and for tokens
// the limit of which the least is left, and in a refusal the one that refused.
func (x *exchange) rateHeaders(f *fields) {
	if len(x.limits) == 0 {
		return
	}
	levels, err := x.p.store.Levels(x.ctx, x.limits)
	if err != nil {
		return
	}
	left := func(i int) float64 {
		if r := x.notes.refusal; r != nil && r.Limit == x.limits[i] {
			return math.Inf(-1)
		}
		return float64(levels[i].Remaining) / float64(x.limits[i].Burst)
	}
	for i := range stated {
		kind, best := &stated[i], -1
		for i, l := range x.limits {
			if !l.Shadow && kind.counts(l.Dimension) && (best < 0 || left(i) < left(best)) {
				best = i
			}
		}
		if best < 0 {
			continue
		}
		f.set(kind.limit, itoa(x.limits[best].Amount))
		f.set(kind.remaining, itoa(max(0, levels[best].Remaining)))
		f.set(kind.reset, levels[best].Reset.Round(time.Millisecond).String())
	}
}

// safePanic is a panic's value without what could be a prompt: errors and texts of
// the runtime are kept, other values only by their type.
func safePanic(v any) string {
	if err, ok := v.(error); ok && strings.HasPrefix(err.Error(), "runtime error") {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}
