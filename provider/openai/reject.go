package openai

import (
	"fmt"
	"unicode/utf8"
)

// Codes of RequestError. The set is closed.
const (
	CodeInvalidJSON      = "invalid_json"      // not one JSON object, or not UTF-8
	CodeInvalidMultipart = "invalid_multipart" // a form that servers could read differently
	CodeDuplicateKey     = "duplicate_key"     // a name that occurs twice in one object or form
	CodeAmbiguousKey     = "ambiguous_key"     // another spelling of a name that decides
	CodeInvalidValue     = "invalid_value"     // a deciding field of the wrong type or out of range
	CodeMissingModel     = "missing_model"     // the operation needs a model and none is named
)

// A RequestError says why a request body is refused. It is the client's fault,
// status 400. No part of it quotes the body, except that Param is the name of a
// field that is known here.
type RequestError struct {
	Code    string // one of the Code constants
	Param   string // the field at fault, empty when it is none in particular
	Message string // for the client: what is wrong and what to send instead
}

// Error describes the refusal for logs.
func (e *RequestError) Error() string { return e.Code + ": " + e.Message }

func reject(code, param, format string, args ...any) *RequestError {
	return &RequestError{Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

func errDuplicate(name string) *RequestError {
	return reject(CodeDuplicateKey, name, "%q is given twice; send it once", name)
}

func errAmbiguous(name string) *RequestError {
	return reject(CodeAmbiguousKey, name,
		"a field spelled almost like %q is read as %q by some servers and not by others; send exactly %q", name, name, name)
}

func errMissingModel() *RequestError {
	return reject(CodeMissingModel, keyModel, `this operation needs "model"; name one`)
}

// maxModel is the longest model name taken from a client, in bytes.
const maxModel = 256

// checkModel refuses model names that no provider has and that would be trouble
// in logs, headers and forms.
func checkModel(name string) error {
	if len(name) > maxModel {
		return reject(CodeInvalidValue, keyModel, "model is longer than %d bytes", maxModel)
	}
	if !utf8.ValidString(name) {
		return reject(CodeInvalidValue, keyModel, "model is not valid UTF-8")
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return reject(CodeInvalidValue, keyModel, "model contains a control character")
		}
	}
	return nil
}
