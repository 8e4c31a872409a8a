package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"penstock/limits"
)

// An Explanation tells what happened to a request and why: it is what the admin API
// and the response header show. It holds neither keys nor anything that a client or
// model wrote.
type Explanation struct {
	ID         string      `json:"request_id"`
	Ended      *time.Time  `json:"ended,omitzero"` // nil while the request runs
	Seconds    float64     `json:"seconds"`
	Team       string      `json:"team,omitzero"`
	Key        string      `json:"key,omitzero"`
	Class      string      `json:"class,omitzero"`
	Operation  string      `json:"operation,omitzero"`
	Model      string      `json:"model,omitzero"` // as configured; other for the rest
	Status     int         `json:"status,omitzero"`
	Outcome    string      `json:"outcome,omitzero"`
	Reason     string      `json:"reason,omitzero"` // error code, where there was one
	Refusal    *Refusal    `json:"refusal,omitzero"`
	Limits     []LimitUse  `json:"limits,omitzero"` // of the team and key that refuse
	Queue      QueueUse    `json:"queue"`
	Upstream   string      `json:"upstream,omitzero"` // target that answered
	Plan       []Candidate `json:"plan,omitzero"`
	Attempts   []Attempt   `json:"attempts,omitzero"`
	Usage      *Usage      `json:"usage,omitzero"`
	Upstreamed float64     `json:"upstream_seconds"`
	Overhead   float64     `json:"overhead_seconds"`
	TTFT       float64     `json:"ttft_seconds,omitzero"`
	Clipped    bool        `json:"clipped,omitzero"` // the limits are left out, for they are too many
}

// A Refusal is why a limit or the queue did not let the request through.
type Refusal struct {
	Reason     limits.Reason `json:"reason"`
	Limit      string        `json:"limit,omitzero"`
	Upstream   string        `json:"upstream,omitzero"`
	Requested  int64         `json:"requested,omitzero"`
	RetryAfter float64       `json:"retry_after_seconds,omitzero"`
}

// A LimitUse is what a request did to a limit.
type LimitUse struct {
	Limit    string `json:"limit"`
	Rule     string `json:"rule"`             // in words
	Of       string `json:"dimension"`        // what it counts; a budget counts millionths of a dollar
	Reserved int64  `json:"reserved"`         // units, or 1 slot
	Left     *int64 `json:"left,omitzero"`    // after the reservation, or when it refused
	Settled  *int64 `json:"settled,omitzero"` // units used in the end
	Shadow   bool   `json:"shadow,omitzero"`  // it would have refused, and only counts
	Refused  bool   `json:"refused,omitzero"` // it did
}

// QueueUse is the wait of a request.
type QueueUse struct {
	Seconds float64 `json:"seconds"`
	// For is what it waited for; empty when it only waited its turn, or not at all.
	For []Wait `json:"waited_for,omitzero"`
}

// A Wait is what kept a request from starting at a target.
type Wait struct {
	Target string `json:"target"`
	Limit  string `json:"limit,omitzero"`  // that was used up, or that somebody before it waited for
	Paused bool   `json:"paused,omitzero"` // the upstream had asked for a pause
}

// A Candidate is a target of the route and why it was chosen or not.
type Candidate struct {
	Target string  `json:"target"`
	State  string  `json:"state"` // chosen, failed, breaker_open, parked_credential, full, paused, not_needed, or not_reached
	Detail string  `json:"detail,omitzero"`
	Left   float64 `json:"left_seconds,omitzero"` // until it may be tried again
}

// An Attempt is one try at an upstream.
type Attempt struct {
	Target string     `json:"target"`
	Result string     `json:"result,omitzero"` // ok, or the code of the failure; empty while it runs
	Queue  float64    `json:"queue_seconds"`
	Limits []LimitUse `json:"limits,omitzero"`
}

// Usage is what a request used of the model.
type Usage struct {
	Input     int64  `json:"input_tokens"`
	Output    int64  `json:"output_tokens"`
	Cached    int64  `json:"cached_tokens,omitzero"`
	Reasoning int64  `json:"reasoning_tokens,omitzero"`
	Source    string `json:"source"` // provider, or estimated
}

// waitedAtAll is from when on a request is said to have waited. One that found an
// upstream full and another free did not.
const waitedAtAll = time.Millisecond

// seconds are those of a duration, to the microsecond.
func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }

