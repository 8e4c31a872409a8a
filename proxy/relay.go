package proxy

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
	"penstock/usage"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// The buffers of the relay. What comes in a burst is read into large ones, so that
// many events cost one write; a stream that is slow holds a small one while it waits.
var small, large = buffers(2 << 10), buffers(32 << 10)

func buffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// commit sends the status and the headers. From here on nothing is retried.
func (x *exchange) commit(a *answer) {
	x.out.quiet()
	x.rec.TTFT, x.rec.sent, x.rec.cut = time.Since(x.begin), a.sent, a.Cut
	if committed, _ := x.out.written(); committed {
		return // by a keep-alive comment
	}
	h := x.out.w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	if len(a.Header["X-Request-Id"]) > 0 {
		x.rec.UpstreamID = a.Header.Get("X-Request-Id")
	}
	x.own(h)
	if a.Stream {
		streamHeader(h)
		a.drain.Store(int64(x.s.Settings.Drain))
	}
	if x.call.Rest != nil {
		h.Set("Connection", "close") // the upload may not have been read to its end
	}
	x.rec.Status = a.Status
	x.out.begin(a.Status, a.Length)
}

// own adds the gateway's own headers.
func (x *exchange) own(h http.Header) {
	f := fields{h, make([]string, 0, 10)}
	if x.rec.Upstream != "" {
		f.set("X-Penstock-Upstream", x.rec.Upstream)
		f.set("X-Penstock-Attempts", strconv.Itoa(x.rec.Attempts))
	}
	up := x.rec.Upstreamed // of failed attempts
	if !x.rec.sent.IsZero() {
		up += time.Since(x.rec.sent)
	}
	x.rec.Overhead = max(0, time.Since(x.begin)-x.rec.Queue-up)
	f.set("Server-Timing", timing(x.rec.Queue, up, x.rec.Overhead))
	x.rateHeaders(&f)
	x.explainHeader(h)
	if x.p.Leaving() {
		f.set("Connection", "close")
	}
}

// fields are headers of one value each, which share an allocation.
type fields struct {
	h      http.Header
	values []string
}

// set takes a name in canonical form.
func (f *fields) set(name, value string) {
	n := len(f.values)
	f.values = append(f.values, value)
	f.h[name] = f.values[n : n+1 : n+1]
}

// timing is a Server-Timing header (W3C Server Timing), in milliseconds.
func timing(queue, upstream, overhead time.Duration) string {
	b := make([]byte, 0, 80)
	for i, d := range [...]time.Duration{queue, upstream, overhead} {
		b = append(b, [...]string{"queue;dur=", ", upstream;dur=", ", overhead;dur="}[i]...)
		micros := d.Microseconds()
		b = append(strconv.AppendInt(b, micros/1000, 10), '.')
		for _, unit := range [...]int64{100, 10, 1} {
			b = append(b, '0'+byte(micros/unit%10))
		}
	}
	return string(b)
}

// relay passes the answer on, flushing each read of a stream or of an answer whose
// length is not known, such as speech, and keeps the reservation ahead of the
// output.
func (x *exchange) relay(a *answer, team *limits.Lease) error {
	pool := large
	if a.Stream {
		pool = small
	}
	buf := pool.Get().(*[]byte)
	defer func() { pool.Put(buf) }()
	ended := false
	ahead := min(team.Reserved().Output, a.grant.Reserved().Output)
	for {
		n, err := a.Body.Read(*buf)
		if n > 0 {
			if gone := x.pass((*buf)[:n], a.Stream || a.Length < 0); gone != nil {
				return x.clientLeft(a, *buf)
			}
		}
		if fits := n < burst; a.Stream && fits != (pool == small) {
			pool.Put(buf)
			if pool = large; fits {
				pool = small
			}
			buf = pool.Get().(*[]byte)
		}
		if a.Stream {
			if out := a.Usage().Output; out > ahead && x.call.Op.Metered {
				more := out - ahead + topUp
				team.Extend(limits.Cost{Output: more, MicroUSD: x.moreOutput(a.target, team.Reserved().Input, ahead, more)})
				a.grant.Extend(limits.Cost{Output: more})
				ahead += more
			}
		}
		if a.Stream && !ended && a.Ended() {
			ended = true
			a.watch.phase("idle_timeout", or(min(a.up.Timeouts.Idle, endsWithin), endsWithin), time.Time{})
		}
		switch {
		case errors.Is(err, io.EOF):
			x.rec.Outcome = "ok"
			return nil
		case err != nil && x.ctx.Err() != nil && errors.Is(x.cause(), errGone):
			return x.clientLeft(a, *buf)
		case err != nil:
			return x.brokeOff(a, err)
		}
	}
}

// endsWithin is how long an upstream may be silent behind the last event of a stream.
// There are servers that leave the connection open, and with it the slot taken.
const endsWithin = 2 * time.Second

// burst is the size of a read from which on the next one gets a large buffer.
const burst = 3 << 9

