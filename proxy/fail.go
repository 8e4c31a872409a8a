package proxy

import (
	"context"
	"errors"
	"fmt"
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
	if cause := context.Cause(x.ctx); errors.Is(cause, errGone) || errors.Is(cause, errCut) || errors.Is(cause, errTotal) {
		err = cause
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

// rateHeaders tell the caller how its own limits stand, in OpenAI's format: for
// requests and for tokens the limit of which the least is left.
func (x *exchange) rateHeaders(h http.Header) {
	if x.team == nil {
		return
	}
	all := x.callerLimits()
	if len(all) == 0 {
		return
	}
	levels, err := x.p.store.Levels(x.ctx, all)
	if err != nil {
		return
	}
	for _, kind := range [...]struct {
		name       string
		dimensions [3]limits.Dimension
	}{
		{"Requests", [3]limits.Dimension{limits.Requests, limits.Requests, limits.Requests}},
		{"Tokens", [3]limits.Dimension{limits.Tokens, limits.InputTokens, limits.OutputTokens}},
	} {
		best := -1
		for i, l := range all {
			if l.Shadow || l.Dimension != kind.dimensions[0] && l.Dimension != kind.dimensions[1] && l.Dimension != kind.dimensions[2] {
				continue
			}
			if best < 0 || float64(levels[i].Remaining)/float64(l.Burst) < float64(levels[best].Remaining)/float64(all[best].Burst) {
				best = i
			}
		}
		if best < 0 {
			continue
		}
		h.Set("X-Ratelimit-Limit-"+kind.name, itoa(all[best].Amount))
		h.Set("X-Ratelimit-Remaining-"+kind.name, itoa(max(0, levels[best].Remaining)))
		h.Set("X-Ratelimit-Reset-"+kind.name, levels[best].Reset.Round(time.Millisecond).String())
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
