package openai

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// unzip opens an answer that is compressed although we did not ask for it.
// Streams come out of it at every flush of the upstream.
func unzip(resp *http.Response) {
	switch strings.ToLower(resp.Header.Get("Content-Encoding")) {
	case "gzip", "x-gzip":
	case "identity":
		resp.Header.Del("Content-Encoding")
		return
	default:
		return
	}
	resp.Header.Del("Content-Encoding")
	resp.ContentLength = -1
	resp.Body = &gunzipped{src: resp.Body}
}

// gunzipped is a compressed body as it was before. It reads its header with the
// first bytes, not when it is made.
type gunzipped struct {
	src io.ReadCloser
	r   *gzip.Reader
}

func (g *gunzipped) Read(p []byte) (n int, err error) {
	if g.r == nil {
		if g.r, err = gzip.NewReader(g.src); err != nil {
			g.r = nil
			return 0, err
		}
	}
	return g.r.Read(p)
}

func (g *gunzipped) Close() error { return g.src.Close() }
