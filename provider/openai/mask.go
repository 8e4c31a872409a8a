package openai

import (
	"bytes"
	"io"
)

// minSecret is the length from which a credential is looked for in answers.
// Shorter ones would match by chance, and protect nothing.
const minSecret = 8

// mask overwrites a secret in b with asterisks, so that lengths stay true.
func mask(b []byte, secret []byte) {
	for {
		at := bytes.Index(b, secret)
		if at < 0 {
			return
		}
		for i := range secret {
			b[at+i] = '*'
		}
		b = b[at+len(secret):]
	}
}

// A masker is a body in which the upstream's key, should the upstream echo it, is
// overwritten. It holds back only bytes that may be the beginning of the key.
type masker struct {
	io.ReadCloser
	secret []byte
	held   []byte // end of the last read that the key may begin with
	err    error  // of the source, to be reported once held is out
}

func newMasker(body io.ReadCloser, secret string) io.ReadCloser {
	if len(secret) < minSecret {
		return body
	}
	return &masker{ReadCloser: body, secret: []byte(secret)}
}

// Read implements io.Reader. p must be longer than the secret.
func (m *masker) Read(p []byte) (int, error) {
	for m.err == nil {
		n := copy(p, m.held)
		r, err := m.ReadCloser.Read(p[n:])
		n += r
		m.held, m.err = m.held[:0], err
		mask(p[:n], m.secret)
		if err == nil {
			keep := overlap(p[:n], m.secret)
			m.held = append(m.held, p[n-keep:n]...)
			n -= keep
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, m.err
}

// overlap is the length of the longest end of b that is a proper beginning of
// secret.
func overlap(b, secret []byte) int {
	for n := min(len(b), len(secret)-1); n > 0; n-- {
		if b[len(b)-1] == secret[n-1] && bytes.HasPrefix(secret, b[len(b)-n:]) {
			return n
		}
	}
	return 0
}
