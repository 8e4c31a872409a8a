package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"penstock/provider"
)

const formType = "multipart/form-data; boundary=XX"

// lines joins lines with CRLF.
func lines(l ...string) string { return strings.Join(l, "\r\n") }

// fieldPart is a form field as SDKs send it.
func fieldPart(name, value string) string {
	return lines("--XX", `Content-Disposition: form-data; name="`+name+`"`, "", value, "")
}

func filePart(name, data string) string {
	return lines("--XX", `Content-Disposition: form-data; name="`+name+`"; filename="a.bin"`, "Content-Type: application/octet-stream", "", data, "")
}

const formEnd = "--XX--\r\n"

func scannedForm(t testing.TB, path, contentType, body string, whole bool) (*provider.Call, error) {
	t.Helper()
	c := &provider.Call{Op: operation(t, path), Body: []byte(body), Header: http.Header{"Content-Type": {contentType}}}
	if !whole {
		c.Rest = strings.NewReader("")
	}
	err := ScanMultipart(c, contentType, whole, testBounds)
	if string(c.Body) != body {
		t.Fatal("ScanMultipart changed the body")
	}
	return c, err
}

func TestScanMultipart(t *testing.T) {
	const transcribe, edits = "/audio/transcriptions", "/images/edits"
	long := strings.Repeat("boundary", 8) + "123456"
	tests := []struct {
		name, path, contentType, body string
		model                         string
		stream                        bool
		choices, text, parts          int64
	}{
		{"model first", transcribe, formType, fieldPart("model", "whisper-1") + filePart("file", "RIFF") + formEnd, "whisper-1", false, 1, 0, 2000},
		{"model last", transcribe, formType, filePart("file", "RIFF\r\n\r\n--X\r\n") + fieldPart("stream", "true") + fieldPart("model", "w") + formEnd, "w", true, 1, 0, 2000},
		{"images", edits, formType, filePart("image[]", "a") + filePart("image[]", "b") + filePart("mask", "c") + fieldPart("prompt", "a cat") + fieldPart("n", "3") + fieldPart("stream", "false") + formEnd,
			"", false, 3, 5, 3000},
		{"quoted boundary", transcribe, `multipart/form-data; boundary="a (b)+c=d"; charset=utf-8`,
			strings.ReplaceAll(fieldPart("model", "m")+formEnd, "XX", "a (b)+c=d"), "m", false, 1, 0, 0},
		{"longest boundary", transcribe, "Multipart/Form-Data; BOUNDARY=" + long, strings.ReplaceAll(fieldPart("model", "m")+formEnd, "XX", long), "m", false, 1, 0, 0},
		{"preamble and epilogue", transcribe, formType, "to be ignored --XX\r\n" + fieldPart("model", "m") + formEnd + "as this is", "m", false, 1, 0, 0},
		{"no line end at the end", transcribe, formType, fieldPart("model", "m") + "--XX--", "m", false, 1, 0, 0},
		{"empty model", edits, formType, fieldPart("model", "") + formEnd, "", false, 1, 0, 0},
		{"boundary within a line", transcribe, formType, filePart("file", "x--XX\r\n --XX--\r\n") + fieldPart("model", "m") + formEnd, "m", false, 1, 0, 2000},
		{"unquoted name and other headers", transcribe, formType,
			lines("--XX", "content-type: text/plain", "CONTENT-DISPOSITION:form-data;name=model", "Content-Transfer-Encoding: 8bit", "", "m", "--XX--"), "m", false, 1, 0, 0},
		{"file name in UTF-8", transcribe, formType,
			lines("--XX", `Content-Disposition: form-data; name="file"; filename="é.wav"; filename*=UTF-8''%C3%A9.wav`, "", "x", "") + fieldPart("model", "m") + formEnd, "m", false, 1, 0, 2000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := scannedForm(t, tt.path, tt.contentType, tt.body, true)
			if err != nil {
				t.Fatal(err)
			}
			if c.Model != tt.model || c.Stream != tt.stream || c.Choices != tt.choices || c.InputText != tt.text || c.InputParts != tt.parts || !c.Multipart {
				t.Errorf("model %q stream %v n %d text %d parts %d", c.Model, c.Stream, c.Choices, c.InputText, c.InputParts)
			}
			if got := text(c.Body, c.ModelSpan); got != tt.model {
				t.Errorf("the span reads %q", got)
			}
		})
	}
}

