package clients

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"penstock/e2e/clients/stack"
	"penstock/e2e/harness"
)

// dial opens a connection to the gateway that a test writes to by itself.
func dial(t *testing.T, s *stack.Stack) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Gateway.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// say writes a request and reads the answer to it.
func say(t *testing.T, conn net.Conn, request string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read the answer: %v", err)
	}
	return resp, string(body)
}

func rawRequest(s *stack.Stack, line, headers, body string) string {
	return fmt.Sprintf("%s\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n%s", line, s.ClientKey, headers, body)
}

const (
	chatBody   = `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`
	streamBody = `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}`
)

func TestHTTP10(t *testing.T) {
	s := stack.Start(t)
	length := func(b string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(b)) }
	resp, body := say(t, dial(t, s), rawRequest(s, "POST /v1/chat/completions HTTP/1.0", length(chatBody), chatBody))
	if resp.StatusCode != 200 || !strings.Contains(body, `"choices"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	resp, body = say(t, dial(t, s), rawRequest(s, "POST /v1/chat/completions HTTP/1.0", length(streamBody), streamBody))
	if resp.StatusCode != 200 || !strings.HasSuffix(body, "data: [DONE]\n\n") || len(resp.TransferEncoding) != 0 {
		t.Errorf("%d %v %s", resp.StatusCode, resp.TransferEncoding, body)
	}
}

func TestExpectContinueAndChunks(t *testing.T) {
	s := stack.Start(t)
	chunks := fmt.Sprintf("%x;note=1\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n", 10, chatBody[:10], len(chatBody)-10, chatBody[10:])
	conn := dial(t, s)
	if _, err := io.WriteString(conn, rawRequest(s, "POST /v1/chat/completions HTTP/1.1", "Expect: 100-continue\r\nTrailer: X-Trailer\r\nTransfer-Encoding: chunked\r\nX-Record: chunked\r\n", "")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(conn, chunks)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	rec := recorded(t, s.Main, "chunked")
	if string(rec.Body) != chatBody || rec.Header.Get("Expect") != "" || rec.Header.Get("Trailer") != "" {
		t.Errorf("the provider got %q, %v", rec.Body, rec.Header)
	}
	// A body that is refused by its length is not asked for.
	resp, body := say(t, dial(t, s), rawRequest(s, "POST /v1/chat/completions HTTP/1.1", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", stack.MaxBody+1), ""))
	if resp.StatusCode != 413 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	checkErrorBody(t, resp, []byte(body), 413, "request_too_large")
}

// Java's client offers HTTP/2 with its first request.
func TestOtherUpgradesAreIgnored(t *testing.T) {
	s := stack.Start(t)
	resp, body := say(t, dial(t, s), rawRequest(s, "POST /v1/chat/completions HTTP/1.1",
		fmt.Sprintf("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nX-Record: h2c\r\nContent-Length: %d\r\n", len(chatBody)), chatBody))
	if resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	if got := recorded(t, s.Main, "h2c").Header; got.Get("Upgrade") != "" || got.Get("Http2-Settings") != "" {
		t.Errorf("the provider got %v", got)
	}
}

// Requests that follow each other on one connection, sent at once, are answered in
// turn, also behind a refusal.
func TestPipelined(t *testing.T) {
	s := stack.Start(t)
	one := rawRequest(s, "POST /v1/chat/completions HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)), chatBody)
	get := rawRequest(s, "GET /v1/models HTTP/1.1", "Content-Length: 5\r\n", "extra")
	conn := dial(t, s)
	if _, err := io.WriteString(conn, one+get+strings.Replace(one, "gpt-4o", "nobody", 1)+one); err == nil {
		r := bufio.NewReader(conn)
		for i, want := range []int{200, 200, 404, 200} {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
				t.Errorf("answer %d: %d %v, want %d", i, resp.StatusCode, err, want)
			}
		}
	}
}

// What HTTP allows an upstream to do on the wire is understood.
func TestUpstreamsOnTheWire(t *testing.T) {
	s := stack.Start(t)
	whole := `{"id":"1","object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, whole)
	_ = z.Close()
	chunked := func(b string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(b), b) }
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
	for name, parts := range map[string][]string{
		"early hints":              {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole), whole)},
		"100 and 102 first":        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole), whole)},
		"trailers":                 {head + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(whole) + "X-Sum: 1\r\n\r\n"},
		"no length":                {head + "\r\n" + whole},
		"HTTP/1.0":                 {"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + whole},
		"blank lines before JSON":  {head + "\r\n\n", "\n\n", "\n" + whole},
		"gzip that nobody wanted":  {head + fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", zipped.Len(), zipped.String())},
		"a header of 60 KB":        {head + "X-Long: " + strings.Repeat("x", 60<<10) + "\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole), whole)},
		"lower case, odd spacing":  {strings.ToLower(head[17:]) + "\r\n" + whole},
		"a type with a parameter":  {strings.Replace(head, "json\r\n", "json; charset=utf-8\r\n", 1) + "\r\n" + whole},
		"JSON by its general name": {strings.Replace(head, "application/json", "application/problem+json", 1) + "\r\n" + whole},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "lower case, odd spacing" {
				parts[0] = "HTTP/1.1 200 OK\r\n" + parts[0]
			}
			resp, body := post(t, s.BaseURL+"/chat/completions", s.ClientKey, `{"model":"raw"}`, stack.RawHeader, strings.Join(stack.RawParts(parts...), ","))
			if resp.StatusCode != 200 || strings.TrimSpace(string(body)) != whole || resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Trailer") != "" {
				t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
			}
		})
	}
}

// An Idempotency-Key makes net/http repeat requests by itself, behind the back of
// budgets and limits, when a connection breaks that it has kept open.
//
// covers UP-02
func TestNoHiddenRepetition(t *testing.T) {
	var hits atomic.Int64
	up := harness.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if hits.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[]}`)
	}))
	g := harness.Start(t, "upstreams: {up: {base_url: "+up+"/v1}}\nretry: {max_attempts: 1}\n")
	post(t, g.URL+"/v1/chat/completions", "any", chatBody, "Idempotency-Key", "k")
	resp, body := post(t, g.URL+"/v1/chat/completions", "any", chatBody, "Idempotency-Key", "k")
	checkErrorBody(t, resp, body, 502, "upstream_reset")
	if n := hits.Load(); n != 2 {
		t.Errorf("%d requests reached the upstream for 2 of the client's", n)
	}
}

// Bodies of requests that need none pass too.
func TestBodiesWhereNoneIsNeeded(t *testing.T) {
	s := stack.Start(t)
	for _, method := range []string{"GET", "DELETE", "PATCH", "PUT"} {
		req, err := http.NewRequestWithContext(within(t), method, s.BaseURL+"/simulator/echo?a=b%20c&d", strings.NewReader("some body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.ClientKey)
		req.Header.Set(stack.RecordHeader, "body of "+method)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		rec := recorded(t, s.Main, "body of "+method)
		if resp.StatusCode != 200 || rec.Method != method || string(rec.Body) != "some body" || rec.Query != "a=b%20c&d" {
			t.Errorf("%s: %d, the provider got %s %q ?%s", method, resp.StatusCode, rec.Method, rec.Body, rec.Query)
		}
	}
}

func TestPreflight(t *testing.T) {
	s := stack.Start(t)
	resp, _ := say(t, dial(t, s), "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, content-type\r\n\r\n")
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Access-Control-Allow-Headers") != "authorization, content-type" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}
