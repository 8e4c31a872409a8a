package admin

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxBody is the largest body that the admin API reads, in bytes.
const maxBody = 1 << 20

// An Error is what the caller of the admin API is told, in OpenAI's shape.
type Error struct {
	Status  int
	Code    string
	Param   string // field of the body that is wrong; may be empty
	Message string
}

// Error describes the refusal.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// fail answers with an error. Errors that are none of this package's own are not
// shown.
func fail(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusInternalServerError, Code: "internal_error", Message: "the gateway failed to handle this request; its log has the reason"}
	}
	kind := "invalid_request_error"
	if e.Status >= 500 {
		kind = "server_error"
	}
	if e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	type body struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	b := body{Message: e.Message, Type: kind, Code: e.Code}
	if e.Param != "" {
		b.Param = &e.Param
	}
	reply(w, e.Status, map[string]body{"error": b})
}

// reply answers with JSON.
func reply(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	b, err := json.Marshal(v, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be written","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// body reads a JSON body. An empty one is an empty object where that is allowed.
func body(w http.ResponseWriter, r *http.Request, mayBeEmpty bool) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &Error{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Message: "the body is larger than 1 MiB"}
	case err != nil:
		return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_body", Message: "the body did not arrive whole"}
	case len(b) == 0 && mayBeEmpty:
		return []byte("{}"), nil
	}
	// A page of another site may send text, but not this type.
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_type", Message: "send the body as Content-Type: application/json"}
	}
	return b, nil
}

// decode reads a JSON body strictly: unknown fields, duplicate ones and wrong types
// are refused.
func decode(w http.ResponseWriter, r *http.Request, mayBeEmpty bool, v any) error {
	b, err := body(w, r, mayBeEmpty)
	if err != nil {
		return err
	}
	return unmarshal(b, v)
}

// parameters are those of the query, each of names at most once, and no others.
func parameters(r *http.Request, names ...string) (url.Values, error) {
	query := r.URL.Query()
	for name, values := range query {
		if len(values) > 1 || !slices.Contains(names, name) {
			text := "expected each of " + strings.Join(names, ", ") + " at most once"
			if len(names) == 0 {
				text = "this path takes no parameters"
			}
			return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: clip(name), Message: clip(name) + ": " + text}
		}
	}
	return query, nil
}

func unmarshal(b []byte, v any) error {
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	e := &Error{Status: http.StatusBadRequest, Code: "invalid_body", Message: "the body is not the JSON object that this path takes; its syntax is wrong"}
	var wrong *json.SemanticError
	if !errors.As(err, &wrong) {
		return e
	}
	e.Param = pathOf(wrong.JSONPointer)
	e.Message = "expected another type of value at " + e.Param
	if errors.Is(wrong.Err, json.ErrUnknownName) {
		e.Message = "unknown field " + e.Param
	}
	return e
}

// pathOf writes a JSON pointer as limits.requests.
func pathOf(p jsontext.Pointer) string {
	text := ""
	for token := range p.Tokens() {
		if text != "" {
			text += "."
		}
		text += token
	}
	return text
}
