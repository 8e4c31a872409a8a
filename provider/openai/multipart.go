package openai

import (
	"bytes"
	"mime"
	"strings"

	"penstock/provider"
)

const (
	maxField      = 1 << 10 // bytes of a deciding form field
	maxPreamble   = 1 << 10 // bytes before the first boundary
	maxPartHeader = 8 << 10 // bytes of the header of a part
	maxParts      = 1000    // parts of a form
)

// formFields are the form fields that decide.
var formFields = []string{keyModel, keyStream, keyChoices}

// ScanMultipart reads a multipart/form-data body and fills Multipart, Model,
// ModelSpan, Stream, Choices, InputText (of "prompt") and InputParts (images and
// audio) of the call. Files are passed over, never copied. The order of fields
// does not matter. A model that the call already has, from its path, stays.
//
// With whole false, Body is only the beginning of the form. What it does not hold
// is then unknown: the model may be empty although the operation needs one, and a
// field may come again in the rest. The caller decides.
//
// The error is a *RequestError. Forms are read strictly by RFC 7578 and RFC 2046
// with CRLF line ends; what servers are known to read differently is refused:
// bare line feeds at a boundary, folded or repeated part headers, name*=, parts
// with a transfer encoding, deciding fields that come twice, as a file or in
// another case.
//
// Operations that take no form are refused. ScanMultipart is safe for concurrent
// use with different calls.
func ScanMultipart(c *provider.Call, contentType string, whole bool, lim Bounds) error {
	if !formOperations[c.Op.Name] {
		return badForm("this operation takes JSON, not a form")
	}
	boundary, err := formBoundary(contentType)
	if err != nil {
		return err
	}
	c.Multipart = true
	c.Choices = 1
	f := form{call: c, lim: lim, dash: []byte("--" + boundary), whole: whole, seen: make(map[string]bool, len(formFields))}
	if err := f.scan(); err != nil {
		return err
	}
	if whole && c.Op.Model == provider.ModelRequired && c.Model == "" {
		return errMissingModel()
	}
	return nil
}

// formBoundary takes the boundary out of a Content-Type.
func formBoundary(contentType string) (string, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" || strings.Contains(strings.ToLower(contentType), "boundary*") {
		return "", badForm("the Content-Type is not multipart/form-data with one boundary")
	}
	boundary := params["boundary"]
	if boundary == "" || len(boundary) > 70 || strings.HasSuffix(boundary, " ") {
		return "", badForm("the boundary is not 1 to 70 characters, ending in no space")
	}
	for i := range len(boundary) {
		if b := boundary[i]; !isAlphanumeric(b) && !strings.ContainsRune("'()+_,-./:=? ", rune(b)) {
			return "", badForm("the boundary contains a character that RFC 2046 does not allow")
		}
	}
	return boundary, nil
}

func badForm(format string, args ...any) *RequestError {
	return reject(CodeInvalidMultipart, "", format, args...)
}

// A form is a multipart body being scanned.
type form struct {
	call  *provider.Call
	lim   Bounds
	dash  []byte // "--" and the boundary
	whole bool
	seen  map[string]bool // deciding fields so far
}

// A delimiter is one boundary line.
type delimiter struct {
	start int  // end of the part before it: the offset of its leading CRLF
	end   int  // start of the part after it
	last  bool // it closes the form
	cut   bool // there is no further one in this beginning of a form
}

func (f *form) scan() error {
	d, err := f.next(0)
	if err == nil && (d.start > maxPreamble || d.cut && len(f.call.Body) > maxPreamble+len(f.dash)+2) {
		return badForm("the form does not begin with its boundary")
	}
	for parts := 0; err == nil && !d.last && !d.cut; parts++ {
		if parts == maxParts {
			return badForm("the form has more than %d parts", maxParts)
		}
		begin := d.end
		if d, err = f.next(begin); err != nil {
			break
		}
		end := d.start
		if d.cut {
			end = len(f.call.Body)
		}
		if err := f.part(begin, end, d.cut); err != nil {
			return err
		}
	}
	if err != nil || !d.last {
		return err
	}
	// What follows the form is ignored by RFC 2046; a boundary there is not.
	if more, err := f.line(d.end); err != nil || !more.cut {
		return badForm("the form goes on after its closing boundary")
	}
	return nil
}

// next finds the next boundary line at or after offset from.
func (f *form) next(from int) (delimiter, error) {
	d, err := f.line(from)
	if err == nil && d.cut && f.whole {
		return d, badForm("the closing boundary is missing")
	}
	return d, err
}

