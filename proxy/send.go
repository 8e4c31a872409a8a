package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

// try makes one attempt, if the target's breaker allows it, and tells the breaker
// and the limits how it went. On failure nothing stays held.
func (x *exchange) try(grant *limits.Grant, t *provider.Target) (*answer, error) {
	pass, err := x.p.breakers.Allow(t.BreakerKey())
	if err != nil {
		grant.Release()
		x.p.metrics.Attempt(t.Upstream, "breaker", "open")
		return nil, err
	}
	outcome := breaker.Neither
	defer func() { // also when something panics
		pass.Done(outcome)
		if outcome != breaker.Success {
			grant.Release() // does nothing where the request was charged below
		}
	}()
	a, err := x.send(grant, t)
	if err == nil {
		outcome = breaker.Success
		grant.Outcome(false)
		x.p.metrics.Attempt(t.Upstream, "ok", "")
		x.served(t)
		return a, nil
	}
	e := x.failure(err)
	x.blame(e, grant, t)
	if e.Kind == provider.KindHealth && e.Code != "total_timeout" && e.Code != "attempts_timeout" {
		outcome = breaker.Failure
	}
	if reached(e) {
		used := x.charge(e, grant.Reserved())
		grant.Settle(used)
	}
	return nil, e
}

// charge is what a failed attempt costs at the upstream: a request, which providers
// count in any case, and its input where the provider was at work when it was left,
// because that is billed. The caller owes the same for what was its own doing, once
// however many attempts there were; or else leaving early would make every request
// free.
func (x *exchange) charge(e *provider.Error, reserved limits.Cost) limits.Cost {
	used := limits.Cost{Requests: 1}
	if _, late := timeLimits[e.Code]; late || e.Kind == provider.KindCancelled {
		used.Input = reserved.Input
		x.owed, x.left = used, true
		// An answer that is not streamed was being written, and is billed; how much of
		// it there was nobody says.
		if !x.call.Stream && (e.Kind == provider.KindCancelled || e.Code == "attempts_timeout" && x.hurried) {
			x.owed.Output = reserved.Output
		}
	} else if e.Kind == provider.KindClient {
		x.owed.Requests = 1
	}
	return used
}

// reached reports whether an attempt came as far as the upstream's limits.
func reached(e *provider.Error) bool {
	switch e.Code {
	case "connect", "connect_timeout", "dns", "tls", "descriptors":
		return false
	}
	return true
}

func (x *exchange) failure(err error) *provider.Error {
	var e *provider.Error
	if errors.As(err, &e) {
		return e
	}
	return openai.Broken(err, x.cause())
}

// served notes a model that no configuration mentions, now that it is known to
// exist.
func (x *exchange) served(t *provider.Target) {
	if t.Label == "other" && x.call.Model != "" {
		model := t.Model
		if model == "" {
			model = x.call.Model
		}
		x.s.Routes.Seen.Served(t.Upstream, model)
	}
}

// blame counts a failed attempt where it belongs.
func (x *exchange) blame(e *provider.Error, grant *limits.Grant, t *provider.Target) {
	p := x.p
	p.metrics.Attempt(t.Upstream, e.Kind.String(), e.Code)
	x.rec.Failures = append(x.rec.Failures, t.State+": "+e.Code)
	switch e.Kind {
	case provider.KindCapacity:
		grant.Outcome(reached(e))
		pause := min(e.RetryAfter, time.Minute)
		if pause <= 0 && reached(e) {
			pause = x.s.Settings.BaseDelay // whoever is next would be refused as well
		}
		if pause > 0 {
			grant.Target.Pause(time.Now().Add(pause))
		}
	case provider.KindCredential, provider.KindBilling:
		if t.Forward {
			return // the client's own credential
		}
		name := t.State
		if e.Status == http.StatusUnauthorized {
			name = t.Upstream
		}
		if p.parking.park(name) { // one line, however many requests have no other upstream
			p.log.Warn("the upstream refused our account; see whether its api_key is valid and may use the model, and whether the account is paid",
				"upstream", t.Upstream, "status", e.Status, "kind", e.Kind.String(), "request_id", x.rec.ID)
		}
	default:
		grant.Outcome(false)
	}
}