// covers CL-05
// covers CL-06
func TestScanMultipartRefuses(t *testing.T) {
	model := fieldPart("model", "m")
	raw := func(headers ...string) string {
		return lines(append(append([]string{"--XX"}, headers...), "", "x", "")...) + model + formEnd
	}
	const disposition = `Content-Disposition: form-data; name="x"`
	tests := []struct{ name, contentType, body, code, param string }{
		{"twice", formType, model + fieldPart("model", "dear") + formEnd, CodeDuplicateKey, "model"},
		{"stream twice", formType, model + fieldPart("stream", "true") + fieldPart("stream", "true") + formEnd, CodeDuplicateKey, "stream"},
		{"other case", formType, model + fieldPart("Model", "dear") + formEnd, CodeAmbiguousKey, "model"},
		{"long s", formType, model + fieldPart("ſtream", "true") + formEnd, CodeAmbiguousKey, "stream"},
		{"array", formType, model + fieldPart("model[]", "dear") + formEnd, CodeAmbiguousKey, "model"},
		{"blank", formType, model + fieldPart(" model", "dear") + formEnd, CodeAmbiguousKey, "model"},
		{"as a file", formType, filePart("model", "m") + formEnd, CodeAmbiguousKey, "model"},
		{"none", formType, filePart("file", "x") + formEnd, CodeMissingModel, "model"},
		{"empty", formType, fieldPart("model", "") + formEnd, CodeMissingModel, "model"},
		{"long", formType, fieldPart("model", strings.Repeat("m", 2000)) + formEnd, CodeInvalidValue, "model"},
		{"longer than a model", formType, fieldPart("model", strings.Repeat("m", 300)) + formEnd, CodeInvalidValue, "model"},
		{"line end in model", formType, fieldPart("model", "m\r\n") + formEnd, CodeInvalidValue, "model"},
		{"not UTF-8", formType, fieldPart("model", "m\xff") + formEnd, CodeInvalidValue, "model"},
		{"stream as 1", formType, model + fieldPart("stream", "1") + formEnd, CodeInvalidValue, "stream"},
		{"n of 0", formType, model + fieldPart("n", "0") + formEnd, CodeInvalidValue, "n"},
		{"n of -1", formType, model + fieldPart("n", "-1") + formEnd, CodeInvalidValue, "n"},
		{"n of +1", formType, model + fieldPart("n", "+1") + formEnd, CodeInvalidValue, "n"},
		{"n too large", formType, model + fieldPart("n", "1000000") + formEnd, CodeInvalidValue, "n"},
		{"n empty", formType, model + fieldPart("n", "") + formEnd, CodeInvalidValue, "n"},

		{"wrong boundary", "multipart/form-data; boundary=YY", model + formEnd, CodeInvalidMultipart, ""},
		{"no boundary", "multipart/form-data", model + formEnd, CodeInvalidMultipart, ""},
		{"two boundaries", "multipart/form-data; boundary=XX; boundary=YY", model + formEnd, CodeInvalidMultipart, ""},
		{"extended boundary", "multipart/form-data; boundary*=utf-8''XX", model + formEnd, CodeInvalidMultipart, ""},
		{"boundary too long", "multipart/form-data; boundary=" + strings.Repeat("X", 71), model + formEnd, CodeInvalidMultipart, ""},
		{"boundary with a line end", "multipart/form-data; boundary=\"X\\\rX\"", model + formEnd, CodeInvalidMultipart, ""},
		{"mixed", "multipart/mixed; boundary=XX", model + formEnd, CodeInvalidMultipart, ""},
		{"JSON", "application/json", `{"model":"m"}`, CodeInvalidMultipart, ""},
		{"long preamble", formType, strings.Repeat("x", 2000) + "\r\n" + model + formEnd, CodeInvalidMultipart, ""},
		{"no end", formType, model, CodeInvalidMultipart, ""},
		{"cut in the end", formType, model + "--XX-", CodeInvalidMultipart, ""},
		{"empty body", formType, "", CodeInvalidMultipart, ""},
		{"more after the end", formType, model + formEnd + fieldPart("model", "dear") + formEnd, CodeInvalidMultipart, ""},
		{"bare line feeds", formType, strings.ReplaceAll(model+formEnd, "\r\n", "\n"), CodeInvalidMultipart, ""},
		{"boundary after a line feed", formType, filePart("file", "x\n--XX\r\n") + model + formEnd, CodeInvalidMultipart, ""},
		{"boundary after a carriage return", formType, filePart("file", "x\r--XX\r\n") + model + formEnd, CodeInvalidMultipart, ""},
		{"padded boundary", formType, "--XX \r\n" + strings.TrimPrefix(model, "--XX\r\n") + formEnd, CodeInvalidMultipart, ""},
		{"longer boundary in a file", formType, filePart("file", "\r\n--XXY\r\n") + model + formEnd, CodeInvalidMultipart, ""},
		{"empty part", formType, "--XX\r\n" + model + formEnd, CodeInvalidMultipart, ""},
		{"no header", formType, "--XX\r\n\r\nx\r\n\r\n" + model + formEnd, CodeInvalidMultipart, ""},
		{"no disposition", formType, raw("Content-Type: text/plain"), CodeInvalidMultipart, ""},
		{"two dispositions", formType, raw(disposition, `Content-Disposition: form-data; name="model"`), CodeInvalidMultipart, ""},
		{"not form-data", formType, raw(`Content-Disposition: attachment; name="x"`), CodeInvalidMultipart, ""},
		{"no name", formType, raw(`Content-Disposition: form-data`), CodeInvalidMultipart, ""},
		{"two names", formType, raw(`Content-Disposition: form-data; name="x"; name="model"`), CodeInvalidMultipart, ""},
		{"extended name", formType, raw(`Content-Disposition: form-data; name="x"; NAME*=utf-8''model`), CodeInvalidMultipart, ""},
		{"name in pieces", formType, raw(`Content-Disposition: form-data; name*0="mod"; name*1="el"`), CodeInvalidMultipart, ""},
		{"backslash in name", formType, raw(`Content-Disposition: form-data; name="mo\del"`), CodeInvalidMultipart, ""},
		{"folded header", formType, raw(`Content-Disposition: form-data;`, ` name="model"`), CodeInvalidMultipart, ""},
		{"blank before the colon", formType, raw(disposition, `Content-Disposition : form-data; name="model"`), CodeInvalidMultipart, ""},
		{"line feed in a header", formType, raw(disposition + "\nContent-Disposition: form-data; name=model"), CodeInvalidMultipart, ""},
		{"no colon", formType, raw(disposition, "x"), CodeInvalidMultipart, ""},
		{"huge header", formType, raw(disposition, "X: "+strings.Repeat("x", 9<<10)), CodeInvalidMultipart, ""},
		{"encoded model", formType, lines("--XX", `Content-Disposition: form-data; name="model"`, "Content-Transfer-Encoding: base64", "", "bQ==", "--XX--"), CodeInvalidMultipart, ""},
		{"too many parts", formType, strings.Repeat(fieldPart("x", "y"), 1001) + model + formEnd, CodeInvalidMultipart, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := scannedForm(t, "/audio/transcriptions", tt.contentType, tt.body, true)
			wantRefusal(t, err, tt.code, tt.param)
		})
	}
	_, err := scannedForm(t, "/chat/completions", formType, model+formEnd, true)
	wantRefusal(t, err, CodeInvalidMultipart, "")
}

