package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"penstock/provider"
)

// pieces is a body that arrives in pieces of the given sizes, over and over, and
// ends with err.
type pieces struct {
	data  []byte
	sizes []byte
	next  int
	err   error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, p.err
	}
	n := 1
	if len(p.sizes) > 0 {
		n = max(1, int(p.sizes[p.next%len(p.sizes)]))
		p.next++
	}
	n = copy(b, p.data[:min(n, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Close() error { return nil }

// readSized reads all of r with a buffer of n bytes.
func readSized(r io.Reader, n int) ([]byte, error) {
	var out []byte
	buf := make([]byte, n)
	for range 1 << 20 {
		k, err := r.Read(buf)
		out = append(out, buf[:k]...)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out, err
		}
	}
	return out, errors.New("the reader never ends")
}

const secretKey = "sk-upstream-0123456789"

func secretsFor(headers http.Header) [][]byte {
	return SecretsOf(&provider.Target{Credential: secretKey, Headers: headers})
}

// An echoed key is masked wherever the pieces of an answer end, and however small
// the reader's buffer is.
// covers SEC-01
func TestKeyIsMaskedAtAnySplit(t *testing.T) {
	body := "data: {\"a\":\"Bearer " + secretKey + "\"}\n\ndata: sk-upsk-ups" + secretKey + secretKey + "sk-\n\n"
	want := strings.ReplaceAll(body, secretKey, strings.Repeat("*", len(secretKey)))
	for size := 1; size <= len(body); size++ {
		for _, buffer := range []int{1, 3, len(secretKey), len(secretKey) + 1, 4096} {
			m := newMasker(&pieces{data: []byte(body), sizes: []byte{byte(size)}, err: io.EOF}, secretsFor(nil))
			if got, err := readSized(m, buffer); string(got) != want || err != nil {
				t.Fatalf("pieces of %d, buffer of %d: %q, %v", size, buffer, got, err)
			}
		}
	}
	m := newMasker(&pieces{data: []byte(body), err: io.EOF}, secretsFor(nil))
	if err := iotest.TestReader(m, []byte(want)); err != nil {
		t.Error(err)
	}
}

// A key longer than the buffers of readers does not stop an answer.
func TestLongKeyIsMasked(t *testing.T) {
	key := strings.Repeat("eyJhbGciOi", 400)
	body := key[:3000] + `","echo":"` + key + `"}`
	target := &provider.Target{Credential: key, MaxAnswer: 1 << 20}
	resp := &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: &pieces{data: []byte(body), sizes: []byte{200}, err: io.EOF}}
	reply, err := Adapter{}.Reply(target, &provider.Call{}, resp)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reply.Body); err != nil || string(got) != strings.Replace(body, key, strings.Repeat("*", len(key)), 1) {
		t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
	}
}

// An answer that is cut within the key shows no part of it.
// covers SEC-01
func TestCutKeyIsMasked(t *testing.T) {
	m := newMasker(&pieces{data: []byte("x" + secretKey[:15]), err: io.ErrUnexpectedEOF}, secretsFor(nil))
	got, err := readSized(m, 64)
	if string(got) != "x"+strings.Repeat("*", 15) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", got, err)
	}
}

// Keys that the configuration adds as headers are secrets too; other headers are
// not.
// covers SEC-01
func TestKeysInHeadersAreMasked(t *testing.T) {
	secrets := secretsFor(http.Header{
		"Api-Key": {"azure-key-0123456789"}, "Authorization": {"Basic dXNlcjpwYXNz"},
		"Openai-Project": {"proj_0123456789"}, "Anthropic-Version": {"2023-06-01"}, "X-Api-Key": {"short"},
	})
	got := bytes.Join(secrets, []byte(" "))
	for text, want := range map[string]bool{secretKey: true, "azure-key-0123456789": true, "dXNlcjpwYXNz": true, "Basic": false, "proj_": false, "2023": false, "short": false} {
		if strings.Contains(string(got), text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
	target := &provider.Target{Credential: secretKey, Headers: http.Header{"Api-Key": {"azure-key-0123456789"}}}
	h := replyHeader(target, http.Header{"X-Echo": {"a", "azure-key-0123456789"}, "X-Other": {"b"}})
	if h.Get("X-Echo") != "" || h.Get("X-Other") != "b" {
		t.Errorf("headers %v", h)
	}
}

// Masking changes nothing but whole secrets, whatever the pieces and the buffer.
// covers SEC-01
func FuzzMasker(f *testing.F) {
	f.Add("a secret0secret01 secret012", "secret01", "cret012secret", []byte{1, 7, 3}, uint16(5))
	f.Add("aaaaaaaaaaaaaaaa", "aaaaaaaa", "aaaaaaaaaaaaab", []byte{2}, uint16(1))
	f.Fuzz(func(t *testing.T, body, a, b string, sizes []byte, buffer uint16) {
		if len(a) < minSecret || len(b) < minSecret || len(a)+len(b) > 1000 || strings.Contains(a+b, "*") {
			return
		}
		secrets := [][]byte{[]byte(a), []byte(b)}
		m := newMasker(&pieces{data: []byte(body), sizes: sizes, err: io.EOF}, secrets)
		got, err := readSized(m, max(1, int(buffer)))
		if err != nil || len(got) != len(body) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(body), err)
		}
		for i := range got {
			if got[i] != body[i] && got[i] != '*' {
				t.Fatalf("byte %d of %q became %q", i, body, got)
			}
		}
		if strings.Contains(string(got), a) || strings.Contains(string(got), b) {
			t.Fatalf("%q in pieces shows a secret: %q", body, got)
		}
		if !strings.Contains(body, a) && !strings.Contains(body, b) && !cutWithin(body, secrets) && string(got) != body {
			t.Fatalf("%q became %q", body, got)
		}
	})
}

// cutWithin reports whether a body ends in the beginning of a secret.
func cutWithin(body string, secrets [][]byte) bool {
	return overlap([]byte(body), secrets) >= minSecret
}