// send sends the call and reads the reply up to its first meaningful event.
func (x *exchange) send(grant *limits.Grant, t *provider.Target) (*answer, error) {
	up := x.s.Upstreams[t.Upstream]
	x.rec.Upstream, x.rec.target = t.Upstream, t
	if x.rec.Attempts == 1 {
		x.p.budgets.request(t.Upstream, retrying(x.r.Header))
	}
	parent := x.ctx
	if x.s.Settings.Drain > 0 { // it may outlive the request
		parent = context.WithoutCancel(x.ctx)
	}
	ctx, cancel := context.WithCancelCause(parent)
	a := &answer{target: t, up: up, grant: grant, watch: watch{cancel: cancel}, cancel: cancel, sent: time.Now()}
	if x.s.Settings.Drain > 0 {
		a.leave = context.AfterFunc(x.ctx, func() { a.end(x.cause()) })
	}
	reply, err := x.roundTrip(ctx, a)
	if err != nil {
		a.watch.stop()
		a.detach()
		x.rec.Upstreamed += time.Since(a.sent)
		e := x.fault(err, context.Cause(ctx))
		cancel(nil)
		return nil, e
	}
	a.Reply = reply
	a.watch.phase("idle_timeout", up.Timeouts.Idle, time.Time{})
	return a, nil
}

// fault tells why an attempt failed that was cancelled with the cause, if it was.
// What the upstream's status has said stands: a text behind it that does not come in
// time makes it no other.
func (x *exchange) fault(err, cause error) *provider.Error {
	var e *provider.Error
	if errors.As(err, &e) && e.Status >= 400 {
		return e
	}
	if e := x.uploadError(); e != nil {
		return e
	}
	return openai.Broken(err, cause)
}

// roundTrip sends the request and reads the reply.
func (x *exchange) roundTrip(ctx context.Context, a *answer) (*provider.Reply, error) {
	req, err := a.up.Adapter.Request(ctx, a.target, x.call)
	if err != nil {
		return nil, err
	}
	times, streamed := a.up.Timeouts, x.call.Stream && x.call.Op.Stream
	if streamed && times.FirstToken > 0 && (times.Headers <= 0 || times.FirstToken < times.Headers) {
		a.watch.phase("first_token_timeout", times.FirstToken, x.respond)
	} else {
		a.watch.phase("header_timeout", times.Headers, x.respond)
	}
	if x.upload != nil { // the request is not sent until the client has
		x.upload.passed = func() { a.watch.renew("header_timeout", times.Headers, x.respond) }
	}
	resp, err := a.up.Transport.RoundTrip(req) //nolint:bodyclose // closed with the reply
	if err != nil {
		return nil, err
	}
	x.learn(a, resp)
	if resp.StatusCode != http.StatusSwitchingProtocols { // or else it could not be written to
		a.body = watched{resp.Body, &a.watch}
		resp.Body = &a.body
	}
	switch {
	case resp.StatusCode < 300 && streamed:
		if times.FirstToken > 0 {
			times.FirstToken = max(times.FirstToken-time.Since(a.sent), time.Millisecond)
		}
		a.watch.phase("first_token_timeout", times.FirstToken, x.respond)
		x.keepAlive()
	default:
		a.watch.phase("idle_timeout", times.Idle, x.respond)
	}
	return a.up.Adapter.Reply(a.target, x.call, resp)
}

// learn corrects the target's limits by what the answer's headers state.
func (x *exchange) learn(a *answer, resp *http.Response) {
	requests, tokens, ok := openai.RateLimits(resp.Header)
	if !ok {
		return
	}
	stated := func(d limits.Dimension, s openai.Stated) limits.Stated {
		return limits.Stated{Dimension: d, Limit: s.Limit, Remaining: s.Remaining, Reset: s.Reset, Sent: a.sent, Whole: d == limits.Tokens && a.up.kept(a.grant)}
	}
	for _, s := range [...]limits.Stated{stated(limits.Requests, requests), stated(limits.Tokens, tokens)} {
		if s.Limit > 0 || s.Remaining >= 0 {
			a.grant.Learn(s)
		}
	}
	most := x.maxOutput()
	if a.up.Output != CountAuto || most <= 0 || tokens.Remaining < 0 {
		return
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests && requests.Remaining != 0:
		a.grant.RefusedFor(stated(limits.Tokens, tokens), most)
	case resp.StatusCode == http.StatusOK && x.call.Stream && x.call.Op.Stream:
		a.grant.AdmittedFor(stated(limits.Tokens, tokens), most)
	}
}
