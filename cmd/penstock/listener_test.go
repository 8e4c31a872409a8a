package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A client that is refused while it is still sending reads why, to the end, and no
// reset.
func TestRefusalIsReadToItsEnd(t *testing.T) {
	g := startGateway(t, "")
	c, err := net.Dial("tcp", g.lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET /v1/models HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// Methods that no router knows are refused as everything else is: by the API's
// error, under an id.
func TestOddMethods(t *testing.T) {
	g := startGateway(t, "")
	for _, method := range []string{"BREW", "PROPFIND", "TRACE"} {
		r, err := http.NewRequest(method, "http://"+g.lis.Addr().String()+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 405 || !strings.Contains(string(body), `"method_not_allowed"`) ||
			!strings.HasPrefix(resp.Header.Get("Allow"), "GET, POST") || resp.Header.Get("X-Penstock-Request-Id") == "" {
			t.Errorf("%s: %d %v %s", method, resp.StatusCode, resp.Header, body)
		}
	}
}

// A place is given back once, however often a connection is closed, and a closed
// listener lets nobody wait for one.
func TestBoundedListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := boundListener(inner, 1)
	defer l.Close()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	_ = first.Close()
	if second, err := l.Accept(); err != nil {
		t.Fatal(err)
	} else {
		defer second.Close()
	}
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
