package clients

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/realtime"
	"github.com/openai/openai-go/v3/responses"

	"penstock/e2e/clients/stack"
	"penstock/e2e/harness"
)

// OpenAI's SDK talks through a WebSocket, to realtime and to responses.
func TestSDKOverWebSocket(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	rt, err := c.Realtime.Connect(within(t), realtime.RealtimeConnectionOptions{},
		option.WithQuery("model", stack.Alias), option.WithHeader(stack.RecordHeader, "realtime"))
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Abort()
	if e, err := rt.Recv(within(t)); err != nil || e.Type != "session.created" || !strings.Contains(e.RawJSON(), stack.AliasTarget) {
		t.Fatalf("%v %s", err, e.RawJSON())
	}
	if err := rt.SendRaw(within(t), json.RawMessage(`{"type":"response.create"}`)); err != nil {
		t.Fatal(err)
	}
	text, last := "", ""
	for last != "response.done" {
		e, err := rt.Recv(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if last = e.Type; last == "response.output_text.delta" {
			var delta struct{ Delta string }
			_ = json.Unmarshal([]byte(e.RawJSON()), &delta) // it has been read once
			text += delta.Delta
		}
	}
	if text != "the river" {
		t.Errorf("got %q", text)
	}
	if got := recorded(t, s.Main, "realtime"); got.Header.Get("Authorization") != "Bearer "+s.UpstreamKey || got.Path != "/v1/realtime" || got.Query != "model="+stack.AliasTarget {
		t.Errorf("the provider got %s?%s, %v", got.Path, got.Query, got.Header)
	}

	rs, err := c.Responses.Connect(within(t), responses.ResponseConnectionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Abort()
	if err := rs.SendRaw(within(t), json.RawMessage(`{"type":"response.create","model":"gpt-4o","input":"x"}`)); err != nil {
		t.Fatal(err)
	}
	for last = ""; last != "response.completed"; {
		e, err := rs.Recv(within(t))
		if err != nil {
			t.Fatal(err)
		}
		last = e.Type
	}
	if n := s.Gateway.Metric(t, "penstock_websockets"); n != 2 {
		t.Errorf("%v are open, want 2", n)
	}
	_, _ = rt.Close(), rs.Close()
	harness.Eventually(t, 30*time.Second, "both are closed", func() bool { return s.Gateway.Metric(t, "penstock_websockets") == 0 })
}

// Messages of every size and kind, and codes of closing, pass both ways.
func TestWebSocketMessages(t *testing.T) {
	s := stack.Start(t)
	for name, url := range map[string]string{"gateway": s.BaseURL, "sidecar": s.Sidecar, "without /v1": strings.TrimSuffix(s.BaseURL, "/v1")} {
		t.Run(name, func(t *testing.T) {
			// As a browser does it, with the key where a page can put it.
			conn, resp, err := websocket.Dial(within(t), url+"/responses", &websocket.DialOptions{
				Subprotocols: []string{"realtime", "openai-insecure-api-key." + s.ClientKey}, CompressionMode: websocket.CompressionContextTakeover,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.CloseNow() }()
			if conn.Subprotocol() != "realtime" || !strings.HasPrefix(resp.Header.Get("X-Penstock-Request-Id"), "req_") {
				t.Errorf("subprotocol %q, headers %v", conn.Subprotocol(), resp.Header)
			}
			conn.SetReadLimit(8 << 20)
			for _, size := range []int{0, 1, 125, 126, 70_000, 4 << 20} {
				kind, message := websocket.MessageBinary, bytes.Repeat([]byte{0, 0xff, 'x'}, size/3+1)[:size]
				if size%2 == 1 {
					kind, message = websocket.MessageText, []byte(strings.Repeat("ü", size))
				}
				if err := conn.Write(within(t), kind, message); err != nil {
					t.Fatal(err)
				}
				got, back, err := conn.Read(within(t))
				if err != nil || got != kind || !bytes.Equal(back, message) {
					t.Fatalf("%d bytes: %v, %d came back", size, err, len(back))
				}
			}
			ctx := conn.CloseRead(within(t))
			if err := conn.Ping(ctx); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
	conn, _, err := websocket.Dial(within(t), s.BaseURL+"/realtime?model=gpt-4o", &websocket.DialOptions{HTTPHeader: http.Header{"Api-Key": {s.ClientKey}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if err := conn.Write(within(t), websocket.MessageText, []byte(`{"type":"close"}`)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = conn.Read(within(t))
	}
	if websocket.CloseStatus(err) != 4000 {
		t.Errorf("closed by %v", err)
	}
}

func TestWebSocketsThatAreRefused(t *testing.T) {
	s := stack.Start(t)
	for name, c := range map[string]struct {
		key, path string
		status    int
	}{
		"unknown key": {"sk-unknown", "/realtime?model=gpt-4o", 401}, "unknown model": {s.ClientKey, "/realtime?model=nobody-has-this", 404},
		"model not allowed": {s.NarrowKey, "/realtime?model=gpt-4o", 403}, "model not told": {s.NarrowKey, "/responses", 403}, "nobody listens": {s.ClientKey, "/realtime?model=" + stack.Unreachable, 502},
	} {
		conn, resp, err := websocket.Dial(within(t), s.BaseURL+c.path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + c.key}}})
		if err == nil {
			_ = conn.CloseNow()
		}
		if resp == nil || resp.StatusCode != c.status {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A WebSocket outlives the beginning of a drain, and the drain ends with it.
//
// covers LIFE-01
func TestDrainWaitsForWebSockets(t *testing.T) {
	up := harness.Serve(t, stack.NewRecorder(nil))
	g := harness.Start(t, "upstreams: {up: {base_url: "+up+"/v1}}\ndrain: {limit: 30s}\n")
	conn, _, err := websocket.Dial(within(t), g.URL+"/v1/responses", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	ended := make(chan error, 1)
	go func() { ended <- g.Stop(t, 20*time.Second) }()
	harness.Eventually(t, 30*time.Second, "the drain begins", func() bool { return strings.Contains(g.Logs(), `"draining"`) })
	for range 3 {
		if err := conn.Write(within(t), websocket.MessageText, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(within(t)); err != nil || string(got) != "still here" {
			t.Fatalf("%q %v", got, err)
		}
	}
	if len(ended) != 0 {
		t.Fatal("the drain has not waited")
	}
	_ = conn.CloseNow()
	if err := <-ended; err != nil || !strings.Contains(g.Logs(), `"outcome":"ok"`) {
		t.Errorf("%v\n%s", err, g.Logs())
	}
}

// Whoever hangs up, nothing is left behind.
//
// covers CL-03
func TestWebSocketsLeaveNothing(t *testing.T) {
	up := harness.Serve(t, stack.NewRecorder(nil))
	g := harness.Start(t, "upstreams: {up: {base_url: "+up+"/v1, limits: {concurrency: 100}}}\n")
	round := func() {
		var open []*websocket.Conn
		for range 100 { // as many as may be open
			conn, _, err := websocket.Dial(within(t), g.URL+"/v1/responses", nil)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
		if n := g.Metric(t, "penstock_concurrency_in_use"); n != 100 {
			t.Errorf("%v slots are held, want 100", n)
		}
		for i, conn := range open {
			switch i % 3 {
			case 0:
				_ = conn.CloseNow() // without a word
			case 1:
				_ = conn.Close(websocket.StatusNormalClosure, "")
			default:
				_ = conn.Write(within(t), websocket.MessageText, []byte(`{"type":"close"}`))
				for err := error(nil); err == nil; {
					_, _, err = conn.Read(within(t))
				}
			}
		}
		harness.Eventually(t, 30*time.Second, "all are closed and every slot is free", func() bool {
			return g.Metric(t, "penstock_websockets") == 0 && g.Metric(t, "penstock_concurrency_in_use") == 0
		})
	}
	round()
	before := g.Descriptors(t)
	round()
	harness.Eventually(t, 30*time.Second, "no goroutine and no descriptor is left", func() bool {
		return g.Descriptors(t) <= before+5 && g.Goroutines(t) < 60
	})
}

// Providers speak HTTP/2, over which no WebSocket is opened: it gets a connection of
// its own.
func TestWebSocketToAProviderOfHTTP2(t *testing.T) {
	protocols := make(chan string, 2)
	rec := stack.NewRecorder(nil)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols <- r.Proto
		if r.Header.Get("Upgrade") != "" {
			rec.ServeHTTP(w, r)
		}
	}))
	up.EnableHTTP2 = true
	up.StartTLS()
	t.Cleanup(func() {
		up.CloseClientConnections()
		up.Close()
	})
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	g := harness.Start(t, "upstreams: {up: {base_url: "+up.URL+"/v1}}\n", "SSL_CERT_FILE="+file)
	if resp, body := post(t, g.URL+"/v1/files", "any", ""); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	conn, _, err := websocket.Dial(within(t), g.URL+"/v1/realtime?model=m", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if _, got, err := conn.Read(within(t)); err != nil || !strings.Contains(string(got), "session.created") {
		t.Errorf("%q %v", got, err)
	}
	if first, second := <-protocols, <-protocols; first != "HTTP/2.0" || second != "HTTP/1.1" {
		t.Errorf("spoken: %s, %s", first, second)
	}
}
