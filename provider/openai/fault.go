package openai

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penstock/provider"
)

// maxErrorBody bounds what is read of an upstream's error. A longer one is not
// passed on.
const maxErrorBody = 256 << 10

// billing are the codes and types of answers that only money helps against.
var billing = map[string]bool{
	"insufficient_quota": true, "credit_balance_exhausted": true, "organization_spend_limit_exceeded": true,
	"project_spend_limit_exceeded": true, "organization_usage_limit_exceeded": true, "billing_hard_limit_reached": true,
	"enforced_spend_limit_reached": true, "contract_spend_limit_reached": true, "billing_error": true,
}

// overload are the codes and types that say that there is no capacity now.
var overload = map[string]bool{
	"rate_limit_exceeded": true, "rate_limit_error": true, "slow_down": true, "requests": true, "tokens": true,
	"server_is_overloaded": true, "overloaded_error": true, "service_unavailable_error": true,
	"resource_unavailable": true, "capacity_exceeded": true,
}

// codeNoPrevious refuses a response that continues one which is not known.
const codeNoPrevious = "previous_response_not_found"

// failed classifies an answer with an error status. It closes the body.
func failed(t *provider.Target, c *provider.Call, resp *http.Response) *provider.Error {
	defer resp.Body.Close()
	body, whole, err := wholeBody(resp.Body, maxErrorBody)
	if !whole {
		body = nil
	}
	mask(body, SecretsOf(t))
	e := &provider.Error{Status: resp.StatusCode, Header: replyHeader(t, resp.Header), Body: body, Err: err, Forwarded: t.Forward}
	e.RetryAfter = RetryAfter(resp.Header, time.Now())
	var code, kind string
	e.Body, code, kind = shapeError(body, resp.StatusCode)
	e.Header.Set("Content-Type", "application/json")
	e.Header.Del("Content-Encoding")
	e.Kind, e.Code = classify(resp.StatusCode, code, kind, e.RetryAfter > 0)
	e.Missing = c.Op.Stored && resp.StatusCode == http.StatusNotFound || c.Op.Name == opResponses && code == codeNoPrevious
	return e
}

// classify turns a status, with the code and type of its body, into a kind and a
// code for logs and metrics.
func classify(status int, code, kind string, retryAfter bool) (provider.Kind, string) {
	switch {
	case billing[code] || billing[kind] || status == http.StatusPaymentRequired:
		return provider.KindBilling, "billing"
	case status == http.StatusTooManyRequests || status == 529 || status == 498,
		status == http.StatusServiceUnavailable && (retryAfter || overload[code] || overload[kind]):
		return provider.KindCapacity, statusCode(status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired:
		return provider.KindCredential, statusCode(status)
	case status == http.StatusNotImplemented: // of a path that it does not have
		return provider.KindClient, statusCode(status)
	case status == http.StatusRequestTimeout || status >= 500:
		return provider.KindHealth, statusCode(status)
	}
	return provider.KindClient, statusCode(status)
}

// statusCode names a status in metrics. An upstream may invent statuses; the names
// are a bounded set.
func statusCode(status int) string {
	if http.StatusText(status) != "" || status == 498 || status >= 520 && status <= 530 {
		return "status_" + strconv.Itoa(status)
	}
	if status >= 500 {
		return "status_5xx"
	}
	return "status_4xx"
}

// errorEvent classifies an error that arrived behind a 200, before anything else.
func errorEvent(t *provider.Target, resp *http.Response, data []byte) *provider.Error {
	body, code, kind := shapeError(data, 0)
	status := http.StatusInternalServerError
	if n, err := strconv.Atoi(code); err == nil && n >= 400 && n < 600 {
		status = n
	} else if overload[code] || overload[kind] {
		status = http.StatusTooManyRequests
	} else if kind == "invalid_request_error" {
		status = http.StatusBadRequest
	}
	e := &provider.Error{Status: status, Header: replyHeader(t, resp.Header), Body: body}
	e.Header.Set("Content-Type", "application/json")
	e.Kind, _ = classify(status, code, kind, false)
	e.Code = "error_event"
	return e
}

// Broken classifies an error of the transport, or of reading an answer. cause is
// why the attempt was cancelled, or nil.
func Broken(err, cause error) *provider.Error {
	var own *provider.Error
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(cause, &own):
		return own // one of our own time limits
	case cause != nil:
		return &provider.Error{Kind: provider.KindCancelled, Code: "cancelled", Err: cause}
	case errors.As(err, &own):
		return own
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: err}
	case errors.As(err, &dns):
		return &provider.Error{Kind: provider.KindHealth, Code: "dns", Err: errors.New("name of the upstream cannot be resolved")}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		// Nothing was asked of the upstream, and it has no part in it.
		return &provider.Error{Kind: provider.KindCapacity, Code: "descriptors", Err: err}
	case errors.As(err, &op) && op.Op == "dial":
		code := "connect"
		if op.Timeout() {
			code = "connect_timeout"
		}
		return &provider.Error{Kind: provider.KindHealth, Code: code, Err: op.Err}
	case isTLS(err):
		return &provider.Error{Kind: provider.KindHealth, Code: "tls", Err: err}
	case strings.Contains(err.Error(), "TLS handshake timeout"):
		return &provider.Error{Kind: provider.KindHealth, Code: "connect_timeout", Err: err}
	}
	return &provider.Error{Kind: provider.KindHealth, Code: "reset", Err: err}
}

