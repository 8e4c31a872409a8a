package stack

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// RawHeader makes the raw upstream answer with the bytes that RawParts put into it,
// status line included, and then close the connection. It may come several times; the
// parts are written one after the other with a pause between them. RawAbort breaks
// the connection off at the end.
const (
	RawHeader = "X-Raw-Reply"
	RawAbort  = "X-Raw-Abort"
)

// rawPause lies between the parts of a raw answer.
const rawPause = 20 * time.Millisecond

// RawParts encodes the parts of an answer for RawHeader: compressed, as a request's
// header has less room than an answer's, and in base64.
func RawParts(parts ...string) []string {
	out := make([]string, len(parts))
	for i, p := range parts {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, p) // a buffer takes everything
		_ = z.Close()
		out[i] = base64.StdEncoding.EncodeToString(b.Bytes())
	}
	return out
}

func rawPart(encoded string) ([]byte, error) {
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(strings.TrimSpace(encoded))))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// raw is an upstream that answers as its request says, however odd that is. It
// keeps requests as every Recorder does.
func raw(rec *Recorder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(RawHeader) == "" {
			rec.ServeHTTP(w, r)
			return
		}
		parts := strings.Split(strings.Join(r.Header.Values(RawHeader), ","), ",")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if name := r.Header.Get(RecordHeader); name != "" {
			r.Body = io.NopCloser(bytes.NewReader(body))
			rec.keep(name, Record{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Header: r.Header.Clone(), Body: body})
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "this connection cannot be taken over", http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		for i, part := range parts {
			b, err := rawPart(part)
			if err != nil {
				return
			}
			if i > 0 {
				time.Sleep(rawPause)
			}
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
		if tcp, ok := conn.(*net.TCPConn); ok && r.Header.Get(RawAbort) != "" {
			_ = tcp.SetLinger(0)
		}
	})
}
