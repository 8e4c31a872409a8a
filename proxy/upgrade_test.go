package proxy

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/auth"
	"penstock/limits"
	"penstock/provider"
)

// socket is an upstream that opens WebSockets. What is written to one comes back,
// and "bye" ends it. It keeps the last request.
type socket struct {
	got   *http.Request
	other string // protocol to which it switches
}

func (s *socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.got = r
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	protocol := "websocket"
	if s.other != "" {
		protocol = s.other
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+
		"\r\nSec-WebSocket-Accept: accepted\r\nX-Request-Id: req_theirs\r\nSet-Cookie: a=b\r\n\r\nhello\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil || line == "bye\n" {
			return
		}
		if _, err := io.WriteString(conn, line); err != nil {
			return
		}
	}
}

// An opening is the answer to a request for a WebSocket.
type opening struct {
	status int
	header http.Header
}

// open asks for a WebSocket; headers come in pairs. In place of a connection it may
// return the body of a refusal.
func (w *world) open(path string, headers ...string) (opening, io.ReadWriteCloser) {
	w.t.Helper()
	all := append([]string{"Connection", "keep-alive, Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "nonce", "Sec-WebSocket-Version", "13"}, headers...)
	resp, err := w.client.Transport.RoundTrip(w.request("GET", path, "", all...))
	if err != nil {
		w.t.Fatal(err)
	}
	o := opening{resp.StatusCode, resp.Header}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || o.status != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		return o, &refusal{strings.NewReader(string(body))}
	}
	return o, conn
}

// refusal is what came in place of a connection.
type refusal struct{ io.Reader }

func (*refusal) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (*refusal) Close() error              { return nil }

// talk writes a line and reads one.
func talk(t *testing.T, conn io.ReadWriter, say string) string {
	t.Helper()
	if say != "" {
		if _, err := io.WriteString(conn, say); err != nil {
			t.Fatal(err)
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// rename gives the model m another name at upstream a.
func rename(s *Snapshot) {
	r := s.Routes.Routes["m"]
	r.Targets[0].Model = "the real/m"
	s.Routes.Routes["m"] = r
}

func TestWebSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &socket{}
		w := newWorld(t, up.ServeHTTP, nil, rename)
		slots := w.limit(limits.Concurrency, 1, 0)
		resp, conn := w.open("/v1/realtime?a=b%20c&model=m&key=secret", "Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key."+clientKey+", openai-beta.realtime-v1",
			"OpenAI-Organization", "org", "OpenAI-Beta", "realtime=v1", "Cookie", "c")
		if talk(t, conn, "") != "hello\n" || talk(t, conn, "one\n") != "one\n" {
			t.Error("bytes did not pass")
		}
		for name, want := range map[string]string{
			"Authorization": "Bearer " + upstreamKey, "Sec-Websocket-Protocol": "realtime, openai-beta.realtime-v1", "Sec-Websocket-Key": "nonce",
			"Connection": "Upgrade", "Upgrade": "websocket", "Openai-Beta": "realtime=v1", "Openai-Organization": "", "Cookie": "",
		} {
			if got := up.got.Header.Get(name); got != want {
				t.Errorf("the upstream got %s: %q, want %q", name, got, want)
			}
		}
		if got := up.got.URL.RequestURI(); got != "/v1/realtime?a=b%20c&model=the+real%2Fm" {
			t.Errorf("the upstream got %s", got)
		}
		for name, want := range map[string]string{
			"Sec-Websocket-Accept": "accepted", "Upgrade": "websocket", "X-Request-Id": "req_theirs", "X-Penstock-Upstream": "a", "Set-Cookie": "",
		} {
			if got := resp.header.Get(name); got != want {
				t.Errorf("the client got %s: %q, want %q", name, got, want)
			}
		}
		// It holds its slot for as long as it is open, however silent it is.
		time.Sleep(time.Hour)
		if left := w.remaining(slots); left != 0 || w.metric("websockets") != 1 {
			t.Errorf("%d slots left, %v sockets", left, w.metric("websockets"))
		}
		if talk(t, conn, "two\n") != "two\n" {
			t.Error("it has not outlived the silence")
		}
		conn.Close()
		synctest.Wait()
		if left := w.remaining(slots); left != 1 || w.metric("websockets") != 0 {
			t.Errorf("%d slots left, %v sockets", left, w.metric("websockets"))
		}
		if !strings.Contains(w.logs.String(), `"operation":"websocket"`) || !strings.Contains(w.logs.String(), `"status":101,"outcome":"ok"`) {
			t.Errorf("log is %s", w.logs)
		}
		w.settled()
	})
}

func TestWebSocketEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		end     func(w *world, conn io.ReadWriteCloser)
		outcome string
	}{
		{"by the upstream", func(_ *world, conn io.ReadWriteCloser) { _, _ = io.WriteString(conn, "bye\n") }, "ok"},
		{"by the client", func(_ *world, conn io.ReadWriteCloser) { conn.Close() }, "ok"},
		{"by time", func(*world, io.ReadWriteCloser) { time.Sleep(2 * time.Hour) }, "timeout"},
		{"by the end of the drain", func(w *world, _ io.ReadWriteCloser) {
			w.p.Drain()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if w.p.AwaitSessions(ctx) == nil {
				w.t.Error("the drain has not waited")
			}
			if w.p.Cut() != 1 || w.p.AwaitSessions(context.Background()) != nil {
				w.t.Error("it was not cut")
			}
		}, "truncated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, (&socket{}).ServeHTTP, nil, func(s *Snapshot) { s.Upstreams["a"].Timeouts.Session = 90 * time.Minute })
				_, conn := w.open("/v1/responses")
				talk(t, conn, "")
				c.end(w, conn)
				if rest, err := io.ReadAll(conn); c.name != "by the client" && (err != nil || len(rest) != 0) {
					t.Errorf("the client reads %q, %v", rest, err)
				}
				synctest.Wait()
				if !strings.Contains(w.logs.String(), `"outcome":"`+c.outcome+`"`) {
					t.Errorf("log is %s", w.logs)
				}
				if w.p.AwaitSessions(context.Background()) != nil {
					t.Error("it is open")
				}
				w.settled()
			})
		})
	}
}

