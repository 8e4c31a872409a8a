package openai

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// maxPlain is the longest plain text that is taken for an error's message.
const maxPlain = 512

// shapeError turns an upstream's error into the envelope that SDKs read: an object
// under "error", with a text as its message and a text or null as its code. A body
// that is one already stays as it is, byte for byte. code and kind are its own code
// and type, whatever its shape.
//
// Known are the shapes of Gemini's compatible endpoint (an array), Ollama (a text
// under "error"), Mistral, Bedrock and Azure's gateway ("message" at the top), and
// FastAPI ("detail"). The text of anything else, such as the HTML of a load
// balancer, does not pass, since it may tell of the inside of a network; a line of
// plain text does, where the fault is the client's.
func shapeError(body []byte, status int) (shaped []byte, code, kind string) {
	body = bytes.TrimSpace(body)
	if !validJSON(body) {
		text := ""
		if status < http.StatusInternalServerError {
			text = plainText(body)
		}
		return ErrorBody("upstream_error", errorType(status), orStatus(text, status), ""), "", ""
	}
	top := gjson.ParseBytes(body)
	if first := top.Get("0"); top.IsArray() && first.IsObject() {
		top = first
	}
	detail := top.Get("error")
	if !detail.IsObject() {
		return flatBody(top, status)
	}
	code, kind = detail.Get("code").String(), detail.Get("type").String()
	if detail.Get("message").Type != gjson.String {
		return ErrorBody(or(code, "upstream_error"), or(kind, errorType(status)), orStatus(message(detail), status), detail.Get("param").String()), code, kind
	}
	if c := detail.Get("code"); c.Exists() && c.Type != gjson.String && c.Type != gjson.Null {
		return quoteCode(top, detail, c), code, kind
	}
	return []byte(top.Raw), code, kind
}

// quoteCode makes a code that is a number a text. Every other byte stays.
func quoteCode(top, detail, code gjson.Result) []byte {
	at := code.Index - top.Index // both count from the beginning of the body
	if code.IsObject() || code.IsArray() || at <= 0 || !strings.HasPrefix(top.Raw[min(at, len(top.Raw)):], code.Raw) {
		return ErrorBody("upstream_error", or(detail.Get("type").String(), "server_error"), detail.Get("message").String(), "")
	}
	return fmt.Appendf(nil, "%s%q%s", top.Raw[:at], code.Raw, top.Raw[at+len(code.Raw):])
}

// flatBody makes an envelope of an error that is none.
func flatBody(top gjson.Result, status int) (shaped []byte, code, kind string) {
	code, kind = top.Get("code").String(), top.Get("type").String()
	if kind == nameError { // of an event, not of an error
		kind = ""
	}
	text := message(top)
	return ErrorBody(or(code, "upstream_error"), or(kind, errorType(status)), orStatus(text, status), top.Get("param").String()), code, kind
}

// message finds the text of an error of any shape.
func message(e gjson.Result) string {
	for _, path := range [...]string{"error", "message", "Message", "detail", "detail.0.msg", "errors.0.message", "errors.0", "msg"} {
		if v := e.Get(path); v.Type == gjson.String && v.Str != "" {
			return v.Str
		}
	}
	if e.Type == gjson.String {
		return e.Str
	}
	return ""
}

// plainText is a body that is one line for people, or "".
func plainText(body []byte) string {
	text := string(body)
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(text) > maxPlain || !utf8.ValidString(text) || strings.ContainsAny(text, "<>{}") || strings.ContainsFunc(text, odd) {
		return ""
	}
	return text
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func orStatus(text string, status int) string {
	switch {
	case text != "":
		return text
	case status == 0:
		return "the upstream reported an error within its answer"
	}
	return strings.TrimSpace(fmt.Sprintf("the upstream answered %d %s", status, http.StatusText(status)))
}

func errorType(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= 400 && status < 500:
		return "invalid_request_error"
	}
	return "server_error"
}
