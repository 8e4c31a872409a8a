package openai

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// maxNesting is how deep an upstream's JSON may be nested. gjson checks it by
// recursion, and each level costs a hundred bytes of stack and more.
const maxNesting = 1000

// validJSON reports whether b is one JSON value that is not nested too deep.
func validJSON(b []byte) bool { return !tooDeep(b) && gjson.ValidBytes(b) }

func tooDeep(b []byte) bool {
	if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) <= maxNesting {
		return false
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += 1 + stringLen(b[i+1:])
		case '[', '{':
			if depth++; depth > maxNesting {
				return true
			}
		case ']', '}':
			depth--
		}
	}
	return false
}
