package openai

import "encoding/binary"

// maxHead bounds the head of an event that is kept, in bytes.
const maxHead = 512

// likeLast is the length of a head, if b begins like it: nothing differs but digits. The
// events of a stream begin alike, with an id, a time and a model; where such a head has
// told nothing, one like it tells nothing either. Digits are in no name that does, and end
// no string.
func likeLast(head, b []byte) int {
	if len(b) < len(head) {
		return 0
	}
	n := 0
	for ; n+8 <= len(head); n += 8 {
		if binary.NativeEndian.Uint64(head[n:]) != binary.NativeEndian.Uint64(b[n:]) && !alike(head[n:n+8], b[n:n+8]) {
			return 0
		}
	}
	if !alike(head[n:], b[n:len(head)]) {
		return 0
	}
	return len(head)
}

// alike reports whether nothing differs but digits.
func alike(a, b []byte) bool {
	for i, c := range a {
		if d := b[i]; c != d && (c-'0' > 9 || d-'0' > 9) {
			return false
		}
	}
	return true
}

// nextMember finds the next member of an object, at any depth, in JSON from offset
// i on. It returns its name, escapes as they are, and the offset of its value,
// which is within b; the name is nil when there is none.
func nextMember(b []byte, i int) (name []byte, value int) {
	for i < len(b) {
		if b[i] != '"' {
			i++
			continue
		}
		start := i + 1
		for i = start; i < len(b) && b[i] != '"'; i++ {
			if b[i] == '\\' {
				i++
			}
		}
		end := i
		for i++; i < len(b) && b[i] <= ' '; i++ {
		}
		if i >= len(b) || b[i] != ':' {
			continue // it was a value
		}
		for i++; i < len(b) && b[i] <= ' '; i++ {
		}
		if i < len(b) {
			return b[start:end], i
		}
	}
	return nil, len(b)
}

// stringLen is the length of a JSON string up to its closing quote.
func stringLen(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(b)
}
