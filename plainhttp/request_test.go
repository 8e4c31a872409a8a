package plainhttp

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// sent are the bytes of a request by net/http and by this package, and whether each
// refuses it.
func sent(t *testing.T, build func() *http.Request) (theirs, ours string, refused [2]bool) {
	t.Helper()
	var buf bytes.Buffer
	err := build().Write(&buf)
	refused[0] = err != nil
	b, err := appendRequest([]byte("before"), build())
	refused[1] = err != nil
	b, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Error("what stood before is gone")
	}
	return wire(t, buf.String()), wire(t, string(b)), refused
}

// FuzzRequests looks for a request that is written otherwise than by net/http.
func FuzzRequests(f *testing.F) {
	f.Add(0, "", "/v1/x", "", "Content-Type", " application/json ", "{}", 0)
	f.Add(1, "h:80", "/a%2Fb", "q=\x01", "User-Agent", "", "", 0)
	f.Add(2, "[fe80::1%25eth0]:1", "", "", "User-Agent", "\tmine ", "b", 1)
	f.Add(3, "a/b", "/b\u00fccher", "q", "Content-Length", "7", "b", -1)
	f.Add(4, "b\u00fccher.example", "//x", "?", "transfer-encoding", "chunked", "b", 0)
	f.Add(5, "h", "/", "", "trailer", "X", "", 2)
	f.Add(6, "h", "x", "", "host", "other", strings.Repeat("b", 5000), 0)
	tr := New(&http.Transport{}, 1)
	all := slices.Sorted(maps.Keys(methods))
	f.Fuzz(func(t *testing.T, method int, host, path, query, name, value, body string, more int) {
		build := func() *http.Request {
			r := &http.Request{
				Method: all[uint(method)%uint(len(all))], Host: host, Header: http.Header{name: {value, "second"}, "X-A": {"b"}},
				URL:           &url.URL{Scheme: "http", Host: "127.0.0.1:1", Path: path, RawQuery: query},
				ContentLength: int64(len(body) + more%3),
				GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
			}
			if r.Body, _ = r.GetBody(); r.ContentLength <= 0 {
				r.Body, r.ContentLength = nil, 0
			}
			return r
		}
		if !tr.ordinary(build()) {
			return // it is left to net/http
		}
		theirs, ours, refused := sent(t, build)
		if refused[0] != refused[1] || !refused[0] && theirs != ours {
			t.Errorf("net/http: %.500q (refused: %v)\nours: %.500q (refused: %v)", theirs, refused[0], ours, refused[1])
		}
	})
}
