package openai

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// whyInvalid says what is wrong with a body that strictJSON has refused. It quotes
// nothing of it.
func whyInvalid(body []byte, maxDepth int) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	if err := dec.SkipValue(); err != nil {
		return syntax(body, err, maxDepth)
	}
	end := dec.InputOffset()
	if _, err := dec.ReadToken(); err == nil {
		return reject(CodeInvalidJSON, "", "the body goes on after its JSON object, at offset %d", end)
	} else if !errors.Is(err, io.EOF) {
		return syntax(body, err, maxDepth)
	}
	return errDepth(maxDepth)
}

// syntax turns an error of the decoder into one that quotes nothing of the body.
func syntax(body []byte, err error, maxDepth int) error {
	if errors.Is(err, io.EOF) {
		return reject(CodeInvalidJSON, "", "the body is empty; send a JSON object")
	}
	var bad *jsontext.SyntacticError
	if !errors.As(err, &bad) {
		return reject(CodeInvalidJSON, "", "the body cannot be read as JSON")
	}
	at := min(int(bad.ByteOffset), len(body))
	what := "unexpected character"
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		path := string(bad.JSONPointer)
		if name := strings.TrimPrefix(path, "/"); fields[name].use != useNone {
			return errDuplicate(name)
		}
		return reject(CodeDuplicateKey, "", "an object has the same name twice, at offset %d; send each name once", at)
	case errors.Is(err, jsontext.ErrNonStringName):
		what = "a name that is not a string"
	case errors.Is(err, io.ErrUnexpectedEOF):
		what = "the end of the body inside a value"
	case strings.Count(string(bad.JSONPointer), "/") >= decoderDepth-1:
		return errDepth(min(maxDepth, decoderDepth))
	case at == len(body):
	case isBadRune(body[at:]):
		what = "invalid UTF-8"
	case body[at] == '\\':
		what = "an invalid escape in a string"
	case body[at] < ' ':
		what = "a control character that has to be escaped"
	}
	return reject(CodeInvalidJSON, "", "the body is not valid JSON: %s at offset %d", what, at)
}

func isBadRune(b []byte) bool {
	r, n := utf8.DecodeRune(b)
	return r == utf8.RuneError && n == 1
}

func errDepth(limit int) error {
	return reject(CodeInvalidJSON, "", "the body is nested more than %d deep", limit)
}
