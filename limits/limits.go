// Package limits decides what may start now: rate limits on requests and tokens,
// concurrency, and the fair queue in which requests wait for an upstream.
//
// Whoever is admitted holds a Lease and ends it exactly once, as one does with
// sql.Tx:
//
//	lease, err := queue.Acquire(ctx, request)
//	if err != nil {
//		return err // *Exceeded, or the context's error
//	}
//	defer lease.Release()
//	… do the work …
//	lease.Settle(actual)
//
// A Limit is a rule; a Store keeps its level. The arithmetic of a level is the
// pure code in bucket.go, shared by every Store.
package limits

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Dimension is what a limit counts.
type Dimension uint8

// The dimensions. All but Concurrency are amounts per window.
const (
	Requests Dimension = iota
	Tokens             // input and output
	InputTokens
	OutputTokens
	Concurrency // slots in flight
	Spend       // a budget: money in millionths of a US dollar, in fixed windows
)

var dimensionNames = [...]string{"requests", "tokens", "input_tokens", "output_tokens", "concurrency", "budget"}

// String returns the dimension's name in the configuration and in metrics.
func (d Dimension) String() string { return dimensionNames[d] }

// Scope is whose limit it is, from narrow to wide.
type Scope uint8

// The scopes.
const (
	ScopeKey Scope = iota
	ScopeTeam
	ScopeModel    // one model of an upstream
	ScopeUpstream // one upstream, all models
	ScopeGateway
)

var scopeNames = [...]string{"key", "team", "model", "upstream", "gateway"}

// String returns the scope's name in errors and metrics.
func (s Scope) String() string { return scopeNames[s] }

// Cost is what a request may use, or did use.
type Cost struct {
	Requests int64
	Input    int64 // tokens
	Output   int64 // tokens
	// Predicted is the part of Output that is only a prediction. Where the
	// prediction alone makes a request larger than a bucket can hold, the whole
	// bucket is reserved instead of refusing it.
	Predicted int64

	MicroUSD          int64 // money, in millionths of a US dollar
	PredictedMicroUSD int64 // the part of MicroUSD that is only a prediction
}

// Tokens is the sum of input and output, at most the largest int64.
func (c Cost) Tokens() int64 {
	if c.Input > 0 && c.Output > math.MaxInt64-c.Input {
		return math.MaxInt64
	}
	return c.Input + c.Output
}

// of is what the cost charges in a dimension.
func (c Cost) of(d Dimension) int64 {
	switch d {
	case Requests:
		return c.Requests
	case Tokens:
		return c.Tokens()
	case InputTokens:
		return c.Input
	case OutputTokens:
		return c.Output
	case Spend:
		return c.MicroUSD
	}
	return 0
}

// predicted is the part of the charge that is only predicted.
func (c Cost) predicted(d Dimension) int64 {
	switch d {
	case Tokens, OutputTokens:
		return c.Predicted
	case Spend:
		return c.PredictedMicroUSD
	}
	return 0
}

func (c Cost) plus(o Cost) Cost {
	return Cost{
		c.Requests + o.Requests, c.Input + o.Input, c.Output + o.Output, c.Predicted + o.Predicted,
		c.MicroUSD + o.MicroUSD, c.PredictedMicroUSD + o.PredictedMicroUSD,
	}
}

func (c Cost) minus(o Cost) Cost {
	return c.plus(Cost{-o.Requests, -o.Input, -o.Output, -o.Predicted, -o.MicroUSD, -o.PredictedMicroUSD})
}

// scaled is what the queue needs of a part of the cost; budgets never wait.
func (c Cost) scaled(f float64) Cost {
	return Cost{Requests: int64(float64(c.Requests) * f), Input: int64(float64(c.Input) * f), Output: int64(float64(c.Output) * f)}
}