// isTLS reports whether no secure connection came about: the certificate is not
// trusted or another host's, or what answers does not speak TLS.
func isTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	alert := errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") // of crypto/tls alone
	return alert || errors.As(err, &certificate) || errors.As(err, &record)
}

// maxHint bounds what an upstream may ask us to wait.
const maxHint = time.Hour

// RetryAfter reads how long an answer asks to wait: retry-after-ms, then
// Retry-After in seconds, also fractional, or as an HTTP date. It is 0 when
// nothing usable was said, and at most an hour.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(strings.TrimSpace(h.Get("Retry-After-Ms")), 64); err == nil {
		return hint(ms / 1000)
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return hint(s)
	}
	if at, err := http.ParseTime(v); err == nil {
		return hint(at.Sub(now).Seconds())
	}
	return 0
}

func hint(seconds float64) time.Duration {
	if !(seconds > 0) { // NaN too
		return 0
	}
	if seconds > maxHint.Seconds() {
		return maxHint
	}
	return time.Duration(seconds * float64(time.Second))
}

// A Stated limit is what an answer's headers say of the upstream's bucket.
type Stated struct {
	Limit, Remaining int64 // Limit 0 and Remaining -1 when not stated
	Reset            time.Duration
}

// RateLimits reads the x-ratelimit headers for requests and tokens. Azure sends
// bare seconds where OpenAI sends durations.
func RateLimits(h http.Header) (requests, tokens Stated, ok bool) {
	requests, okR := stated(h, "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests")
	tokens, okT := stated(h, "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens")
	return requests, tokens, okR || okT
}

// maxStated bounds the limits that are believed; what is larger limits nothing.
const maxStated = 1_000_000_000_000

func stated(h http.Header, ofLimit, ofRemaining, ofReset string) (Stated, bool) {
	s := Stated{Remaining: -1}
	limit, remaining := first(h, ofLimit), first(h, ofRemaining)
	if limit == "" && remaining == "" {
		return s, false
	}
	if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 && n <= maxStated {
		s.Limit = n
	}
	if n, err := strconv.ParseInt(remaining, 10, 64); err == nil && n >= 0 {
		s.Remaining = min(n, maxStated)
	}
	reset := first(h, ofReset)
	if d, err := time.ParseDuration(reset); err == nil && d > 0 {
		s.Reset = min(d, 366*24*time.Hour)
	} else if f, err := strconv.ParseFloat(reset, 64); err == nil {
		s.Reset = hint(f)
	}
	return s, s.Limit > 0 || s.Remaining >= 0
}

// first is the first value of a header whose name is in canonical form, or "".
func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}
