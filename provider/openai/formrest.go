package openai

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"penstock/provider"
)

// FormRest returns the rest of a form of which c.Body, scanned by ScanMultipart, is
// the beginning. It passes what follows on unchanged, as long as nothing in it decides: a
// field that does, a part that cannot be read, or a missing end is a *RequestError of
// Read, which comes before the part's header has passed as a whole. The error that
// FormRest itself returns, a *RequestError too, is that of a deciding field that
// begins in c.Body and ends behind it.
//
// The reader is for one goroutine at a time. Of the form it holds a part's header and
// what was read last.
func FormRest(c *provider.Call, contentType string, follows io.Reader) (io.Reader, error) {
	boundary, err := formBoundary(contentType)
	if err != nil {
		return nil, err
	}
	f := &formRest{src: follows, dash: []byte("--" + boundary), seen: map[string]bool{}, known: true}
	for piece := range slices.Chunk(c.Body, 32<<10) {
		if err := f.see(piece); err != nil {
			return nil, err
		}
	}
	if f.open != "" {
		return nil, behind(f.open)
	}
	f.known = false
	return f, nil
}

func behind(field string) *RequestError {
	return reject(CodeInvalidMultipart, field, "the form's %s did not come within the part that is held in memory; put it before the file", field)
}

// formRest is a form that is watched while it passes.
type formRest struct {
	src   io.Reader
	dash  []byte // "--" and the boundary
	held  []byte // the end of what has been seen, in which a boundary or a header may have begun
	begun bool   // held does not begin at the beginning of the form
	parts int
	seen  map[string]bool // deciding fields of the beginning
	known bool            // this is the beginning, in which they have been read
	open  string          // the deciding field under way
	last  bool            // the closing boundary has come
	err   error
}

// Read implements io.Reader.
func (f *formRest) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.src.Read(p)
	if f.err = f.see(p[:n]); f.err != nil {
		return 0, f.err
	}
	if errors.Is(err, io.EOF) && !f.last {
		f.err = badForm("the closing boundary is missing")
		return n, f.err
	}
	return n, err
}

// see looks at what comes next.
func (f *formRest) see(b []byte) error {
	f.held = append(f.held, b...)
	at := 0 // held[:at] is done with
	for {
		i := bytes.Index(f.held[at:], f.dash)
		if i < 0 {
			f.drop(max(at, len(f.held)-len(f.dash)-1)) // with the end of the line before
			return nil
		}
		i += at
		at = i + len(f.dash)
		if i == 0 && f.begun || i > 0 && f.held[i-1] != '\n' && f.held[i-1] != '\r' {
			continue // within a line
		}
		size, err := f.delimiter(f.held[at:])
		if err != nil {
			return err
		}
		if size < 0 {
			f.drop(max(0, i-1))
			return nil
		}
		at += size
	}
}

// drop forgets the first n bytes that are held.
func (f *formRest) drop(n int) {
	f.begun = f.begun || n > 0
	f.held = append(f.held[:0], f.held[n:]...)
}

// delimiter reads what stands behind a boundary: the end of its line and a part's
// header. It returns their length, or -1 when they have not come as a whole.
func (f *formRest) delimiter(b []byte) (size int, err error) {
	switch {
	case f.last:
		return 0, badForm("the form goes on after its closing boundary")
	case bytes.HasPrefix(b, []byte("--")):
		f.open, f.last = "", true
		return 2, nil
	case len(b) < 2:
		return -1, nil
	case !bytes.HasPrefix(b, []byte("\r\n")):
		return 0, badForm("a line begins like the boundary and is none; choose a longer boundary")
	}
	f.open = ""
	head, _, found := bytes.Cut(b[2:min(len(b), 2+maxPartHeader)], []byte("\r\n\r\n"))
	switch {
	case !found && len(b) >= 2+maxPartHeader:
		return 0, badForm("a part has no complete header of at most %d bytes", maxPartHeader)
	case !found:
		return -1, nil
	}
	if f.parts++; f.parts > maxParts {
		return 0, badForm("the form has more than %d parts", maxParts)
	}
	return 2 + len(head) + 4, f.part(string(head))
}

// part judges the header of a part.
func (f *formRest) part(head string) error {
	p, err := parsePart(head)
	if err != nil {
		return err
	}
	meant := decidingFormField(p.name)
	switch {
	case meant == "":
		return nil
	case f.known:
		f.open, f.seen[meant] = meant, true
		return nil
	case p.name != meant || p.file:
		return errAmbiguous(meant)
	case f.seen[meant]:
		return errDuplicate(meant)
	}
	return behind(meant)
}