// topUp is how many output tokens are reserved beyond those that have passed, so
// that not every event needs a charge.
const topUp = 64

// pass writes one read. An error means that the client has left.
func (x *exchange) pass(b []byte, flush bool) error {
	if _, err := x.out.Write(b); err != nil {
		return err
	}
	if flush {
		return x.out.flush()
	}
	return nil
}

// clientLeft ends the relay for a client that has gone: at once, or, where a drain
// is configured, after reading on to learn the true usage.
func (x *exchange) clientLeft(a *answer, buf []byte) error {
	if a.drain.Load() > 0 {
		x.cancel(errGone) // starts the drain's time limit, if the server did not yet
		for {
			if _, err := a.Body.Read(buf); err != nil {
				break
			}
		}
	}
	a.cancel(errGone)
	return errGone
}

// brokeOff notes that the upstream broke off after the commit. Breakers count it.
func (x *exchange) brokeOff(a *answer, err error) error {
	cause := x.cause()
	var e *provider.Error
	switch {
	case errors.Is(cause, errCut):
		x.rec.Outcome = "truncated"
		return errCut
	case errors.As(cause, &e): // the total time limit
	case !errors.As(err, &e):
		e = &provider.Error{Kind: provider.KindHealth, Code: "reset", Err: err}
	case e.Code == "reset" || e.Code == "cancelled":
		if w := a.watch.passed(); w != nil {
			e = w
		}
	}
	x.rec.Outcome = "truncated"
	x.rec.Failures = append(x.rec.Failures, a.target.State+": "+e.Code+" mid-answer")
	if e.Code != "total_timeout" && e.Kind == provider.KindHealth {
		x.p.breakers.Report(a.target.BreakerKey(), breaker.Failure)
	}
	x.p.metrics.Attempt(a.target.Upstream, "broken", e.Code)
	if e.Code == "error_event" { // the upstream has told the client itself
		x.rec.Outcome, x.rec.Error = "upstream_error", e.Code
		return nil
	}
	return e
}

// settle replaces what was reserved by what was used, at the team and at the
// upstream, whose provider may count in its own way.
func (x *exchange) settle(a *answer, team *limits.Lease) {
	x.rec.Upstreamed += time.Since(a.sent)
	reserved := team.Reserved()
	x.rec.Reserved = reserved
	if !x.call.Op.Metered {
		x.spent(a.target, provider.Usage{})
		a.grant.Settle(limits.Cost{Requests: 1})
		team.Settle(limits.Cost{Requests: 1, MicroUSD: usage.Micro(x.rec.Nano)})
		return
	}
	use := a.Usage()
	x.rec.Source = "provider"
	if !use.Reported {
		x.rec.Source = "estimated"
		use = x.estimated(use, reserved)
	} else {
		choices := max(1, x.call.Choices)
		x.p.estimator.LearnInput(a.target.State, x.call.InputText, x.call.InputParts, use.Input)
		x.p.estimator.LearnOutput(x.team.Name, x.kind(a.target), (use.Output+choices-1)/choices)
	}
	x.rec.Usage = use
	x.spent(a.target, use)
	team.Settle(limits.Cost{Requests: 1, Input: use.Input, Output: use.Output, MicroUSD: usage.Micro(x.rec.Nano)})
	theirs := limits.Cost{Requests: 1, Input: use.Input, Output: use.Output}
	if a.up.CachedFree {
		theirs.Input -= min(use.Cached, use.Input)
	}
	if a.up.kept(a.grant) && x.maxOutput() > 0 {
		theirs.Output = max(theirs.Output, x.maxOutput())
		theirs.Output -= a.grant.Target.Credit(theirs.Output)
	}
	a.grant.Settle(theirs)
}

// unanswered settles a request that no attempt answered.
func (x *exchange) unanswered(team *limits.Lease) {
	x.rec.Reserved = team.Reserved()
	if x.left {
		if x.call.Op.Metered {
			x.rec.Usage, x.rec.Source = provider.Usage{Input: x.owed.Input, Output: x.owed.Output}, "estimated"
		}
		x.spent(x.rec.target, x.rec.Usage)
		x.owed.MicroUSD = usage.Micro(x.rec.Nano)
	}
	team.Settle(x.owed)
}

// estimated is what is charged where the provider did not say: the input as it was
// estimated, and the output that passed, never more than was reserved. Of work that
// goes on in the background nothing has passed yet, so all that was reserved counts.
func (x *exchange) estimated(use provider.Usage, reserved limits.Cost) provider.Usage {
	use.Input = reserved.Input
	if use.Pending {
		use.Output = reserved.Output
		return use
	}
	if !x.call.Stream && !noOutput[x.call.Op.Name] {
		x.out.mu.Lock()
		use.Output = (x.out.bytes + 3) / 4
		x.out.mu.Unlock()
	}
	use.Output = min(use.Output, reserved.Output)
	return use
}