// line finds the next boundary line. A line that only begins like one is an
// error: some servers would take it for one.
func (f *form) line(from int) (delimiter, error) {
	body := f.call.Body
	for {
		i := bytes.Index(body[from:], f.dash)
		if i < 0 {
			return delimiter{cut: true}, nil
		}
		at, end := from+i, from+i+len(f.dash)
		if at > 0 && body[at-1] != '\n' && body[at-1] != '\r' {
			from = end // within a line; the boundary holds no line end, so no other can begin in it
			continue
		}
		start := max(at-2, 0)
		if at > 0 && string(body[start:at]) != "\r\n" {
			return delimiter{}, badForm("a boundary line does not follow CRLF")
		}
		tail := body[end:min(end+4, len(body))]
		switch {
		case bytes.HasPrefix(tail, []byte("\r\n")):
			return delimiter{start: start, end: end + 2}, nil
		case string(tail) == "--", bytes.HasPrefix(tail, []byte("--\r\n")):
			return delimiter{start: start, end: end + 2, last: true}, nil
		case !f.whole && (string(tail) == "\r" || strings.HasPrefix("--\r\n", string(tail))):
			return delimiter{cut: true}, nil
		}
		return delimiter{}, badForm("a line begins like the boundary and is none; choose a longer boundary")
	}
}

// part reads the part in Body[begin:end], whose end is unknown if it is cut.
func (f *form) part(begin, end int, cut bool) error {
	body := f.call.Body
	if end < begin {
		return badForm("a part is empty")
	}
	head, _, found := bytes.Cut(body[begin:min(end, begin+maxPartHeader)], []byte("\r\n\r\n"))
	switch {
	case !found && cut && end-begin < maxPartHeader:
		return nil
	case !found:
		return badForm("a part has no complete header of at most %d bytes", maxPartHeader)
	}
	p, err := parsePart(string(head))
	if err != nil {
		return err
	}
	span := provider.Span{Start: begin + len(head) + 4, End: end}
	if p.file {
		f.countFile(p.name)
	} else if p.name == "prompt" {
		f.call.InputText += int64(span.End - span.Start)
	}
	meant := decidingFormField(p.name)
	if meant == "" {
		return nil
	}
	switch {
	case p.name != meant || p.file:
		return errAmbiguous(meant)
	case f.seen[meant]:
		return errDuplicate(meant)
	case span.End-span.Start > maxField:
		return reject(CodeInvalidValue, meant, "%s is longer than %d bytes", meant, maxField)
	case cut:
		return nil
	}
	f.seen[meant] = true
	return f.decide(meant, span)
}

// decide takes in the value of a deciding field.
func (f *form) decide(name string, at provider.Span) error {
	c, value := f.call, string(f.call.Body[at.Start:at.End])
	switch name {
	case keyModel:
		if err := checkModel(value); err != nil {
			return err
		}
		c.ModelSpan = at
		if c.Model == "" {
			c.Model = value
		}
	case keyStream:
		if value != "true" && value != "false" {
			return reject(CodeInvalidValue, name, "stream must be true or false")
		}
		c.Stream = value == "true"
	case keyChoices:
		n, err := parseCount(name, value, f.lim.MaxChoices)
		if err != nil {
			return err
		}
		c.Choices = n
	}
	return nil
}

// countFile adds the tokens of a file that the model reads.
func (f *form) countFile(name string) {
	tokens := f.lim.Image
	if strings.HasPrefix(f.call.Op.Name, "audio_") {
		tokens = f.lim.Audio
	}
	if name == "file" || name == "mask" || name == "image" || strings.HasPrefix(name, "image[") {
		f.call.InputParts = saturatingAdd(f.call.InputParts, tokens)
	}
}

// decidingFormField returns the deciding field that some server could take name
// for, also as an array element (model[]), or "".
func decidingFormField(name string) string {
	name, _, _ = strings.Cut(name, "[")
	folded := fold(strings.TrimSpace(name))
	for _, meant := range formFields {
		if folded == meant {
			return meant
		}
	}
	return ""
}

// A partHeader is what the header of a part says.
type partHeader struct {
	name string
	file bool // it has a file name
}

func parsePart(head string) (partHeader, error) {
	var p partHeader
	var disposition string
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) || strings.ContainsFunc(value, isControl) {
			return p, badForm("a part has a malformed header")
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-disposition":
			if disposition != "" {
				return p, badForm("a part has more than one Content-Disposition")
			}
			disposition = value
		case "content-transfer-encoding":
			switch strings.ToLower(value) {
			case "7bit", "8bit", "binary":
			default: // some servers decode it, others do not
				return p, badForm("a part has a Content-Transfer-Encoding, which RFC 7578 has ended; send it plain")
			}
		}
	}
	kind, params, err := mime.ParseMediaType(disposition)
	name, found := params["name"]
	if err != nil || kind != "form-data" || !found || strings.Contains(name, `\`) || hasExtendedName(disposition) {
		return p, badForm("a part has no Content-Disposition of form-data with one plain name")
	}
	p.name = name
	_, p.file = params["filename"]
	return p, nil
}

// hasExtendedName reports whether a disposition has a parameter name* (RFC 5987),
// which some servers prefer to name and others ignore.
func hasExtendedName(disposition string) bool {
	lower := strings.ToLower(disposition)
	return strings.Count(lower, "name*") > strings.Count(lower, "filename*")
}

// isControl reports whether a header value may not contain r.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func isToken(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(s[i])) {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z'
}
