package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// Both parsers beside which the checker is judged: one is as strict, the other, of the
// standard library, as lenient.
func strictDecoder(b []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewBuffer(b))
	if dec.SkipValue() != nil {
		return false
	}
	_, err := dec.ReadToken()
	return errors.Is(err, io.EOF)
}

func checkChecker(t *testing.T, b []byte) {
	t.Helper()
	if got, want := strictJSON(b, decoderDepth), strictDecoder(b); got != want {
		t.Errorf("%q: strict is %v, another parser says %v", b, got, want)
	}
	if got, want := validJSON(b), json.Valid(b); got != want {
		t.Errorf("%q: valid is %v, encoding/json says %v", b, got, want)
	}
}

// covers CL-06, RES-04
func TestChecker(t *testing.T) {
	values := []string{
		`{}`, `[]`, `""`, `0`, `-0`, `-`, `01`, `1.`, `.1`, `1.5e`, `1e+`, `1E-07`, `12.25e+3`, `+1`, `1x`, `tru`, `true`, `truex`, `null`, `nul`, `false`, `NaN`, ``,
		`[1,]`, `[,1]`, `[1 2]`, `[1,2`, `[`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{a:1}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":1]`, `[1}`, `}`, `]`,
		`"a`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u00e9"`, `"\ud83d"`, `"\ud83d\ude00"`, `"\ude00"`, `"\ud83d\ud83d"`, `"\ud83dx"`, `"\uD83D\uDE00\n"`, `"\b\f\n\r\t\/\\\""`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"a":1},"b":{"a":1}}`, `{"x":{"a":1,"a":1}}`, `[{"a":1},{"a":1}]`, `{"":1,"":1}`,
		"\"a\nb\"", "\"a\x00b\"", "\"a\x7fb\"", "\"\xff\"", "\"\xc3\xa9\"", "\"\xe6\xb0\"", "\"\xe6\xb0\xb4\"", "\"\xed\xa0\x80\"", "{\"\xff\":1}", "\xef\xbb\xbf{}", "\x00", " \t\r\n{ \"a\" : [ 1 , 2 ] } \n", "1\x0b", "{}{}", "{} x",
	}
	for _, v := range values {
		checkChecker(t, []byte(v))
		checkChecker(t, []byte(`{"k": `+v+`, "l": [`+v+`]}`))
	}
	// Strings are looked at in pieces of eight bytes: each odd one at each place.
	for odd := range 256 {
		for at := range 20 {
			text := []byte(`"` + strings.Repeat("a", 20) + `"`)
			text[1+at] = byte(odd)
			checkChecker(t, text)
		}
	}
	for _, n := range []int{1, 30, 31, 32, 33, 100} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"key%d":{"key%d":0},`, i, i)
		}
		for _, last := range []string{"other", "key0", fmt.Sprint("key", n-1)} {
			checkChecker(t, []byte("{"+b.String()+`"`+last+`":0}`))
		}
	}
}

func TestCheckerDepth(t *testing.T) {
	ends := map[string]string{"[": "]", `{"a":`: "}"}
	for _, c := range []struct {
		n, depth int
		want     bool
	}{{1, 1, true}, {2, 1, false}, {256, 256, true}, {257, 256, false}} {
		for open := range ends {
			b := strings.Repeat(open, c.n) + "1" + strings.Repeat(ends[open], c.n)
			if got := strictJSON([]byte(b), c.depth); got != c.want {
				t.Errorf("%d of %q within %d: %v", c.n, open, c.depth, got)
			}
		}
	}
}

// covers CL-06
func FuzzChecker(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e7,true,null,"x\u00e9\ud83d\ude00"],"b":{"a":1}}`, `{"a":1,"\u0061":2}`, "[\"\xff\xe6\xb0\xb4 and more text\"]", `"long enough for eight bytes at once\n"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(checkChecker)
}
