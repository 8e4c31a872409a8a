package provider

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind classifies an upstream failure by what should be done next.
type Kind int

const (
	KindHealth     Kind = iota // broken: connect error, reset, timeout, other 5xx; counts against the breaker, retried
	KindClient                 // the client's fault: 400, 404, 413, 422; never retried, never counted
	KindCredential             // 401, 403 on the upstream's key: park it, next target
	KindCapacity               // 429, 529, 503 with Retry-After: slow down, next target
	KindBilling                // quota or spend cap: not retried here, next target
	KindCancelled              // the client left: nobody's fault
)

var kindNames = [...]string{"health", "client", "credential", "capacity", "billing", "cancelled"}

// String returns the kind's name as it stands in metrics and logs.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// An Error is a failed attempt at an upstream. Its text never holds keys, prompts
// or the upstream's body.
type Error struct {
	Kind   Kind
	Code   string // what happened, from a closed set: "connect", "reset", "connect_timeout", "header_timeout", …
	Status int    // the upstream's status, 0 when there was no answer
	Err    error  // the cause; nil for an answer that is an error

	RetryAfter time.Duration // as the upstream stated it, 0 when it said nothing
	Header     http.Header   // the answer's header, cleaned for the client; nil without an answer
	Body       []byte        // the answer's body, bounded and with keys masked; nil without an answer
	// Forwarded says that the client's own credential was used, so that the answer
	// is the client's, whatever its kind.
	Forwarded bool
	// Missing says that the request is about an object that this upstream does not
	// have. Another one may.
	Missing bool
}

// Error describes the failure for logs.
func (e *Error) Error() string {
	switch {
	case e.Status != 0:
		return fmt.Sprintf("upstream answered %d (%s)", e.Status, e.Code)
	case e.Err != nil:
		return fmt.Sprintf("upstream %s: %v", e.Code, e.Err)
	}
	return "upstream " + e.Code
}

// Final reports whether the upstream says that to ask it again is in vain, as a
// gateway does that has tried already. SDKs obey the same header.
func (e *Error) Final() bool { return e.Header.Get("X-Should-Retry") == "false" }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of a failed attempt; what is not an *Error is a health
// failure.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindHealth
}
