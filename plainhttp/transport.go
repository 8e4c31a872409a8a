// Package plainhttp is the client side of HTTP/1.1 without TLS, as local upstreams
// speak it. The goroutine that asks writes the request and reads the answer itself:
// a connection has no goroutines of its own, and none of the buffers while it is idle.
// net/http still writes long requests and reads every answer; only short requests and what
// happens between connections and requests are this package's own.
package plainhttp

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// A Transport sends requests to http:// URLs over connections of its own, and leaves to
// another transport what is not ordinary: https and proxies, requests to upgrade the
// connection or to be told to continue, bodies that are not in memory, and what will be
// refused. It is safe for concurrent use.
type Transport struct {
	base    *http.Transport
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	maxHead int64
	idle    pool
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a transport that leaves to base what is not ordinary. From base it has
// Proxy, DialContext, IdleConnTimeout, MaxIdleConnsPerHost and MaxResponseHeaderBytes; it
// keeps maxIdle idle connections beside those of base. The other settings of base do not
// hold for it.
func New(base *http.Transport, maxIdle int) *Transport {
	t := &Transport{base: base, dial: base.DialContext, maxHead: base.MaxResponseHeaderBytes}
	if t.dial == nil {
		t.dial = new(net.Dialer).DialContext
	}
	if t.maxHead <= 0 {
		t.maxHead = 1 << 20
	}
	t.idle = pool{most: maxIdle, mostOfHost: base.MaxIdleConnsPerHost, timeout: base.IdleConnTimeout, every: lookEvery}
	if t.idle.mostOfHost <= 0 {
		t.idle.mostOfHost = http.DefaultMaxIdleConnsPerHost
	}
	return t
}

// CloseIdleConnections closes the connections that are idle, and those that are in use
// once they are not, until the next request.
func (t *Transport) CloseIdleConnections() {
	t.idle.close()
	t.base.CloseIdleConnections()
}

// RoundTrip implements http.RoundTripper. An error after the request's context has ended
// is the context's cause. Like net/http, it sends a request a second time if nothing of
// it had been written, or if it changes nothing and the connection, used before, gave no
// answer.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.ordinary(req) {
		return t.base.RoundTrip(req)
	}
	if req.Context().Err() != nil {
		closeBody(req)
		return nil, context.Cause(req.Context())
	}
	resp, lost, err := t.try(req, t.pooled(req.URL.Host))
	if lost && req.Context().Err() == nil {
		if next, failed := rewound(req); failed == nil {
			resp, _, err = t.try(next, nil)
		}
	}
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// try sends a request over a connection, or a new one if that is nil. lost says that the
// same request may be sent again.
func (t *Transport) try(req *http.Request, c *conn) (resp *http.Response, lost bool, err error) {
	ctx := req.Context()
	if c == nil {
		if c, err = t.connect(ctx, req); err != nil {
			closeBody(req)
			return nil, false, because(ctx, err)
		}
	}
	x := &exchange{t: t, c: c, ctx: ctx, stop: context.AfterFunc(ctx, c.end)}
	if resp, err = x.do(req); err == nil {
		return resp, false, nil
	}
	x.finish(false)
	lost = c.used && (c.sent == 0 || !x.begun && repeatable(req))
	return nil, lost, because(ctx, err)
}

// pooled is an idle connection to a host that is still good, or nil.
func (t *Transport) pooled(host string) *conn {
	for {
		c := t.idle.take(host)
		if c == nil || c.quiet() {
			return c
		}
		c.end()
	}
}

// connect makes a connection.
func (t *Transport) connect(ctx context.Context, req *http.Request) (*conn, error) {
	port := req.URL.Port()
	if port == "" {
		port = "80"
	}
	c, err := t.dial(ctx, "tcp", net.JoinHostPort(req.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	return newConn(c, req.URL.Host), nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// because is why a request failed: its context's cause if that has ended.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ordinary reports whether a request is one for this transport. Its header and method
// are then valid, so that nothing is left of what net/http would refuse.
func (t *Transport) ordinary(req *http.Request) bool {
	u := req.URL
	return canCheck && u != nil && u.Scheme == "http" && u.Host != "" && u.Opaque == "" && isASCII(u.Host) &&
		methods[req.Method] && plainBody(req) && plainHeader(req.Header) &&
		httptrace.ContextClientTrace(req.Context()) == nil && !t.proxied(req)
}

// methods are those that are used; another one may mean anything.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// plainBody reports whether a request has no body, or one of a known length in memory,
// which only such a one can be read of again.
func plainBody(req *http.Request) bool {
	if len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 || req.Close ||
		req.Cancel != nil { //nolint:staticcheck // deprecated, and yet to be obeyed
		return false
	}
	if req.Body == nil || req.Body == http.NoBody {
		return req.ContentLength == 0
	}
	return req.ContentLength > 0 && req.GetBody != nil
}

// plainHeader reports whether a header is valid and asks nothing of the connection.
func plainHeader(h http.Header) bool {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		switch len(name) {
		case len("Expect"), len("Upgrade"), len("Connection"):
			if strings.EqualFold(name, "Expect") || strings.EqualFold(name, "Upgrade") || strings.EqualFold(name, "Connection") {
				return false
			}
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return h != nil
}

func (t *Transport) proxied(req *http.Request) bool {
	if t.base.Proxy == nil {
		return false
	}
	proxy, err := t.base.Proxy(req)
	return proxy != nil || err != nil
}

// repeatable reports whether a request changes nothing, as net/http has it.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return len(req.Header["Idempotency-Key"]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0
}

// rewound is a request whose body is to be read from its beginning.
func rewound(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, fmt.Errorf("read the request again: %w", err)
	}
	next := *req
	next.Body = body
	return &next, nil
}
