package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"penstock/auth"
	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
	"penstock/route"
)

// An apiError is what a client is told: one of a closed set of codes.
type apiError struct {
	Status  int
	Code    string
	Type    string // OpenAI's error type
	Param   string
	Message string
	Outcome string // label of requests_total

	RetryAfter time.Duration // for 429 and 503
	NoRetry    bool          // retrying cannot help, or has been done here
	Close      bool          // the request body was not read

	upstream *provider.Error // an answer that is passed on as it is
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

const (
	typeInvalid = "invalid_request_error"
	typeServer  = "server_error"
)

func invalid(status int, code, param, message string) *apiError {
	return &apiError{Status: status, Code: code, Type: typeInvalid, Param: param, Message: message, Outcome: "client_error"}
}

func unavailable(code, message string, retryAfter time.Duration) *apiError {
	return &apiError{Status: http.StatusServiceUnavailable, Code: code, Type: typeServer, Message: message,
		Outcome: "unavailable", RetryAfter: max(retryAfter, time.Second)}
}

// Errors that the proxy itself finds.
var (
	errTooLarge = &apiError{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "the request body is larger than this gateway accepts; send less, or have its operator raise gateway.max_body or gateway.max_upload"}
	errEncoding = &apiError{Status: http.StatusUnsupportedMediaType, Code: "unsupported_encoding", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "compressed request bodies are not accepted; send the body without Content-Encoding"}
	errBodyTimeout = &apiError{Status: http.StatusRequestTimeout, Code: "request_timeout", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "the request body did not arrive in time; send it again"}
	errFraming = &apiError{Status: http.StatusBadRequest, Code: "malformed_body", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "the request body breaks the rules of HTTP's chunked encoding; send it with a Content-Length"}
	errMethod = &apiError{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "this method is not served; the API uses GET, POST and DELETE"}
	errCrossOrigin = &apiError{Status: http.StatusForbidden, Code: "cross_origin_refused", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "requests from web pages of another origin need a client key; have the gateway's operator configure teams with keys"}
	errUncheckedModel = &apiError{Status: http.StatusForbidden, Code: "model_not_allowed", Type: typeInvalid, Param: "model", Outcome: "client_error",
		Message: "this key may use certain models only, so it has to name one of them in a request where the gateway can see it; GET /v1/models lists them"}
	errDescriptors = unavailable("descriptors_exhausted", "the gateway has no file descriptors left; try again, and have its operator raise their limit (ulimit -n)", time.Second)
	errUpgrade     = &apiError{Status: http.StatusBadRequest, Code: "invalid_upgrade", Type: typeInvalid, Outcome: "client_error", Close: true,
		Message: "a WebSocket is opened by a GET request of HTTP/1.1 without a body"}
	errAdminAPI = &apiError{Status: http.StatusForbidden, Code: "admin_api_refused", Type: typeInvalid, Outcome: "client_error",
		Message: "the provider's administration API is not served with the gateway's own key; call the provider directly"}
	errClass = invalid(http.StatusBadRequest, "invalid_value", "x-penstock-class", "the header x-penstock-class must be interactive, default or batch")
	errPath  = &apiError{Status: http.StatusNotFound, Code: "unknown_path", Type: typeInvalid, Outcome: "client_error",
		Message: "this path is not an API path; check the base URL, which usually ends in /v1"}
	errInternal = &apiError{Status: http.StatusInternalServerError, Code: "internal_error", Type: typeServer, Outcome: "internal",
		Message: "the gateway failed to handle this request; its log has the reason under this request id"}
	errNoStream = &provider.Error{Kind: provider.KindHealth, Code: "protocol"}
	errTotal    = &provider.Error{Kind: provider.KindHealth, Code: "total_timeout"}
	errCut      = errors.New("the gateway is shutting down")
	// errGone is why a request ends whose client has left.
	errGone = errors.New("the client has left")
)

// describe turns any error into what the client is told. It is the only place that
// knows statuses.
func describe(err error) *apiError {
	var (
		own     *apiError
		request *openai.RequestError
		over    *limits.Exceeded
		open    *breaker.OpenError
		store   *limits.Unavailable
		up      *provider.Error
		large   *http.MaxBytesError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &request):
		return invalid(http.StatusBadRequest, request.Code, request.Param, request.Message)
	case errors.Is(err, auth.ErrMissing):
		return &apiError{Status: http.StatusUnauthorized, Code: "invalid_api_key", Type: typeInvalid, Outcome: "client_error", Close: true,
			Message: "no API key given; send the one that the gateway's operator gave you in the header Authorization, after the word Bearer"}
	case errors.Is(err, auth.ErrUnknown):
		return &apiError{Status: http.StatusUnauthorized, Code: "invalid_api_key", Type: typeInvalid, Outcome: "client_error", Close: true,
			Message: "this API key is unknown, expired or disabled; ask the gateway's operator for a valid one"}
	case errors.Is(err, route.ErrUnknownModel):
		return invalid(http.StatusNotFound, "model_not_found", "model", "this gateway serves no model of that name; GET /v1/models lists those it serves")
	case errors.Is(err, route.ErrNotAllowed):
		return invalid(http.StatusForbidden, "model_not_allowed", "model", "this key may not use that model; GET /v1/models lists those it may use")
	case errors.As(err, &over):
		return exceeded(over)
	case errors.As(err, &store):
		return unavailable("store_unavailable", "a limit of this request cannot be checked at the moment; try again", store.RetryAfter)
	case errors.As(err, &open):
		return unavailable("breaker_open", "every upstream for this model is failing and is left alone for a while; try again later", open.After)
	case errors.As(err, &large):
		return errTooLarge
	case errors.As(err, &up):
		return upstreamError(up)
	case errors.Is(err, errCut):
		return unavailable("shutting_down", "the gateway is shutting down; try again", time.Second)
	case errors.Is(err, errGone), errors.Is(err, context.Canceled):
		return &apiError{Status: 499, Code: "client_closed", Type: typeInvalid, Outcome: "client_closed", Message: "the client closed the request"}
	}
	return errInternal
}

