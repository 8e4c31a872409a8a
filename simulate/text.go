package simulate

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// words are what answers are made of, one token each. They need no escaping in JSON.
var words = strings.Fields(`the river runs past an old mill where two cats sleep in the sun and
	nobody counts the hours because each stone of the wall remembers rain a boy walks home with
	bread under his arm while far away trains call to one another across quiet fields at night`)

// wordsPerChoice keeps the choices of one answer apart.
const wordsPerChoice = 7

// An output is what every choice of one answer says: words without end, of
// which tokens are taken, or a fixed text cut in pieces, one token each.
type output struct {
	hidden int      // reasoning tokens, before the visible ones
	tokens int      // visible tokens
	capped bool     // by the request
	pieces []string // nil for words
	call   *toolCall
}

func (o *output) total() int { return o.hidden + o.tokens }

// finish is the finish_reason.
func (o *output) finish() string {
	switch {
	case o.capped:
		return "length"
	case o.call != nil:
		return "tool_calls"
	}
	return "stop"
}

// newOutput plans an answer of at most limit tokens, reasoning included. fixed
// replaces words if it is not empty.
func (c *call) newOutput(limit *int, fixed string, tool *toolCall) *output {
	o := &output{tokens: c.set.outputTokens, hidden: c.set.hiddenTokens, call: tool}
	if c.faults.Tokens != nil {
		o.tokens = *c.faults.Tokens
	}
	if c.faults.Reasoning != nil {
		o.hidden = *c.faults.Reasoning
	}
	if tool != nil {
		fixed = tool.arguments
	}
	if fixed != "" {
		o.pieces = cutText(fixed)
		o.tokens = len(o.pieces)
	}
	if limit != nil && *limit < o.total() {
		o.capped = true
		o.hidden = min(o.hidden, *limit)
		o.tokens = *limit - o.hidden
	}
	return o
}

// reserve is the most output that a choice may cost, for limits that ask before.
func (o *output) reserve(limit *int) int {
	if limit != nil {
		return *limit
	}
	return o.total()
}

// text is the whole visible text of a choice.
func (o *output) text(choice int) string {
	return string(o.appendRaw(nil, choice, 0, o.tokens))
}

// appendJSON appends tokens from..from+n of a choice as the inside of a JSON string.
func (o *output) appendJSON(b []byte, choice, from, n int) []byte {
	if o.pieces == nil {
		return o.appendRaw(b, choice, from, n)
	}
	quoted := quote(strings.Join(o.pieces[from:from+n], ""))
	return append(b, quoted[1:len(quoted)-1]...)
}

func (o *output) appendRaw(b []byte, choice, from, n int) []byte {
	if o.pieces != nil {
		for _, piece := range o.pieces[from : from+n] {
			b = append(b, piece...)
		}
		return b
	}
	for i := from; i < from+n; i++ {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, words[(i+choice*wordsPerChoice)%len(words)]...)
	}
	return b
}

// cutText cuts s in pieces of about four bytes, never inside a character.
func cutText(s string) []string {
	pieces := make([]string, 0, len(s)/4+1)
	for len(s) > 0 {
		n := min(4, len(s))
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n++
		}
		pieces = append(pieces, s[:n])
		s = s[n:]
	}
	return pieces
}

// quote is s as a JSON string.
func quote(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			b, _ := json.Marshal(s) // a string always has an encoding
			return string(b)
		}
	}
	return `"` + s + `"`
}