func (t *trace) explain() *Explanation {
	r := &t.rec
	e := &Explanation{
		ID: r.ID, Seconds: seconds(t.took), Team: r.Team, Key: r.Key, Class: r.Class, Operation: r.Operation, Model: r.Model,
		Status: r.Status, Outcome: r.Outcome, Reason: r.Error, Queue: QueueUse{Seconds: seconds(r.Queue)},
		Upstreamed: seconds(r.Upstreamed), Overhead: seconds(r.Overhead), TTFT: seconds(r.TTFT),
	}
	if !t.ended.IsZero() {
		at := t.ended
		e.Ended = &at
	}
	if r.Source != "" {
		e.Usage = &Usage{r.Usage.Input, r.Usage.Output, r.Usage.Cached, r.Usage.Reasoning, r.Source}
	}
	e.Limits = uses(t.caller, !t.ended.IsZero())
	for _, a := range t.tried {
		e.Attempts = append(e.Attempts, Attempt{a.target, a.result, seconds(a.waited), uses(a.entries, !t.ended.IsZero())})
		if a.waited >= waitedAtAll {
			e.Queue.add(a.held)
		}
		if a.result == "ok" {
			e.Upstream = a.target
		}
	}
	t.explainRefusal(e)
	for _, target := range t.plan {
		e.Plan = append(e.Plan, t.candidate(target))
	}
	return e
}

func (t *trace) explainRefusal(e *Explanation) {
	r := t.refusal
	if r == nil {
		return
	}
	e.Refusal = &Refusal{Reason: r.Reason, Upstream: r.Upstream, Requested: r.Requested, RetryAfter: seconds(r.RetryAfter)}
	if r.Limit != nil {
		e.Refusal.Limit = r.Limit.ID
	}
	for i := range r.Checked {
		c := &r.Checked[i]
		u := LimitUse{Limit: c.Limit.ID, Rule: c.Limit.String(), Of: c.Limit.Dimension.String(), Refused: c.Limit == r.Limit}
		if c.Told {
			u.Left = &c.Left
		}
		e.Limits = append(e.Limits, u)
	}
	e.Queue.add(r.Held)
}

func uses(entries []limits.Entry, ended bool) []LimitUse {
	var all []LimitUse
	for _, e := range entries {
		u := LimitUse{Limit: e.Limit.ID, Rule: e.Limit.String(), Of: e.Limit.Dimension.String(), Reserved: e.Reserved, Shadow: e.Shadow}
		if e.Told {
			u.Left = &e.Left
		}
		if ended && e.Limit.Dimension != limits.Concurrency {
			u.Settled = &e.Settled
		}
		all = append(all, u)
	}
	return all
}

func (q *QueueUse) add(held []limits.Hold) {
	for _, h := range held {
		w := Wait{Target: h.Target, Paused: h.Limit == nil}
		if h.Limit != nil {
			w.Limit = h.Limit.ID
		}
		if !slices.Contains(q.For, w) {
			q.For = append(q.For, w)
		}
	}
}

// candidate tells what came of a target of the plan.
func (t *trace) candidate(target string) Candidate {
	c := Candidate{Target: target, State: "not_reached"}
	if slices.ContainsFunc(t.tried, func(a traceTry) bool { return a.result == "ok" }) {
		c.State = "not_needed"
	}
	for _, a := range t.tried {
		for _, h := range a.held {
			c.hold(h)
		}
	}
	if t.refusal != nil {
		for _, h := range t.refusal.Held {
			c.hold(h)
		}
	}
	for _, p := range t.passed {
		if p.target == target {
			c.State, c.Left = p.reason, seconds(p.left)
		}
	}
	for _, a := range t.tried {
		switch {
		case a.target != target:
		case a.result == "ok":
			c = Candidate{Target: target, State: "chosen"}
		default:
			c = Candidate{Target: target, State: "failed", Detail: a.result}
		}
	}
	return c
}

func (c *Candidate) hold(h limits.Hold) {
	switch {
	case h.Target != c.Target:
	case h.Limit == nil:
		c.State = "paused"
	default:
		c.State, c.Detail = "full", h.Limit.ID
	}
}

// Explain returns the explanation of a request that ended lately.
func (p *Proxy) Explain(id string) (*Explanation, bool) { return p.recent.find(id) }

// explainOff is the header's value where the client asks and may not.
const explainOff = `{"off":"the gateway's configuration has to set explain.header"}`

// explainHeader tells the client what is known by now, where it asks for that and
// may: nothing is settled yet.
func (x *exchange) explainHeader(h http.Header) {
	if x.r.Header.Get("X-Penstock-Explain") != "1" {
		return
	}
	if !x.s.Settings.ExplainHeader {
		h["X-Penstock-Explain"] = []string{explainOff}
		return
	}
	var t trace
	t.fill(x, time.Since(x.begin))
	t.ended = time.Time{}
	e := t.explain()
	text := headerJSON(e)
	if len(text) > maxExplainHeader {
		e.Limits, e.Clipped = nil, true
		for i := range e.Attempts {
			e.Attempts[i].Limits = nil
		}
		text = headerJSON(e)
	}
	if len(text) <= maxExplainHeader {
		h["X-Penstock-Explain"] = []string{text}
	}
}

// maxExplainHeader keeps the header within what clients and proxies take.
const maxExplainHeader = 4 << 10

// headerJSON is JSON of the characters that a header may hold.
func headerJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	var out strings.Builder
	for _, r := range string(b) {
		switch {
		case r < 0x7f:
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
	}
	return out.String()
}