// The beginning of a form is read wherever it is cut: a field is either found as
// in the whole form or not at all, and nothing is an error.
func TestScanMultipartCut(t *testing.T) {
	body := fieldPart("stream", "true") + filePart("file", "RIFF--XX\r\n--X") + fieldPart("model", "whisper-1") + fieldPart("language", "en") + formEnd
	for n := range len(body) + 1 {
		c, err := scannedForm(t, "/audio/transcriptions", formType, body[:n], false)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if c.Model != "" && c.Model != "whisper-1" {
			t.Fatalf("cut at %d: model %q", n, c.Model)
		}
		if known := strings.LastIndex(body[:n], "--XX\r\n") > strings.Index(body, "whisper-1"); known && c.Model == "" {
			t.Fatalf("cut at %d: no model", n)
		}
	}
	for _, bad := range []string{strings.Repeat("x", 2000), "x\n--XX\r\n", fieldPart("Model", "m"), filePart("model", "m"), "--XX\r\n" + strings.Repeat("x", 9<<10)} {
		if _, err := scannedForm(t, "/audio/transcriptions", formType, bad, false); err == nil {
			t.Errorf("%.40q is accepted", bad)
		}
	}
}

// covers RES-05
func TestScanMultipartIsLinear(t *testing.T) {
	const size = 4 << 20
	dashes := strings.Repeat("-", 68)
	bodies := map[string][2]string{
		"file":       {"XX", filePart("file", strings.Repeat("a", size))},
		"dashes":     {dashes, filePart("file", strings.Repeat("-", size))},
		"one dash":   {"-", filePart("file", strings.Repeat("-", size))},
		"line ends":  {"XX", filePart("file", strings.Repeat("\r\n", size/2))},
		"boundaries": {"XX", filePart("file", strings.Repeat(" --XX", size/5))},
		"parts":      {"XX", strings.Repeat(fieldPart("x", "y"), size/60)},
	}
	for name, bb := range bodies {
		t.Run(name, func(t *testing.T) {
			body := []byte(strings.ReplaceAll(bb[1], "--XX\r\nC", "--"+bb[0]+"\r\nC") + "--" + bb[0] + "--")
			best := cost(func() {
				c := &provider.Call{Op: operation(t, "/images/edits"), Body: body}
				if err := ScanMultipart(c, "multipart/form-data; boundary="+bb[0], true, testBounds); err != nil && !errors.As(err, new(*RequestError)) {
					t.Fatal(err)
				}
			})
			if best > limitForRace(200*time.Millisecond) {
				t.Errorf("took %v", best)
			}
		})
	}
}

