package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"penstock/provider"
)

func TestSplice(t *testing.T) {
	const usage = `"stream_options":{"include_usage":true}`
	tests := []struct {
		name, body, model string
		inject            bool
		want              string
	}{
		{"nothing", `{"model":"a"}`, "", false, `{"model":"a"}`},
		{"same model", `{"model":"a"}`, "a", false, `{"model":"a"}`},
		{"same model, escaped", `{"model":"\u0061\/"}`, "a/", false, `{"model":"\u0061\/"}`},
		{"other model", "{ \"x\" : 12345678901234567890,\t\"model\" : \"a\" , \"é\":1.50e+01}\n", "b", false,
			"{ \"x\" : 12345678901234567890,\t\"model\" : \"b\" , \"é\":1.50e+01}\n"},
		{"model to be escaped", `{"model":"a"}`, "b\"\\\x01é", false, `{"model":"b\"\\\u0001é"}`},
		{"model not UTF-8", `{"model":"a"}`, "b\xff", false, `{"model":"b` + "\uFFFD" + `"}`},
		{"no model", `{"x":1}`, "b", false, `{"x":1,"model":"b"}`},
		{"null model", `{"model":null}`, "b", false, `{"model":"b"}`},
		{"null model stays", `{"model":null}`, "", false, `{"model":null}`},
		{"empty object", ` { } `, "b", false, ` { "model":"b"} `},
		{"empty object, both", `{}`, "b", true, `{"model":"b",` + usage + `}`},
		{"usage", `{"model":"a"}`, "", true, `{"model":"a",` + usage + `}`},
		{"usage, spaced", "{\"model\":\"a\"\n}\n", "", true, "{\"model\":\"a\"\n," + usage + "}\n"},
		{"usage for null", `{"stream_options":null,"model":"a"}`, "", true, `{` + usage + `,"model":"a"}`},
		{"usage in options", `{"stream_options":{"x":[{}]},"model":"a"}`, "b", true, `{"stream_options":{"x":[{}],"include_usage":true},"model":"b"}`},
		{"usage in empty options", `{"model":"a","stream_options":{ }}`, "b", true, `{"model":"b","stream_options":{ "include_usage":true}}`},
		{"usage off", `{"stream_options":{"include_usage":false,"x":1}}`, "", true, `{"stream_options":{"include_usage":true,"x":1}}`},
		{"usage null", `{"stream_options":{"x":1,"include\u005fusage":null}}`, "", true, `{"stream_options":{"x":1,"include\u005fusage":true}}`},
		{"usage on", `{"stream_options":{"include_usage":true}}`, "", true, `{"stream_options":{"include_usage":true}}`},
		{"options and model added", `{"stream_options":{}}`, "b", true, `{"stream_options":{"include_usage":true},"model":"b"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := scanned(t, "/responses", tt.body)
			if err != nil {
				t.Fatal(err)
			}
			checkSpliced(t, c, Splice(c, tt.model, tt.inject), tt.want)
		})
	}
}

// joined is a spliced body in one piece.
func joined(s Spliced) []byte { return append(bytes.Join(s.segs, nil), s.whole...) }

// checkSpliced compares every way to read a spliced body with the wanted one.
func checkSpliced(t rapid.TB, c *provider.Call, got Spliced, want string) {
	if got.Len() != int64(len(want)) {
		t.Fatalf("length %d, want %d", got.Len(), len(want))
	}
	for range 2 { // a second reader begins at the beginning
		read, err := io.ReadAll(got.Reader())
		if err != nil || string(read) != want {
			t.Fatalf("read %q, %v\nwant %q", read, err, want)
		}
	}
	if string(c.Body) == want && len(want) > 0 {
		if got.segs != nil || &got.whole[0] != &c.Body[0] {
			t.Fatalf("an unchanged body was copied")
		}
		if _, ok := got.Reader().(*bytes.Reader); !ok {
			t.Fatalf("an unchanged body is read by a %T", got.Reader())
		}
	}
}

// The model of a path replaces that of the body, so that what is sent is what was
// decided on.
// covers CL-06
func TestSpliceModelOfPath(t *testing.T) {
	for body, want := range map[string]string{`{"model":"other"}`: `{"model":"dep"}`, `{"x":1}`: `{"x":1,"model":"dep"}`, `{"model":"dep"}`: `{"model":"dep"}`} {
		c := &provider.Call{Op: operation(t, "/chat/completions"), Model: "dep", Body: []byte(body)}
		if err := Scan(c, testBounds); err != nil {
			t.Fatal(err)
		}
		checkSpliced(t, c, Splice(c, "", false), want)
	}
}

func TestSpliceForm(t *testing.T) {
	before, after := filePart("file", "\r\n\r\nRIFF"), fieldPart("language", "en")+formEnd
	added := lines("--XX", `Content-Disposition: form-data; name="model"`, "", "new", "")
	tests := []struct {
		name, body, model, want string
		cut                     bool
	}{
		{"same", before + fieldPart("model", "old") + after, "old", before + fieldPart("model", "old") + after, false},
		{"client's", before + fieldPart("model", "old") + after, "", before + fieldPart("model", "old") + after, false},
		{"other", before + fieldPart("model", "old") + after, "new", before + fieldPart("model", "new") + after, false},
		{"none", before + after, "new", added + before + after, false},
		{"none, preamble", "x\r\n" + before + after, "new", "x\r\n" + added + before + after, false},
		{"empty", fieldPart("model", "") + after, "new", added + after, false},
		{"cut, other", fieldPart("model", "old") + before + "--", "new", fieldPart("model", "new") + before + "--", true},
		{"cut, none", before, "new", before, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := scannedForm(t, "/images/edits", formType, tt.body, !tt.cut)
			if err != nil {
				t.Fatal(err)
			}
			checkSpliced(t, c, Splice(c, tt.model, true), tt.want)
		})
	}
	unscanned := &provider.Call{Body: []byte("x")}
	checkSpliced(t, unscanned, Splice(unscanned, "m", true), "x")
	none := &provider.Call{Multipart: true, Body: []byte("--XX\r\n"), Header: http.Header{}}
	checkSpliced(t, none, Splice(none, "m", true), "--XX\r\n")
}

func TestSplicedReader(t *testing.T) {
	c, err := scanned(t, "/responses", `{"model":"a","stream_options":{},"x":"`+strings.Repeat("y", 100_000)+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	s := Splice(c, "a longer name", true)
	if err := iotest.TestReader(s.Reader(), joined(s)); err != nil {
		t.Error(err)
	}
	// Small segments are read together.
	p := make([]byte, 4096)
	if n, err := s.Reader().Read(p); n != len(p) || err != nil {
		t.Errorf("first read %d, %v", n, err)
	}
}

// checkSplice holds for every body that Scan accepts: the result reads as the
// client's body with the model and include_usage changed, scans to just that, and
// is the client's bytes outside the changes.
func checkSplice(t rapid.TB, c *provider.Call, model string, inject bool) {
	out := joined(Splice(c, model, inject))

	want, got := decode(t, c.Body), decode(t, out)
	if sent := firstOf(model, c.Model); sent != "" {
		want["model"] = strings.ToValidUTF8(sent, "\uFFFD")
	}
	if inject {
		options, _ := want["stream_options"].(map[string]any)
		if options == nil {
			options = make(map[string]any)
		}
		options["include_usage"] = true
		want["stream_options"] = options
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\nbecame %q", c.Body, out)
	}

	again := &provider.Call{Op: c.Op, Body: out}
	if err := Scan(again, testBounds); err != nil {
		if len(model) <= maxModel && checkModel(model) == nil {
			t.Fatalf("%q\nbecame %q: %v", c.Body, out, err)
		}
		return
	}
	if again.IncludeUsage != (c.IncludeUsage || inject) || again.Stream != c.Stream || again.InputText != c.InputText || again.MaxOutput != c.MaxOutput {
		t.Fatalf("%q\nscans differently as %q", c.Body, out)
	}
	if inOrder := subsequence(unchanged(c), out); !inOrder {
		t.Fatalf("%q\nlost bytes in %q", c.Body, out)
	}
	if second := Splice(again, model, inject); second.segs != nil {
		t.Fatalf("%q\nis changed a second time", out)
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func decode(t rapid.TB, body []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return m
}

// unchanged returns the stretches of the body outside the model and the options.
func unchanged(c *provider.Call) [][]byte {
	spans := []provider.Span{c.ModelSpan, c.StreamOptions}
	if spans[1].Start < spans[0].Start {
		spans[0], spans[1] = spans[1], spans[0]
	}
	var list [][]byte
	from := 0
	for _, s := range spans {
		if s != (provider.Span{}) {
			list, from = append(list, c.Body[from:s.Start]), s.End
		}
	}
	return append(list, c.Body[from:c.ObjectEnd], c.Body[c.ObjectEnd:])
}

// subsequence reports whether b holds the parts in their order, the first at its
// beginning and the last at its end.
func subsequence(parts [][]byte, b []byte) bool {
	if !bytes.HasPrefix(b, parts[0]) || !bytes.HasSuffix(b, parts[len(parts)-1]) {
		return false
	}
	for _, p := range parts {
		i := bytes.Index(b, p)
		if i < 0 {
			return false
		}
		b = b[i+len(p):]
	}
	return true
}

func TestSpliceProperties(t *testing.T) {
	member := rapid.Custom(func(t *rapid.T) string {
		value := rapid.SampledFrom([]string{
			`1`, `12345678901234567890`, `1.50E+1`, `"é\u00e9"`, `null`, `{"model":"x","stream_options":{}}`, `[ {} ,[]]`, `"}"`, `"{\""`, `"\\"`,
		}).Draw(t, "value")
		return rapid.SampledFrom([]string{`"x"`, `"messages"`, `"é"`, `"}"`, `"stream"`}).Draw(t, "name") + ":" + value
	})
	special := rapid.SampledFrom([]string{
		`"model":"gpt-6"`, `"model" : "a\/\u0062"`, `"model":null`, `"m\u006fdel":"x"`,
		`"stream_options":null`, `"stream_options":{}`, `"stream_options" : { "include_usage" : false , "y" : 1 }`,
		`"stream_options":{"a":{"include_usage":1},"include_usage":true}`, `"stream":true`, `"max_tokens": 5`,
	})
	checked := 0
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.OneOf(special, member), 0, 6).Draw(t, "members")
		space := rapid.SampledFrom([]string{"", " ", "\n\t"}).Draw(t, "space")
		body := space + "{" + space + strings.Join(list, space+","+space) + space + "}" + space
		c := &provider.Call{Op: operations["POST /responses"], Body: []byte(body)}
		if Scan(c, testBounds) != nil {
			return
		}
		checked++
		model := rapid.OneOf(rapid.SampledFrom([]string{"", "gpt-6", "a/b", `q"\`}), rapid.String()).Draw(t, "model")
		checkSplice(t, c, model, rapid.Bool().Draw(t, "inject"))
	})
	if checked == 0 {
		t.Error("no body was accepted, so nothing was checked")
	}
}

func FuzzSplice(f *testing.F) {
	for _, body := range []string{
		`{"model":"gpt-6","messages":[{"role":"user","content":"hi"}],"stream":true}`,
		`{"stream_options":{"include_usage":false},"model":"a\u0062"}`, `{"stream_options":null}`, `{}`, " {\n} ",
		`{"x":12345678901234567890,"y":1e400,"model":null,"stream_options":{"z":"}"}}`,
	} {
		f.Add([]byte(body), "other", true)
		f.Add([]byte(body), "", false)
	}
	f.Fuzz(func(t *testing.T, body []byte, model string, inject bool) {
		c := &provider.Call{Op: operations["POST /responses"], Body: body}
		if err := Scan(c, testBounds); err != nil {
			if !errors.As(err, new(*RequestError)) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		checkSplice(t, c, model, inject)
	})
}

func BenchmarkSplice(b *testing.B) {
	c := &provider.Call{Op: operation(b, "/chat/completions"), Body: chatBody(32<<10, false)}
	if err := Scan(c, testBounds); err != nil {
		b.Fatal(err)
	}
	for name, model := range map[string]string{"unchanged": "", "renamed": "gpt-6-2026-11-18"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := Splice(c, model, model != "")
				if _, err := io.Copy(io.Discard, s.Reader()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