// budgetExceeded describes a refusal by a budget. Only the end of its window helps,
// so clients are told not to try again: by the type, which OpenAI has for it, by the
// text, which others look for, and by x-should-retry.
func budgetExceeded(e *limits.Exceeded) *apiError {
	if e.Reason == limits.ReasonTooLarge {
		return invalid(http.StatusBadRequest, "request_exceeds_limit", "",
			fmt.Sprintf("this request costs %s, more than the limit %q can ever admit; shorten it or lower its output limit", limits.USD(e.Requested), e.Limit))
	}
	return &apiError{Status: http.StatusTooManyRequests, Code: "budget_exceeded", Type: "insufficient_quota", Outcome: "refused", RetryAfter: e.RetryAfter, NoRetry: true,
		Message: fmt.Sprintf("You exceeded your current quota (%s): less is left than the %s that this request may cost. It is whole again at %s.", e.Limit, limits.USD(e.Requested), limits.Moment(e.RetryAfter))}
}

// exceeded describes a refusal by a limit or by the queue.
func exceeded(e *limits.Exceeded) *apiError {
	if e.Limit != nil && e.Limit.Dimension == limits.Spend {
		return budgetExceeded(e)
	}
	if e.Reason == limits.ReasonTooLarge {
		return invalid(http.StatusBadRequest, "request_exceeds_limit", "",
			fmt.Sprintf("this request needs %d %s, more than the limit %q can ever admit; shorten it or lower its output limit", e.Requested, e.Limit.Dimension, e.Limit))
	}
	out := &apiError{Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded", Type: "requests", Outcome: "refused", RetryAfter: e.RetryAfter}
	hint := " " + again(e.RetryAfter)
	switch e.Reason {
	case limits.ReasonLimit:
		if e.Limit.Dimension != limits.Requests && e.Limit.Dimension != limits.Concurrency {
			out.Type = "tokens"
		}
		if e.Limit.Dimension == limits.Concurrency {
			out.RetryAfter = max(out.RetryAfter, time.Second)
			hint = " Please try again when a request of yours has finished."
		}
		out.Message = fmt.Sprintf("Rate limit reached for %s, requested %d.%s", e.Limit, e.Requested, hint)
	case limits.ReasonQueueFull:
		out.Code, out.Message = "queue_full", "Too many requests are waiting for this model's upstream."+hint
	case limits.ReasonPredicted:
		out.Code, out.Message = "queue_wait_too_long", "The wait for this model's upstream would be longer than this request may wait."+hint
	case limits.ReasonTimeout:
		out.Code, out.Message = "queue_timeout", "This request waited for its upstream as long as it may."+hint
	}
	return out
}

// again asks to come again after d, rounded up: who reads it and not the headers is
// not to come too early.
func again(d time.Duration) string {
	step := time.Millisecond
	switch {
	case d >= time.Minute:
		step = time.Second
	case d >= time.Second:
		step = 100 * time.Millisecond
	}
	return fmt.Sprintf("Please try again in %s.", (d + step - 1).Truncate(step))
}

// upstreamError describes the failure of the last attempt.
func upstreamError(e *provider.Error) *apiError {
	out := &apiError{Type: typeServer, Outcome: "upstream_error"}
	if e.Forwarded && e.Kind != provider.KindClient {
		out.Status, out.Code, out.RetryAfter, out.upstream = e.Status, e.Code, e.RetryAfter, e
		out.NoRetry = e.Kind == provider.KindBilling
		return out
	}
	switch e.Kind {
	case provider.KindCancelled:
		return describe(errGone)
	case provider.KindClient:
		out.Status, out.Code, out.Outcome, out.upstream = e.Status, "upstream_error", "client_error", e
		out.NoRetry = e.Status >= 500
		return out
	case provider.KindCredential:
		out.Status, out.Code, out.NoRetry = http.StatusBadGateway, "upstream_credential", true
		out.Message = "the upstream refused the gateway's own credential; its operator has to look at the key of this upstream"
		return out
	case provider.KindCapacity:
		if e.Code == "descriptors" {
			return errDescriptors
		}
		out.Status, out.Code, out.Outcome = http.StatusServiceUnavailable, "upstream_capacity", "upstream_limited"
		out.RetryAfter, out.NoRetry = min(max(e.RetryAfter, time.Second), time.Hour), e.Final()
		out.Message = "the upstream has no capacity for this request now. " + again(out.RetryAfter)
		return out
	case provider.KindBilling:
		out.Status, out.Code, out.NoRetry = http.StatusBadGateway, "upstream_billing", true
		out.Message = "the upstream refuses the gateway's account for lack of credit or because of a spend cap; its operator has to look at the account"
		return out
	case provider.KindHealth:
	}
	if e.Status >= 400 {
		out.Status, out.Code, out.NoRetry, out.upstream = e.Status, "upstream_error", true, e
		return out
	}
	if text, ok := timeLimits[e.Code]; ok {
		out.Status, out.Code, out.Message, out.Outcome, out.NoRetry = http.StatusGatewayTimeout, e.Code, text, "timeout", true
		return out
	}
	out.Status, out.Code, out.NoRetry = http.StatusBadGateway, "upstream_"+e.Code, true
	if out.Message = faults[e.Code]; out.Message == "" {
		out.Message = "the upstream could not be reached or broke off before it answered"
	}
	return out
}

// faults are those of upstreams that have a text of their own.
var faults = map[string]string{
	"reset":     "the upstream broke the connection off",
	"truncated": "the upstream broke off before its answer was whole",
	"not_json":  "what the upstream answered is not an answer of this API; its operator has to check the base URL",
	"tls":       "the gateway does not trust the upstream's certificate, or it speaks no TLS; its operator has to check the base URL",
	"protocol":  "the upstream answered with a status that means nothing here, such as a redirect; its operator has to check the base URL",
}

// timeLimits are the time limits of an attempt, each an error of its own.
var timeLimits = map[string]string{
	"connect_timeout":     "the connection to the upstream took too long",
	"header_timeout":      "the upstream took too long to answer",
	"first_token_timeout": "the upstream took too long to write its first token",
	"idle_timeout":        "the upstream was silent for too long",
	"total_timeout":       "the request took longer than the gateway allows",
	"attempts_timeout":    "the upstream's answer did not begin within the time that the request may take",
}
