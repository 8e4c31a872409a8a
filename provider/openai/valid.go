package openai

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"

	"penstock/provider"
)

// A checker goes through JSON once and tells whether it is valid (RFC 8259). It has
// to be fast, since every request and every answer passes it.
type checker struct {
	b     []byte
	depth int // deepest nesting
	// strict refuses what parsers read differently, too: names that occur twice in an
	// object, invalid UTF-8, and halves of surrogate pairs.
	strict bool
	// names are those of the objects that are gone through, outer ones first, as far as
	// there is room; known is their number.
	names [32]provider.Span
	known int
}

// maxNesting is how deep an upstream's JSON may be nested.
const maxNesting = 1000

// validJSON reports whether b is one JSON value that is not nested too deep.
func validJSON(b []byte) bool {
	c := checker{b: b, depth: maxNesting}
	return c.whole()
}

// strictJSON is validJSON for what others will read as well.
func strictJSON(b []byte, depth int) bool {
	c := checker{b: b, depth: depth, strict: true}
	return c.whole()
}

func (c *checker) whole() bool {
	i := c.value(skipSpace(c.b, 0), 0)
	return i >= 0 && skipSpace(c.b, i) == len(c.b)
}

// value returns the offset after the value at b[i], which is nested in depth others,
// or -1 where it is not valid.
func (c *checker) value(i, depth int) int {
	if i >= len(c.b) {
		return -1
	}
	switch c.b[i] {
	case '"':
		end, _ := c.text(i)
		return end
	case '{', '[':
		if depth >= c.depth {
			return -1
		}
		if c.b[i] == '{' {
			return c.object(i, depth)
		}
		return c.array(i, depth)
	case 't':
		return c.literal(i, "true")
	case 'f':
		return c.literal(i, "false")
	case 'n':
		return c.literal(i, "null")
	}
	return c.number(i)
}

func (c *checker) literal(i int, word string) int {
	if end := i + len(word); end <= len(c.b) && string(c.b[i:end]) == word {
		return end
	}
	return -1
}

func (c *checker) array(i, depth int) int {
	i = skipSpace(c.b, i+1)
	if i < len(c.b) && c.b[i] == ']' {
		return i + 1
	}
	for {
		if i = c.value(i, depth+1); i < 0 {
			return -1
		}
		i = skipSpace(c.b, i)
		if i >= len(c.b) || c.b[i] != ',' {
			break
		}
		i = skipSpace(c.b, i+1)
	}
	return c.literal(i, "]")
}

func (c *checker) object(i, depth int) int {
	i = skipSpace(c.b, i+1)
	if i < len(c.b) && c.b[i] == '}' {
		return i + 1
	}
	first := c.known
	var many map[string]bool // its names, where names has no room for them
	for {
		if i >= len(c.b) || c.b[i] != '"' {
			return -1
		}
		end, escaped := c.text(i)
		if end < 0 || c.strict && c.twice(provider.Span{Start: i, End: end}, escaped, first, &many) {
			return -1
		}
		i = skipSpace(c.b, end)
		if i >= len(c.b) || c.b[i] != ':' {
			return -1
		}
		if i = c.value(skipSpace(c.b, i+1), depth+1); i < 0 {
			return -1
		}
		i = skipSpace(c.b, i)
		if i >= len(c.b) || c.b[i] != ',' {
			break
		}
		i = skipSpace(c.b, i+1)
	}
	c.known = first
	return c.literal(i, "}")
}

// twice notes a name of the object whose names begin at first, and reports whether it
// was there.
func (c *checker) twice(at provider.Span, escaped bool, first int, many *map[string]bool) bool {
	quoted := c.b[at.Start:at.End]
	if *many == nil && !escaped && c.known < len(c.names) {
		for _, other := range c.names[first:c.known] {
			if bytes.Equal(c.b[other.Start:other.End], quoted) {
				return true
			}
		}
		c.names[c.known] = at
		c.known++
		return false
	}
	if *many == nil {
		*many = make(map[string]bool)
		for _, other := range c.names[first:c.known] {
			(*many)[unquote(c.b[other.Start:other.End])] = true
		}
	}
	name := unquote(quoted)
	again := (*many)[name]
	(*many)[name] = true
	return again
}

// text returns the offset after the string whose opening quote is b[i], or -1, and
// whether it has escapes.
func (c *checker) text(i int) (end int, escaped bool) {
	b := c.b
	for i++; ; {
		i += ordinary(b[i:])
		if i >= len(b) {
			return -1, false
		}
		switch {
		case b[i] == '"':
			return i + 1, escaped
		case b[i] == '\\':
			n := c.escape(b[i:])
			if n == 0 {
				return -1, false
			}
			i, escaped = i+n, true
		case b[i] < ' ':
			return -1, false
		default:
			begin := i
			for i < len(b) && b[i] >= utf8.RuneSelf {
				i++
			}
			if c.strict && !utf8.Valid(b[begin:i]) {
				return -1, false
			}
		}
	}
}

// ordinary is how many bytes b begins with that stand for themselves in a string:
// ASCII but quotes, backslashes and control characters. It looks at eight at once: of
// those that are something else, the first has its highest bit set in odd.
func ordinary(b []byte) int {
	const ones, highest = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(b); n += 8 {
		eight := binary.LittleEndian.Uint64(b[n:])
		quote, backslash := eight^('"'*ones), eight^('\\'*ones)
		odd := ((quote - ones) | (backslash - ones) | (eight - ' '*ones) | eight) & highest
		if odd != 0 {
			if k := bits.TrailingZeros64(odd) / 8; !isPlain(b[n+k]) {
				return n + k
			}
			break
		}
	}
	for n < len(b) && isPlain(b[n]) {
		n++
	}
	return n
}

func isPlain(b byte) bool { return b >= ' ' && b != '"' && b != '\\' && b < utf8.RuneSelf }

// escape is the length of the escape that b begins with, 0 where it is none.
func (c *checker) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	unit, ok := hexUnit(b)
	switch {
	case !ok:
		return 0
	case !c.strict || unit < 0xd800 || unit > 0xdfff:
		return 6
	}
	low, ok := hexUnit(b[6:])
	if !ok || unit > 0xdbff || low < 0xdc00 || low > 0xdfff {
		return 0
	}
	return 12
}

// hexUnit is the number of the escape \uXXXX that b begins with.
func hexUnit(b []byte) (unit rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, d := range b[2:6] {
		switch {
		case '0' <= d && d <= '9':
			unit = unit<<4 | rune(d-'0')
		case 'a' <= d|0x20 && d|0x20 <= 'f':
			unit = unit<<4 | rune(d|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

// number returns the offset after the number at b[i], or -1.
func (c *checker) number(i int) int {
	b := c.b
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = c.digits(i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = c.digits(i + 1); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return c.digits(i)
	}
	return i
}

// digits returns the offset after the digits at b[i], or -1 where there are none.
func (c *checker) digits(i int) int {
	begin := i
	for i < len(c.b) && '0' <= c.b[i] && c.b[i] <= '9' {
		i++
	}
	if i == begin {
		return -1
	}
	return i
}
