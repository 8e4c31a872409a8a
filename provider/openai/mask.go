package openai

import (
	"bytes"
	"io"
	"strings"

	"penstock/provider"
)

// minSecret is the length from which a credential is looked for in answers.
// Shorter ones would match by chance, and protect nothing.
const minSecret = 8

// SecretsOf are the upstream's credentials, which no client may see: its key, and
// what the configuration adds in headers that carry keys. It is not nil.
func SecretsOf(t *provider.Target) [][]byte {
	if t.Secrets != nil {
		return t.Secrets
	}
	out := [][]byte{}
	if len(t.Credential) >= minSecret {
		out = append(out, []byte(t.Credential))
	}
	for name, values := range t.Headers {
		if !namesSecret(name) {
			continue
		}
		for _, v := range values {
			if _, rest, ok := strings.Cut(v, " "); ok { // Bearer, Basic
				v = rest
			}
			if len(v) >= minSecret {
				out = append(out, []byte(v))
			}
		}
	}
	return out
}

// namesSecret reports whether a header by its name carries a credential.
func namesSecret(header string) bool {
	lower := strings.ToLower(header)
	for _, word := range [...]string{"auth", "key", "token", "secret", "cookie", "password"} {
		if strings.Contains(lower, word) {
			return true
		}
	}
	return false
}

// mask overwrites secrets in b with asterisks, so that lengths stay true. It looks for the
// byte of a secret that is the rarest in answers, which takes less time than for its
// beginning: there an sk- or a Bearer would wait at every s or B.
func mask(b []byte, secrets [][]byte) {
	for _, secret := range secrets {
		at := rarest(secret)
		for i := 0; len(b)-i >= len(secret); {
			found := bytes.IndexByte(b[i+at:len(b)-len(secret)+at+1], secret[at])
			if found < 0 {
				break
			}
			if i += found; !bytes.HasPrefix(b[i:], secret) {
				i++
				continue
			}
			cover(b[i : i+len(secret)])
			i += len(secret)
		}
	}
}

// rarest is the offset of the byte of a secret that is the rarest in answers.
func rarest(secret []byte) (at int) {
	for i, c := range secret {
		if rarity[c] > rarity[secret[at]] {
			at = i
		}
	}
	return at
}

// rarity is the place of a byte among those of which JSON in English mostly consists, the
// most frequent first.
var rarity = func() (out [256]uint8) {
	const frequent = "\": etaonisrhldcu,mpfg{}_-ybvk.w[]0123456789xTSIAjCEMPDqBNRLzFOHWGUVKYJXQZ"
	for i := range out {
		out[i] = uint8(1 + strings.IndexByte(frequent, byte(i)))
		if out[i] == 0 {
			out[i] = 255
		}
	}
	return out
}()

func cover(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}

// A masker is a body in which the upstream's keys, should the upstream echo them,
// are overwritten. It holds back only bytes that may be the beginning of a key.
type masker struct {
	io.ReadCloser
	secrets [][]byte
	longest int    // of the secrets
	held    []byte // end of the last read that a key may begin with
	ready   []byte // masked, where the reader's buffer was too short to look in
	err     error  // of the source, to be reported once held is out
}

func newMasker(body io.ReadCloser, secrets [][]byte) io.ReadCloser {
	if len(secrets) == 0 {
		return body
	}
	m := &masker{ReadCloser: body, secrets: secrets}
	for _, s := range secrets {
		m.longest = max(m.longest, len(s))
	}
	return m
}

// Read implements io.Reader.
func (m *masker) Read(p []byte) (int, error) {
	if len(m.ready) == 0 && (len(p) > m.longest || m.err != nil) {
		return m.fill(p)
	}
	if len(m.ready) == 0 && len(p) > 0 {
		buf := make([]byte, max(512, 2*m.longest))
		n, err := m.fill(buf)
		if err != nil {
			return 0, err
		}
		m.ready = buf[:n]
	}
	n := copy(p, m.ready)
	m.ready = m.ready[n:]
	return n, nil
}

// fill reads into p, which is longer than every secret unless the end was reached.
func (m *masker) fill(p []byte) (int, error) {
	for m.err == nil {
		n := copy(p, m.held)
		r, err := m.ReadCloser.Read(p[n:])
		n += r
		m.held, m.err = m.held[:0], err
		mask(p[:n], m.secrets)
		keep := overlap(p[:n], m.secrets)
		switch {
		case err == nil:
			m.held = append(m.held, p[n-keep:n]...)
			n -= keep
		case keep >= minSecret: // cut within a key: what has come of it is not shown either
			cover(p[n-keep : n])
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, m.err
}

// overlap is the length of the longest end of b that is a proper beginning of a
// secret.
func overlap(b []byte, secrets [][]byte) int {
	longest := 0
	for _, secret := range secrets {
		for n := min(len(b), len(secret)-1); n > longest; n-- {
			if b[len(b)-1] == secret[n-1] && bytes.HasPrefix(secret, b[len(b)-n:]) {
				longest = n
			}
		}
	}
	return longest
}
