package openai

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"penstock/provider"
)

// rest reads what FormRest passes of a form that is cut after n bytes, one byte or
// many at a time.
func rest(t *testing.T, body string, n int, slow bool) (string, error) {
	t.Helper()
	c, err := scannedForm(t, "/audio/transcriptions", formType, body[:n], false)
	if err != nil {
		return "", err
	}
	var follows io.Reader = strings.NewReader(body[n:])
	if slow {
		follows = iotest.OneByteReader(follows)
	}
	r, err := FormRest(c, formType, follows)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// covers CL-06, SEC-07: wherever a form is cut, what is sent on behind the beginning
// that was read decides nothing, and is complete.
func TestFormRest(t *testing.T) {
	model, file := fieldPart("model", "m"), filePart("file", "RIFF\r\n-XX\r\n--X\r --XX --XX--")
	tests := []struct {
		name, body string
		valid      bool
	}{
		{"plain", model + file + fieldPart("language", "en") + formEnd, true},
		{"preamble", "x\r\n" + model + file + formEnd, true},
		{"two models", model + file + fieldPart("model", "dear") + formEnd, false},
		{"model in another case", model + file + fieldPart("MODEL", "dear") + formEnd, false},
		{"an element of model", model + file + fieldPart("model[]", "dear") + formEnd, false},
		{"model as a file", model + file + filePart("model", "dear") + formEnd, false},
		{"a boundary after a line feed", model + filePart("file", "x\n"+fieldPart("model", "dear")) + formEnd, false},
		{"a longer boundary", model + filePart("file", "\r\n--XXY\r\n") + formEnd, false},
		{"more behind the end", model + file + formEnd + fieldPart("model", "dear"), false},
		{"no end", model + file, false},
		{"no name", model + file + "--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + formEnd, false},
		{"an endless header", model + file + "--XX\r\nX: " + strings.Repeat("x", maxPartHeader) + "\r\n\r\nx\r\n" + formEnd, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := scannedForm(t, "/audio/transcriptions", formType, tt.body, true); (err == nil) != tt.valid {
				t.Fatalf("as a whole: %v", err)
			}
			for n := 0; n <= len(tt.body); n += 1 + len(tt.body)/1000 {
				for _, slow := range []bool{false, true} {
					got, err := rest(t, tt.body, n, slow)
					decided := n >= strings.Index(tt.body, model)+len(model)+len("--XX\r\n")
					if tt.valid && decided && (err != nil || got != tt.body[n:]) {
						t.Fatalf("cut at %d: %v", n, err)
					}
					if !tt.valid && err == nil {
						t.Fatalf("cut at %d: %q passed", n, got)
					}
					if strings.Contains(got, "dear") && !strings.Contains(tt.name, "file") && tt.name != "more behind the end" {
						t.Fatalf("cut at %d: %q came before the error", n, got)
					}
				}
			}
		})
	}
}

// A field that decides and has not come as a whole is not guessed at.
func TestFormRestBehind(t *testing.T) {
	for _, c := range []struct{ begin, rest, code, param string }{
		{filePart("file", "x"), fieldPart("model", "m") + formEnd, CodeInvalidMultipart, "model"},
		{fieldPart("model", "m") + filePart("file", "x"), fieldPart("stream", "true") + formEnd, CodeInvalidMultipart, "stream"},
		{fieldPart("model", "m") + strings.TrimSuffix(fieldPart("n", "1"), "\r\n"), "28\r\n" + formEnd, CodeInvalidMultipart, "n"},
		{fieldPart("model", "m"), formEnd, CodeInvalidMultipart, "model"},
		{fieldPart("model", "m") + filePart("file", "x"), fieldPart("model", "m") + formEnd, CodeDuplicateKey, "model"},
		{fieldPart("model", "m") + filePart("file", "x"), fieldPart("Stream", "true") + formEnd, CodeAmbiguousKey, "stream"},
	} {
		_, err := rest(t, c.begin+c.rest, len(c.begin), false)
		wantRefusal(t, err, c.code, c.param)
	}
}

// FormRest holds little of what passes, however long it is.
func TestFormRestHoldsLittle(t *testing.T) {
	begin := fieldPart("model", "m") + strings.TrimSuffix(filePart("file", "x"), "\r\n")
	r := rand.NewChaCha8([32]byte{})
	follows := io.MultiReader(io.LimitReader(r, 8<<20), strings.NewReader("\r\n"+formEnd))
	got, err := FormRest(&provider.Call{Body: []byte(begin)}, formType, follows)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, got, make([]byte, 32<<10))
	if f := got.(*formRest); err != nil || n != 8<<20+int64(len("\r\n"+formEnd)) || cap(f.held) > 128<<10 {
		t.Errorf("%d bytes, %v, room for %d is held", n, err, cap(f.held))
	}
}

// FuzzFormRest checks that a form which passes in two parts is one that passes as a
// whole, and that both say the same of it.
func FuzzFormRest(f *testing.F) {
	model, file := fieldPart("model", "m"), filePart("file", "RIFF\r\n--X")
	for _, body := range []string{model + file + formEnd, model + file + fieldPart("model", "x") + formEnd, file + model + formEnd, model + "--XX\r\n\r\n", "--XX--"} {
		f.Add([]byte(body), len(body)/2)
	}
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if n < 0 || n > len(body) || bytes.Contains(body, []byte("\x00")) {
			return
		}
		got, err := rest(t, string(body), n, n%2 == 0)
		if err != nil {
			return
		}
		if got != string(body[n:]) {
			t.Fatalf("%q became %q", body[n:], got)
		}
		begin, _ := scannedForm(t, "/audio/transcriptions", formType, string(body[:n]), false)
		whole, err := scannedForm(t, "/audio/transcriptions", formType, string(body), true)
		if begin.Model == "" {
			return // refused by who asks for it
		}
		if err != nil || begin.Model != whole.Model || begin.Stream != whole.Stream || begin.Choices != whole.Choices {
			t.Fatalf("cut at %d of %q: %v, %q and %q", n, body, err, begin.Model, whole.Model)
		}
	})
}