// readForm reads the deciding fields with mime/multipart.
func readForm(body []byte, boundary string) (map[string][]string, error) {
	fields := make(map[string][]string)
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		if p.FileName() != "" {
			continue
		}
		fields[p.FormName()] = append(fields[p.FormName()], string(value))
	}
}

// Forms that SDKs write are accepted; and of whatever is accepted, mime/multipart
// reads the same.
// covers CL-06
func FuzzMultipart(f *testing.F) {
	for _, seed := range []string{
		fieldPart("model", "m") + filePart("file", "RIFF") + formEnd,
		filePart("file", "\r\n\r\n--XX") + fieldPart("stream", "true") + fieldPart("n", "2") + fieldPart("model", "m") + formEnd,
		"preamble\r\n" + fieldPart("model", "m") + "--XX--\r\nepilogue",
		fieldPart("Model", "m") + formEnd, fieldPart("model", "a") + fieldPart("model", "b") + formEnd,
		lines("--XX", "Content-Disposition: form-data; name*=utf-8''model", "", "m", "--XX--"),
		lines("--XX", "Content-Disposition: form-data; name=model; filename*=x", "Content-Transfer-Encoding: quoted-printable", "", "m=3D", "--XX--"),
		"--XX\n\n--XX--", "--XX \r\n", "--XX\r\n--XX\r\n--XX--", lines("--XX", "a: b", "", "--XX--"),
	} {
		f.Add([]byte(seed), "XX")
	}
	f.Fuzz(func(t *testing.T, body []byte, boundary string) { checkAgainstMime(t, body, boundary) })
}

// The same for forms made of pieces that parsers stumble over.
// covers CL-06
func TestScanMultipartAgrees(t *testing.T) {
	header := rapid.SampledFrom([]string{
		`Content-Disposition: form-data; name="model"`, `content-disposition:form-data;name=model`, `Content-Disposition: form-data; name="Model"`,
		`Content-Disposition: form-data; name="stream"`, `Content-Disposition: form-data; NAME="n"`, `Content-Disposition: form-data; name=""`,
		`Content-Disposition: form-data; name="file"; filename="a"`, `Content-Disposition: form-data; name="model"; filename=""`,
		"Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: quoted-printable", "Content-Type: text/plain",
		"Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: quoted-printable",
	})
	value := rapid.SampledFrom([]string{"", "gpt-6", "true", "2", "m=3D", "\r\n", "--XX", "\r\n--XX", "\n--XX\r\n", "\r\n\r\n", "a--XX--\r\n", "--"})
	delimiter := rapid.SampledFrom([]string{"--XX\r\n", "--XX\r\n", "--XX\r\n", "--XX\r\n", "--XX \r\n", "--XX\n", "--XX--\r\n"})
	end := rapid.SampledFrom([]string{"--XX--\r\n", "--XX--", "--XX--\r\n", "--XX--\r\nepilogue", "--XX-", ""})
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		var body string
		if rapid.Bool().Draw(t, "plain start") { // or else hardly any form is one
			body = "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-6\r\n"
		}
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			body += delimiter.Draw(t, "delimiter") + header.Draw(t, "header") + "\r\n\r\n" + value.Draw(t, "value") + "\r\n"
		}
		body += end.Draw(t, "end")
		if checkAgainstMime(t, []byte(body), "XX") {
			accepted++
		}
	})
	if accepted == 0 {
		t.Error("no form was accepted, so nothing was compared")
	}
}

