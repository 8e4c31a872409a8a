package openai

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"penstock/provider"
)

// An Adapter speaks the OpenAI API. The zero Adapter is ready to use.
type Adapter struct{}

var _ provider.Adapter = Adapter{}

// Request implements provider.Adapter. The body differs from the client's only in
// a renamed model and in an added stream_options.include_usage.
func (Adapter) Request(ctx context.Context, t *provider.Target, c *provider.Call) (*http.Request, error) {
	u, err := targetURL(t, c)
	if err != nil {
		return nil, err
	}
	r := new(http.Request).WithContext(ctx)
	r.Method, r.URL, r.Host, r.Header = c.Method, u, u.Host, requestHeader(t, c)
	r.Proto, r.ProtoMajor, r.ProtoMinor, r.Body = "HTTP/1.1", 1, 1, http.NoBody
	switch {
	case c.Rest != nil:
		body := Splice(c, t.Model, false)
		r.Body = io.NopCloser(io.MultiReader(body.Reader(), c.Rest))
		r.ContentLength = -1
		if c.Length >= 0 {
			r.ContentLength = c.Length + body.Len() - int64(len(c.Body))
		}
	case len(c.Body) > 0:
		body := Splice(c, t.Model, injectsUsage(t, c))
		// GetBody lets the transport use another connection when a pooled one turns
		// out to be closed before anything was written to it.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body.Reader()), nil }
		r.Body, _ = r.GetBody()
		r.ContentLength = body.Len()
	}
	return r, nil
}

// injectsUsage reports whether usage is asked for on the client's behalf.
func injectsUsage(t *provider.Target, c *provider.Call) bool {
	return t.StreamUsage && c.Stream && !c.IncludeUsage && familyOf(c.Op.Name) == familyChat
}

func targetURL(t *provider.Target, c *provider.Call) (*url.URL, error) {
	path, err := url.PathUnescape(c.Path)
	if err != nil {
		return nil, fmt.Errorf("path of the request: %w", err)
	}
	u := *t.BaseURL
	base := u.EscapedPath()
	u.Path += path
	u.RawPath = ""
	if rest, ok := strings.CutPrefix(u.EscapedPath(), base); !ok || rest != c.Path {
		u.RawPath = base + c.Path
	}
	u.RawQuery = c.Query
	if !t.Forward {
		u.RawQuery = cleanQuery(c.Query, c.Credential)
	}
	if c.Upgrade && c.Model != "" && t.Model != "" {
		u.RawQuery = renameInQuery(u.RawQuery, t.Model)
	}
	return &u, nil
}

// wholeBody reads at most limit bytes and reports whether that was all.
func wholeBody(r io.Reader, limit int) (body []byte, whole bool, err error) {
	var b bytes.Buffer
	_, err = io.Copy(&b, io.LimitReader(r, int64(limit)+1))
	return b.Bytes(), b.Len() <= limit, err
}
