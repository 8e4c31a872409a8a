package simulate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// An apiError is an error answer in OpenAI's envelope.
type apiError struct {
	status      int
	message     string
	kind        string // error.type
	param, code string // null when empty
	retryAfter  time.Duration
	reason      string // of a 429, for Stats
}

func (e *apiError) Error() string { return e.message }

// body is the envelope: {"error":{"message":…,"type":…,"param":…,"code":…}}.
func (e *apiError) body() []byte {
	return mustJSON(map[string]any{"error": e.object()})
}

func (e *apiError) object() map[string]any {
	return map[string]any{"message": e.message, "type": e.kind, "param": orNull(e.param), "code": orNull(e.code)}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func invalid(param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", param: param, message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) *apiError {
	return &apiError{status: http.StatusNotFound, kind: "invalid_request_error", message: fmt.Sprintf(format, args...)}
}

// limited is the 429 for a refusal. Its text has the parts that clients look
// for: Limit, Used, Requested and "Please try again in".
func limited(model string, r rates, why *refusal) *apiError {
	per := "per min"
	if r.window != time.Minute {
		per = "per " + r.window.String()
	}
	unit, kind := "requests "+per+" (RPM)", "requests"
	switch why.reason {
	case reasonTokens, reasonTooLarge:
		unit, kind = "tokens "+per+" (TPM)", "tokens"
	case reasonConcurrency:
		unit = "concurrent requests"
	}
	e := &apiError{status: http.StatusTooManyRequests, kind: kind, code: "rate_limit_exceeded", reason: why.reason}
	if why.wait < 0 {
		e.message = fmt.Sprintf("Request too large for %s on %s: Limit %d, Requested %d. It can never fit: shorten the prompt or ask for less output.",
			clip(model), unit, why.limit, why.requested)
		return e
	}
	e.retryAfter = why.wait
	e.message = fmt.Sprintf("Rate limit reached for %s on %s: Limit %d, Used %d, Requested %d. Please try again in %s.",
		clip(model), unit, why.limit, why.used, why.requested, roundUp(why.wait, time.Millisecond))
	return e
}

// refusalFault is the error that f asks for in place of an answer, or nil.
func refusalFault(f *Faults) *apiError {
	switch {
	case f.InsufficientQuota:
		return &apiError{status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota", reason: reasonFault,
			message: "The simulated account has no credit left. Waiting will not help."}
	case f.Overloaded:
		return &apiError{status: http.StatusServiceUnavailable, kind: "service_unavailable_error", code: "server_is_overloaded",
			message: "The simulated model is overloaded. Try again later.", retryAfter: time.Second}
	case f.Status != 0:
		return statusFault(f.Status)
	}
	return nil
}

func statusFault(status int) *apiError {
	e := &apiError{status: status, message: fmt.Sprintf("Simulated error %d %s.", status, http.StatusText(status))}
	switch {
	case status == http.StatusUnauthorized:
		e.kind, e.code = "invalid_request_error", "invalid_api_key"
	case status == http.StatusNotFound:
		e.kind, e.code = "invalid_request_error", "model_not_found"
	case status == http.StatusTooManyRequests:
		e.kind, e.code, e.reason = "requests", "rate_limit_exceeded", reasonFault
	case status == http.StatusServiceUnavailable:
		e.kind, e.code = "service_unavailable_error", "service_unavailable"
	case status == 529:
		e.kind, e.code = "overloaded_error", "overloaded"
	case status >= 500:
		e.kind, e.code = "server_error", "server_error"
	default:
		e.kind = "invalid_request_error"
	}
	return e
}

// setRetryAfter writes both forms, rounded up, so that who waits that long gets in.
func setRetryAfter(h http.Header, wait time.Duration) {
	if wait <= 0 {
		return
	}
	h["Retry-After"] = []string{strconv.FormatInt(int64(roundUp(wait, time.Second)/time.Second), 10)}
	h["Retry-After-Ms"] = []string{strconv.FormatInt(int64(roundUp(wait, time.Millisecond)/time.Millisecond), 10)}
}

// roundUp rounds d up to a whole number of units.
func roundUp(d, unit time.Duration) time.Duration {
	if rest := d % unit; rest > 0 && d <= 1<<62 {
		return d - rest + unit
	}
	return d
}

// mustJSON encodes values that are known to have an encoding.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("simulate: encode %T: %v", v, err))
	}
	return b
}