// covers SEC-01
func TestWebSocketsThatAreRefused(t *testing.T) {
	restrict := func(s *Snapshot) { s.Teams["search"].Models = []string{"m"} }
	open := func(s *Snapshot) {
		s.Keys = auth.NewKeys(nil, auth.Caller{Team: "search"})
	}
	byProtocol := []string{"Authorization", "", "Sec-WebSocket-Protocol", "realtime,openai-insecure-api-key." + clientKey}
	for _, c := range []struct {
		name, path string
		headers    []string
		change     func(*Snapshot)
		status     int
		code       string
	}{
		{"key of a page", "/v1/realtime?model=m", byProtocol, nil, 101, ""},
		{"wrong key of a page", "/v1/realtime?model=m", []string{"Authorization", "", "Sec-WebSocket-Protocol", "realtime,openai-insecure-api-key.x"}, nil, 401, "invalid_api_key"},
		{"a page's own key is enough", "/v1/realtime?model=m", append([]string{"Origin", "https://page.example"}, byProtocol...), nil, 101, ""},
		{"a page without a key", "/v1/realtime?model=m", []string{"Origin", "https://page.example"}, open, 403, "cross_origin_refused"},
		{"a page of ours", "/v1/realtime?model=m", []string{"Origin", "http://gateway"}, open, 101, ""},
		{"a model that the team may use", "/realtime?model=m", nil, restrict, 101, ""},
		{"Azure's name for it", "/openai/realtime?api-version=1&deployment=m", nil, restrict, 101, ""},
		{"another model", "/v1/realtime?model=both", nil, restrict, 403, "model_not_allowed"},
		{"a model in the first message", "/v1/responses?model=m", nil, restrict, 403, "model_not_allowed"},
		{"unknown model", "/v1/realtime?model=nobody", nil, nil, 404, "model_not_found"},
		{"two models", "/v1/realtime?model=m&model=both", nil, nil, 400, "invalid_value"},
		{"two names of models", "/v1/realtime?model=m&deployment=both", nil, nil, 400, "invalid_value"},
		{"a query that is read in two ways", "/v1/realtime?model=m;model=both", nil, nil, 400, "invalid_value"},
		{"administration", "/v1/organization/users", nil, nil, 403, "admin_api_refused"},
		{"a budget", "/v1/realtime?model=m", nil, func(s *Snapshot) { s.Teams["search"].Unpriced = UnpricedRefuse }, 403, "price_unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				change := func(s *Snapshot) {
					if c.change != nil {
						c.change(s)
					}
				}
				w := newWorld(t, (&socket{}).ServeHTTP, nil, change)
				resp, conn := w.open(c.path, c.headers...)
				defer conn.Close()
				if resp.status != c.status {
					t.Errorf("%d, want %d", resp.status, c.status)
				}
				if c.status != 101 {
					if body, _ := io.ReadAll(conn); !strings.Contains(string(body), `"code":"`+c.code+`"`) {
						t.Errorf("body is %s", body)
					}
				}
				conn.Close()
				synctest.Wait()
				w.settled()
			})
		})
	}
}

func TestUpstreamsThatOpenNoWebSocket(t *testing.T) {
	for _, c := range []struct {
		name   string
		up     http.HandlerFunc
		status int
		code   string
	}{
		{"not found", sends(404, `{"error":{"message":"m","type":"t","code":"c"}}`), 404, "c"},
		{"another protocol", (&socket{other: "h2c"}).ServeHTTP, 502, "upstream_protocol"},
		{"gone", nil, 502, "upstream_connect"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil)
				resp, conn := w.open("/v1/realtime?model=m")
				if body, _ := io.ReadAll(conn); resp.status != c.status || !strings.Contains(string(body), `"code":"`+c.code+`"`) {
					t.Errorf("%d %s", resp.status, body)
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
	// One that opens it where nobody asked is at fault.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, (&socket{}).ServeHTTP, nil)
		if o := w.do(w.request("GET", "/v1/files", "")); o.status != 502 {
			t.Errorf("%d %s", o.status, o.body)
		}
		w.settled()
	})
}

// A second upstream opens it where the first one cannot; nothing is held at the
// first.
func TestWebSocketFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(500, `{"error":{"message":"m"}}`), (&socket{}).ServeHTTP)
		resp, conn := w.open("/v1/realtime?model=both")
		if resp.status != 101 || resp.header.Get("X-Penstock-Upstream") != "b" || resp.header.Get("X-Penstock-Attempts") != "2" {
			t.Errorf("%d %v", resp.status, resp.header)
		}
		conn.Close()
		synctest.Wait()
		w.settled()
	})
}

// What lasts for hours says nothing of how long a request takes.
func TestWebSocketsDoNotSpoilPredictions(t *testing.T) {
	s := snapshot(nil)
	x := &exchange{s: s, team: s.Teams["search"], call: &provider.Call{Upgrade: true}}
	plan, err := x.route()
	if err != nil || plan[0].State != "a/websocket" || s.Routes.Default.State == plan[0].State {
		t.Errorf("%v %v", plan[0].State, err)
	}
}
