package plainhttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
)

// elsewhere are the fields of a header that a request has from elsewhere, as net/http
// has it.
var elsewhere = map[string]bool{"Host": true, "User-Agent": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// appendRequest appends an ordinary request as it is sent, and closes its body. It writes
// what Request.Write does, with the header in no order.
func appendRequest(b []byte, req *http.Request) ([]byte, error) {
	host, uri := req.Host, req.URL.RequestURI()
	if host == "" {
		host = req.URL.Host
	}
	if !plainHost(host) || !plainURI(uri) { // cleaned or refused there
		buf := bytes.NewBuffer(b)
		err := req.Write(buf)
		return buf.Bytes(), err
	}
	b = append(append(append(b, req.Method...), ' '), uri...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), host...)
	agent := "Go-http-client/1.1"
	if own := req.Header["User-Agent"]; len(own) > 0 {
		agent = textproto.TrimString(own[0])
	}
	if agent != "" {
		b = append(append(b, "\r\nUser-Agent: "...), agent...)
	}
	b = appendLength(b, req)
	for name, values := range req.Header {
		if elsewhere[name] {
			continue
		}
		for _, v := range values {
			b = append(append(append(b, "\r\n"...), name...), ": "...)
			b = append(b, textproto.TrimString(v)...)
		}
	}
	return appendBody(append(b, "\r\n\r\n"...), req)
}

// appendLength appends the length of the body, or that there is none where one is
// expected.
func appendLength(b []byte, req *http.Request) []byte {
	if req.ContentLength == 0 && req.Method != http.MethodPost && req.Method != http.MethodPut && req.Method != http.MethodPatch {
		return b
	}
	return strconv.AppendInt(append(b, "\r\nContent-Length: "...), req.ContentLength, 10)
}

var errLength = errors.New("the body is not as long as the request says")

func appendBody(b []byte, req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return b, nil
	}
	defer req.Body.Close()
	head, size := len(b), int(req.ContentLength)
	b = slices.Grow(b, size+1)[:head+size+1] // one more shows that there is no more
	n, err := io.ReadFull(req.Body, b[head:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err == nil && n != size {
		err = fmt.Errorf("%w: %d bytes", errLength, size)
	}
	return b[:head+size], err
}

// plainHost reports whether a host is sent as it is.
func plainHost(host string) bool {
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// plainURI reports whether a URI has no control characters.
func plainURI(uri string) bool {
	for i := range len(uri) {
		if uri[i] < ' ' || uri[i] == 0x7f {
			return false
		}
	}
	return true
}