// A Limit is one rule: so much of a dimension, for a scope, per window. It is
// immutable; its level lives in a Store under ID, so that a reload which keeps the
// ID keeps the level.
type Limit struct {
	ID        string // unique and stable, such as "team/search/tokens/1m0s"
	Scope     Scope
	Owner     string // name within the scope, for messages
	Dimension Dimension
	Amount    int64         // units per Window, or slots; at least 1
	Window    time.Duration // 0 for Concurrency; whole days for Spend
	Monthly   bool          // the windows of a budget are calendar months; Window is 0
	Burst     int64         // most units at once; at least 1; Amount for Spend
	Wait      bool          // wait in the queue instead of refusing
	Shadow    bool          // count what would be refused, and let it pass
	// Group names the limits that a shared store charges in one step, such as
	// "team/search" for those of a team and its keys. Empty means that of its team
	// or upstream, which keys do not know.
	Group  string
	OnLoss OnLoss // what holds while a shared store is away
}

// OnLoss says what becomes of a limit while the store that shares it is away.
type OnLoss uint8

// The policies.
const (
	AsStore OnLoss = iota // the store's own policy
	Divide                // each replica enforces its part: the limit ÷ the replicas last known
	Open                  // the limit is not enforced
	Closed                // nothing is admitted: *Unavailable
)

var onLossNames = [...]string{"", "divide", "open", "closed"}

// ParseOnLoss returns the policy of that name in the configuration; AsStore for
// any other.
func ParseOnLoss(name string) OnLoss { return OnLoss(max(0, slices.Index(onLossNames[:], name))) }

// String describes the limit in a message to its owner.
func (l *Limit) String() string {
	if l.Dimension == Concurrency {
		return fmt.Sprintf("%s %s: concurrency %d", l.Scope, l.Owner, l.Amount)
	}
	if l.Dimension == Spend {
		return fmt.Sprintf("%s %s: budget of %s per %s", l.Scope, l.Owner, USD(l.Amount), l.Period())
	}
	return fmt.Sprintf("%s %s: %d %s per %s", l.Scope, l.Owner, l.Amount, l.Dimension, l.Period())
}

// Origin tells where a limit comes from: it is configured, learned from what an
// upstream's answers state, or adaptive where nothing is known but that the upstream
// refuses.
func (l *Limit) Origin() string {
	switch {
	case !strings.HasPrefix(l.ID, "target/"):
		return "configured"
	case strings.HasSuffix(l.ID, "/adaptive"):
		return "adaptive"
	}
	return "learned"
}

// charge is what cost takes from the limit, and whether that can ever fit.
func (l *Limit) charge(cost Cost) (n int64, fits bool) {
	if l.Dimension == Concurrency {
		return 1, true
	}
	n = cost.of(l.Dimension)
	if n <= l.Burst || l.Shadow {
		return n, true
	}
	return l.Burst, n-cost.predicted(l.Dimension) <= l.Burst
}

// Reason says why something was not admitted.
type Reason string

// The reasons.
const (
	ReasonLimit     Reason = "limit"          // a limit that refuses is used up
	ReasonTooLarge  Reason = "too_large"      // larger than a limit can ever hold
	ReasonQueueFull Reason = "queue_full"     // no place left in the queue
	ReasonPredicted Reason = "predicted_wait" // the wait would be too long
	ReasonTimeout   Reason = "queue_timeout"  // it did wait too long
)

// Exceeded is a refusal. RetryAfter is the time after which the same request
// would be admitted if nobody else came, or 0 when waiting does not help.
type Exceeded struct {
	Reason     Reason
	Limit      *Limit // the limit that refused, of several the one that RetryAfter is of; nil for bounds of the queue itself
	Upstream   string // whose queue refused; empty for a limit of the caller
	Requested  int64  // what the request needed of the limit
	RetryAfter time.Duration
	Waited     time.Duration // time spent in the queue
	Checked    []Charge      // limits of the caller that were asked, with what stood there; they serve explanations
	Held       []Hold        // what the request waited for in the queue
}

// Unavailable says that a limit cannot be checked because the shared store is
// away, and that its policy is to admit nothing then.
type Unavailable struct {
	Limit      *Limit
	RetryAfter time.Duration
}

// Error describes the failure.
func (e *Unavailable) Error() string {
	return fmt.Sprintf("the shared store is away, and %q admits nothing without it", e.Limit)
}

// Error describes the refusal.
func (e *Exceeded) Error() string {
	if e.Limit != nil {
		return fmt.Sprintf("%s (%s)", e.Reason, e.Limit)
	}
	return fmt.Sprintf("%s (upstream %s)", e.Reason, e.Upstream)
}
