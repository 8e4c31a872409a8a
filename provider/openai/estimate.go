package openai

import (
	"bytes"

	"penstock/provider"
)

// A tally is the input found so far.
type tally struct {
	text  int64 // bytes of text
	parts int64 // tokens of images, audio, files and token numbers
}

func (t *tally) add(u tally) {
	t.text += u.text
	t.parts = saturatingAdd(t.parts, u.parts)
}

// A walker goes through JSON that has been validated, and does not check it
// again. It adds up what a model reads.
//
// Text is the bytes between the quotes of every string, an escape counting as
// the byte that it stands for. \uXXXX counts as 3 bytes, half a surrogate pair as
// 2, which is what most text outside ASCII takes in UTF-8.
//
// An object whose "type" says image, audio or file counts as one part of that
// kind, and the strings that carry its data or address count as no text. Each
// number in an array counts as one token: prompts and inputs may be sent as token
// numbers.
type walker struct {
	b        []byte
	lim      *Bounds
	names    bool // count object names too, as in JSON schemas; then no part is recognised
	maxDepth int
	tooDeep  bool // something was nested deeper than maxDepth and not counted
}

// value walks over the value that starts at b[i], which is nested in depth
// others. It returns the offset after it.
func (w *walker) value(i, depth int) (int, tally) {
	if depth > w.maxDepth {
		w.tooDeep = true
		return len(w.b), tally{}
	}
	switch w.b[i] {
	case '"':
		end, size := stringEnd(w.b, i)
		return end, tally{text: size}
	case '{':
		return w.object(i, depth)
	case '[':
		return w.array(i, depth)
	}
	return scalarEnd(w.b, i), tally{}
}

func (w *walker) array(i, depth int) (int, tally) {
	var sum tally
	for i = skipSpace(w.b, i+1); i < len(w.b) && w.b[i] != ']'; i = nextElement(w.b, i) {
		if c := w.b[i]; c == '-' || '0' <= c && c <= '9' {
			sum.parts = saturatingAdd(sum.parts, 1)
		}
		var t tally
		i, t = w.value(i, depth+1)
		sum.add(t)
	}
	return i + 1, sum
}

func (w *walker) object(i, depth int) (int, tally) {
	var sum tally
	var part int64    // tokens of the part that this object is
	var isPart bool   // whether it is one
	var carried int64 // bytes of text that would be the part's data
	for i = skipSpace(w.b, i+1); i < len(w.b) && w.b[i] != '}'; i = nextElement(w.b, i) {
		end, size := stringEnd(w.b, i)
		name := w.b[i:end]
		i = skipSpace(w.b, skipSpace(w.b, end)+1)
		start := i
		var t tally
		i, t = w.value(i, depth+1)
		sum.add(t)
		switch {
		case w.names:
			sum.text += size
		case string(name) == `"type"` && i <= len(w.b):
			part, isPart = w.part(w.b[start:i])
		case carriesData(name):
			carried += t.text
		}
	}
	if isPart {
		sum.text -= carried
		sum.parts = saturatingAdd(sum.parts, part)
	}
	return i + 1, sum
}

// part returns the tokens of a part of the given type, a quoted string. The types
// are those of chat content, of Responses items, and of servers that copy them.
func (w *walker) part(kind []byte) (tokens int64, ok bool) {
	switch string(kind) {
	case `"image_url"`, `"input_image"`, `"image"`, `"image_file"`, `"computer_screenshot"`, `"image_generation_call"`:
		return w.lim.Image, true
	case `"input_audio"`, `"audio_url"`, `"audio"`:
		return w.lim.Audio, true
	case `"file"`, `"input_file"`, `"video_url"`:
		return w.lim.File, true
	}
	return 0, false
}

// carriesData reports whether a member of a typed part holds its data or address.
func carriesData(name []byte) bool {
	switch string(name) {
	case `"image_url"`, `"image_file"`, `"file"`, `"file_data"`, `"file_url"`, `"file_id"`, `"filename"`, `"input_audio"`,
		`"audio"`, `"audio_url"`, `"video_url"`, `"image"`, `"source"`, `"data"`, `"url"`, `"result"`:
		return true
	}
	return false
}

// count returns the number of elements of the array at b[i], and the first byte
// of the first element.
func count(b []byte, i int) (n int64, first byte) {
	for i = skipSpace(b, i+1); i < len(b) && b[i] != ']'; i = nextElement(b, i) {
		if n == 0 {
			first = b[i]
		}
		n++
		i = skipValue(b, i)
	}
	return n, first
}

// members calls fn with each member of the object at b[i]: its quoted name and
// the span of its value. It stops when fn reports false.
func members(b []byte, i int, fn func(name []byte, value provider.Span) bool) {
	for i = skipSpace(b, i+1); i < len(b) && b[i] != '}'; i = nextElement(b, i) {
		end := skipString(b, i)
		name := b[i:end]
		i = skipSpace(b, skipSpace(b, end)+1)
		start := i
		i = skipValue(b, i)
		if !fn(name, provider.Span{Start: start, End: i}) {
			return
		}
	}
}

// skipValue returns the offset after the value at b[i]. It needs no recursion:
// brackets outside strings are balanced in validated JSON.
func skipValue(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ' ', '\t', '\r', '\n', ',', ':':
			i++
			continue
		default:
			i = scalarEnd(b, i)
		}
		if depth == 0 {
			return i
		}
	}
	return len(b)
}

// skipString returns the offset after the string whose opening quote is b[i].
func skipString(b []byte, i int) int {
	for {
		i += 1 + bytes.IndexByte(b[i+1:], '"')
		begin := i
		for b[begin-1] == '\\' {
			begin--
		}
		if (i-begin)%2 == 0 { // or else the quote is escaped
			return i + 1
		}
	}
}

// stringEnd returns the offset after the string whose opening quote is b[i], and
// the size of its text. See walker for how escapes count.
func stringEnd(b []byte, i int) (end int, size int64) {
	i++
	quote := i + bytes.IndexByte(b[i:], '"')
	for {
		k := bytes.IndexByte(b[i:quote], '\\')
		if k < 0 {
			return quote + 1, size + int64(quote-i)
		}
		size += int64(k)
		i += k
		switch {
		case b[i+1] != 'u':
			size++
			i += 2
		case b[i+2]|0x20 == 'd' && b[i+3] >= '8': // U+D800 to U+DFFF
			size += 2
			i += 6
		default:
			size += 3
			i += 6
		}
		if i > quote { // the quote was escaped
			quote = i + bytes.IndexByte(b[i:], '"')
		}
	}
}

// scalarEnd returns the offset after the number or literal at b[i].
func scalarEnd(b []byte, i int) int {
	for i < len(b) {
		switch b[i] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return i
		}
		i++
	}
	return i
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// nextElement returns the offset of what follows the value that ends at b[i]:
// the next element or member, or the closing bracket.
func nextElement(b []byte, i int) int {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == ',' {
		i = skipSpace(b, i+1)
	}
	return i
}
