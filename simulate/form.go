package simulate

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
)

// Bounds of a multipart form. Files may be of any size, as none is kept whole.
const (
	maxFormFields = 100
	maxFormField  = 1 << 20 // bytes
)

// A form is a multipart form: the first value of each field, and the files' sizes.
type form struct {
	fields    map[string]string
	files     int
	fileBytes int64
}

// readForm reads a multipart form part by part, without keeping files. onFile
// sees each file as it arrives; nil discards them. It answers itself if the
// form is not one.
func (c *call) readForm(onFile func(field, name string, r io.Reader) error) (*form, bool) {
	body := &watchedBody{ReadCloser: c.r.Body}
	c.r.Body = body
	parts, err := c.r.MultipartReader()
	if err != nil {
		c.drain()
		c.fail(invalid("", "This endpoint takes multipart/form-data: %v.", err))
		return nil, false
	}
	f := &form{fields: map[string]string{}}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			c.drain() // what follows the last part
			return f, true
		}
		if err == nil {
			err = f.read(part, onFile)
		}
		if err != nil {
			c.formError(err, body)
			return nil, false
		}
	}
}

func (f *form) read(part *multipart.Part, onFile func(field, name string, r io.Reader) error) error {
	name := part.FormName()
	if part.FileName() != "" {
		f.files++
		counted := &countingReader{r: part}
		var err error
		if onFile != nil {
			err = onFile(name, part.FileName(), counted)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, counted)
		}
		f.fileBytes += counted.n
		return err
	}
	value, err := io.ReadAll(io.LimitReader(part, maxFormField+1))
	if err != nil {
		return err
	}
	if len(value) > maxFormField {
		return invalid(clip(name), "Form field %q is longer than %d bytes.", clip(name), maxFormField)
	}
	if _, again := f.fields[name]; again {
		return nil
	}
	if len(f.fields) == maxFormFields {
		return invalid("", "The form has more than %d fields.", maxFormFields)
	}
	f.fields[name] = string(value)
	return nil
}

// formError answers a form that is wrong or that did not arrive whole.
func (c *call) formError(err error, body *watchedBody) {
	c.drain()
	if body.failed {
		c.ending = gone
		return
	}
	wrong := new(apiError)
	if !errors.As(err, &wrong) {
		wrong = invalid("", "The form ends early or is not well formed.")
	}
	c.fail(wrong)
}

// isForm says whether the body is a multipart form.
func isForm(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "multipart/form-data"
}

// A watchedBody notices that the connection failed before the body ended.
type watchedBody struct {
	io.ReadCloser
	failed bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed = true
	}
	return n, err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