// checkAgainstMime fails if a form is accepted of which mime/multipart reads
// anything else. It reports whether the form is accepted.
func checkAgainstMime(t rapid.TB, body []byte, boundary string) bool {
	c := &provider.Call{Op: operations["POST /images/edits"], Body: bytes.Clone(body)}
	err := ScanMultipart(c, fmt.Sprintf("multipart/form-data; boundary=%q", boundary), true, testBounds)
	if !bytes.Equal(c.Body, body) {
		t.Fatal("ScanMultipart changed the body")
	}
	if err != nil {
		if !errors.As(err, new(*RequestError)) {
			t.Fatalf("error of type %T", err)
		}
		return false
	}
	fields, err := readForm(body, boundary)
	if err != nil {
		t.Fatalf("mime/multipart refuses what was accepted: %v", err)
	}
	one := func(name, none string) string {
		switch v := fields[name]; len(v) {
		case 0:
			return none
		case 1:
			return v[0]
		}
		t.Fatalf("%s occurs twice", name)
		return ""
	}
	if model := one("model", ""); c.Model != model || text(c.Body, c.ModelSpan) != model {
		t.Fatalf("model %q, mime/multipart sees %q", c.Model, model)
	}
	if stream := one("stream", "false"); fmt.Sprint(c.Stream) != stream {
		t.Fatalf("stream %v, mime/multipart sees %q", c.Stream, stream)
	}
	if n := strings.TrimLeft(one("n", "1"), "0"); fmt.Sprint(c.Choices) != n {
		t.Fatalf("n %d, mime/multipart sees %q", c.Choices, n)
	}
	for name := range fields {
		if meant := decidingFormField(name); meant != "" && meant != name {
			t.Fatalf("%q was accepted", name)
		}
	}
	checkFormSplice(t, c, boundary, fields)
	return true
}

// checkFormSplice fails unless a form with another model reads as the same form but
// for the model, and is the client's bytes but for it.
func checkFormSplice(t rapid.TB, c *provider.Call, boundary string, fields map[string][]string) {
	const model = "another-model"
	c.Header = http.Header{"Content-Type": {fmt.Sprintf("multipart/form-data; boundary=%q", boundary)}}
	out := joined(Splice(c, model, true))
	if _, err := multipart.NewReader(bytes.NewReader(c.Body), boundary).NextPart(); errors.Is(err, io.EOF) {
		if !bytes.Equal(out, c.Body) {
			t.Fatalf("%q, a form without parts, became %q", c.Body, out)
		}
		return
	}
	got, err := readForm(out, boundary)
	if err != nil {
		t.Fatalf("%q\nbecame %q: %v", c.Body, out, err)
	}
	want := maps.Clone(fields)
	want["model"] = []string{model}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\nbecame %q: %v, want %v", c.Body, out, got, want)
	}
	if at := c.ModelSpan; at != (provider.Span{}) {
		if string(out) != string(c.Body[:at.Start])+model+string(c.Body[at.End:]) {
			t.Fatalf("%q\nbecame %q", c.Body, out)
		}
		return
	}
	for n := range len(c.Body) + 1 { // one part was added, somewhere
		if bytes.HasPrefix(out, c.Body[:n]) && bytes.HasSuffix(out, c.Body[n:]) {
			return
		}
	}
	t.Fatalf("%q\nlost bytes in %q", c.Body, out)
}

// What the standard library writes is accepted and read back.
func FuzzMultipartWriter(f *testing.F) {
	f.Add("whisper-1", "meeting.wav", []byte("RIFF"), "en")
	f.Add("m", `a "quoted" \ name.mp3`, []byte("\r\n--"), "")
	f.Fuzz(func(t *testing.T, model, fileName string, data []byte, language string) {
		if model == "" || checkModel(model) != nil || strings.Contains(strings.ToLower(fileName), "name*") {
			return
		}
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, err := w.CreateFormFile("file", fileName)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(data); err != nil {
			t.Fatal(err)
		}
		for _, field := range [][2]string{{"language", language}, {"model", model}, {"stream", "true"}} {
			if err := w.WriteField(field[0], field[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := readForm(body.Bytes(), w.Boundary()); err != nil {
			return
		}
		c := &provider.Call{Op: operation(t, "/audio/transcriptions"), Body: body.Bytes()}
		if err := ScanMultipart(c, w.FormDataContentType(), true, testBounds); err != nil {
			// A file name with control characters breaks its own header.
			if strings.ContainsFunc(fileName, isControl) {
				return
			}
			t.Fatal(err)
		}
		if c.Model != model || !c.Stream || c.InputParts != testBounds.Audio {
			t.Fatalf("model %q stream %v parts %d", c.Model, c.Stream, c.InputParts)
		}
	})
}
