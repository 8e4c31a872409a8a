package simulate

import (
	"encoding/json"
	"strings"
	"unicode"
)

// bytesPerToken turns text into tokens: a rule of thumb for English.
const bytesPerToken = 4

// imageTokens is what a picture, sound or file in a prompt counts for.
const imageTokens = 85

// maxNesting bounds the work on nested content; deeper text is not counted.
const maxNesting = 6

// countTokens turns bytes of text into tokens, at least one.
func countTokens(textBytes int) int {
	return max(1, (textBytes+bytesPerToken-1)/bytesPerToken)
}

// textFields are the members of message parts and items that hold text.
var textFields = []string{"text", "content", "input", "output", "arguments", "refusal", "name"}

// textBytes is the length of the text in content of any of the API's forms: a
// string, token numbers, or parts and items with text in their fields. Parts
// that are not text count as imageTokens each.
func textBytes(raw json.RawMessage) int { return nestedTextBytes(raw, maxNesting) }

func nestedTextBytes(raw json.RawMessage, depth int) int {
	if len(raw) == 0 || depth == 0 {
		return 0
	}
	switch raw[0] {
	case '"':
		return len(rawString(raw))
	case '[':
		var parts []json.RawMessage
		if json.Unmarshal(raw, &parts) != nil {
			return 0
		}
		n := 0
		for _, part := range parts {
			n += nestedTextBytes(part, depth-1)
		}
		return n
	case '{':
		return objectTextBytes(raw, depth)
	case 'n', 't', 'f':
		return 0
	}
	return bytesPerToken // a number stands for one token
}

func objectTextBytes(raw json.RawMessage, depth int) int {
	var part map[string]json.RawMessage
	if json.Unmarshal(raw, &part) != nil {
		return 0
	}
	switch kind := rawString(part["type"]); kind {
	case "image_url", "input_image", "input_audio", "file", "input_file":
		return imageTokens * bytesPerToken
	}
	n := 0
	for _, field := range textFields {
		n += nestedTextBytes(part[field], depth-1)
	}
	return n
}

// rawString is the value of a JSON string, or "" for anything else.
func rawString(raw json.RawMessage) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	inside := string(raw[1 : len(raw)-1])
	if !strings.Contains(inside, `\`) {
		return inside
	}
	var s string
	_ = json.Unmarshal(raw, &s) // part of a body that parsed
	return s
}

// plainText is the text of a message's content: a string or parts.
func plainText(raw json.RawMessage) string {
	if s := rawString(raw); s != "" {
		return s
	}
	var parts []struct{ Text string }
	_ = json.Unmarshal(raw, &parts) // content of another form has no text
	var b strings.Builder
	for _, part := range parts {
		b.WriteString(part.Text)
		b.WriteByte(' ')
	}
	return b.String()
}

// mentionsTool says whether text contains the word "tool".
func mentionsTool(text string) bool {
	for w := range strings.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) }) {
		if strings.EqualFold(w, "tool") {
			return true
		}
	}
	return false
}

// limitField is a field that bounds the output.
type limitField struct {
	name  string
	value *int
}

// smallestLimit is the smallest of the limits that a request has, nil for none.
func smallestLimit(fields ...limitField) (*int, *apiError) {
	var least *int
	for _, f := range fields {
		if f.value == nil {
			continue
		}
		if *f.value < 1 {
			return nil, invalid(f.name, "Invalid %q: %d is below the minimum of 1.", f.name, *f.value)
		}
		if least == nil || *f.value < *least {
			least = f.value
		}
	}
	return least, nil
}

// maxChoices is the largest n.
const maxChoices = 128

func choices(n *int) (int, *apiError) {
	if n == nil {
		return 1, nil
	}
	if *n < 1 || *n > maxChoices {
		return 0, invalid("n", "Invalid \"n\": %d is not from 1 to %d.", *n, maxChoices)
	}
	return *n, nil
}
