package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/auth"
	"penstock/breaker"
	"penstock/limits"
	"penstock/plainhttp"
	"penstock/provider"
	"penstock/provider/openai"
	"penstock/route"
	"penstock/telemetry"
	"penstock/tokens"
)

// A pipeListener is a network of one address, in memory, so that whole servers
// run within a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return mine, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
	}
}

// A world is a gateway between a client and upstreams a and b, all in one bubble.
type world struct {
	t        *testing.T
	p        *Proxy
	s        *Snapshot
	store    *limits.Memory
	registry *prometheus.Registry
	client   *http.Client
	front    *pipeListener // where the gateway listens
	logs     *bytes.Buffer
	stops    []func()
}

const (
	clientKey   = "psk_client-key-of-the-search-team-0123456789"
	upstreamKey = "sk-upstream-secret-0123456789abcdef"
)

// newWorld starts a gateway with two upstreams. Handlers that are nil refuse
// connections.
func newWorld(t *testing.T, a, b http.HandlerFunc, change ...func(*Snapshot)) *world {
	t.Helper()
	w := &world{t: t, store: limits.NewMemory(), registry: prometheus.NewRegistry(), logs: &bytes.Buffer{}}
	listeners := map[string]*pipeListener{"a": newPipeListener(), "b": newPipeListener()}
	for name, h := range map[string]http.HandlerFunc{"a": a, "b": b} {
		l := listeners[name]
		if h == nil {
			l.Close()
			continue
		}
		w.serve(l, h)
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		name, _, _ := net.SplitHostPort(addr)
		return listeners[name].dial(ctx)
	}}
	plain := plainhttp.New(transport, 100)
	w.stops = append(w.stops, plain.CloseIdleConnections)
	w.s = snapshot(plain)
	for _, f := range change {
		f(w.s)
	}
	set := breaker.NewSet(breaker.Config{Consecutive: 5, Ratio: 50, MinRequests: 20, Window: time.Minute, Open: 30 * time.Second, MaxOpen: 5 * time.Minute, Probes: 1}, nil)
	w.p = New(Parts{
		Store: w.store, Queue: limits.NewQueue(w.store, queueConfig()), Breakers: set,
		Estimator: tokens.New(tokens.Config{BytesPerToken: 4, FirstOutput: 100}),
		Metrics:   telemetry.New(w.registry), Log: slog.New(slog.NewJSONHandler(w.logs, nil)),
	}, w.s)
	w.registry.MustRegister(w.p.Gauges("test"))
	front := newPipeListener()
	w.front = front
	w.serve(front, w.p.ServeHTTP)
	edge := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return front.dial(ctx) }}
	w.stops = append(w.stops, edge.CloseIdleConnections)
	w.client = &http.Client{Transport: edge}
	t.Cleanup(func() {
		for i := len(w.stops) - 1; i >= 0; i-- {
			w.stops[i]()
		}
		time.Sleep(time.Minute) // virtual: servers linger on connections they close early
	})
	return w
}

func (w *world) serve(l net.Listener, h http.HandlerFunc) {
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	if l == w.front {
		s.BaseContext = func(net.Listener) context.Context { return w.p.Context() }
	}
	go func() { _ = s.Serve(l) }()
	w.stops = append(w.stops, func() { _ = s.Close() })
}

func snapshot(rt http.RoundTripper) *Snapshot {
	target := func(name string) provider.Target {
		return provider.Target{
			Upstream: name, State: name + "/m", Label: "m", Weight: 1, BaseURL: &url.URL{Scheme: "http", Host: name + ":80", Path: "/v1"},
			Credential: upstreamKey, StreamUsage: true, MaxAnswer: 64 << 10,
		}
	}
	times := Timeouts{Headers: 20 * time.Second, FirstToken: 10 * time.Second, Idle: 5 * time.Second, Total: 2 * time.Minute, Attempts: time.Minute}
	up := func(name string) *Upstream {
		return &Upstream{Name: name, Adapter: openai.Adapter{}, Transport: rt, Timeouts: times, Learn: true, Models: map[string][]*limits.Limit{}}
	}
	a, b := target("a"), target("b")
	return &Snapshot{
		Keys:      auth.NewKeys([]auth.Key{{Hash: auth.HashOf(clientKey), Caller: auth.Caller{Team: "search", Key: "prod"}}}, auth.Caller{}),
		Teams:     map[string]*Team{"search": {Name: "search", Weight: 1, Class: limits.Default}},
		Upstreams: map[string]*Upstream{"a": up("a"), "b": up("b")},
		Routes: &route.Table{
			Routes:  map[string]route.Route{"m": {Targets: []provider.Target{a}}, "both": {Targets: []provider.Target{a, b}}},
			Default: a, Upstreams: map[string]provider.Target{"a": a, "b": b}, Seen: route.NewSeen(),
		},
		Settings: Settings{
			MaxBody: 1 << 20, MaxUpload: 8 << 20, MaxReplay: 1 << 20, MaxMemory: 16 << 20, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
			Bounds: openai.Bounds{MaxOutput: 100_000, MaxChoices: 128}, MaxAttempts: 3, BaseDelay: 250 * time.Millisecond, MaxDelay: 8 * time.Second,
			MaxRetryAfter: 20 * time.Second, Budget: 20, BudgetFloor: 10, Timeouts: times, AccessLog: true, ExplainRequests: 10, ExplainHeader: true,
		},
	}
}

func queueConfig() limits.QueueConfig {
	var c limits.QueueConfig
	c.MaxWait = [3]time.Duration{10 * time.Second, time.Minute, time.Hour}
	c.Ceiling = [3]int64{100, 90, 70}
	c.PerTeam, c.Total, c.TeamSize, c.Size = 1000, 10_000, 64<<20, 256<<20
	return c
}

// limit puts a limit before upstream a and returns it.
func (w *world) limit(d limits.Dimension, n int64, window time.Duration) *limits.Limit {
	l := &limits.Limit{ID: "upstream/a/" + d.String(), Scope: limits.ScopeUpstream, Owner: "a", Dimension: d, Amount: n, Window: window, Burst: n, Wait: true}
	w.s.Upstreams["a"].Limits = append(w.s.Upstreams["a"].Limits, l)
	w.p.Swap(w.s)
	return l
}

// teamLimit gives the team a limit that refuses.
func (w *world) teamLimit(d limits.Dimension, n int64, window time.Duration) *limits.Limit {
	l := &limits.Limit{ID: "team/search/" + d.String(), Scope: limits.ScopeTeam, Owner: "search", Dimension: d, Amount: n, Window: window, Burst: n}
	w.s.Teams["search"].Limits = append(w.s.Teams["search"].Limits, l)
	return l
}

func (w *world) remaining(l *limits.Limit) int64 {
	levels, _ := w.store.Levels(context.Background(), []*limits.Limit{l})
	return levels[0].Remaining
}

// request makes a request of the client's; headers come in pairs.
func (w *world) request(method, path, body string, headers ...string) *http.Request {
	w.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://gateway"+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+clientKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// An outcome is what a client saw.
type outcome struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
	took   time.Duration
}

func (o outcome) code() string {
	_, rest, _ := strings.Cut(o.body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

func (w *world) do(req *http.Request) outcome {
	w.t.Helper()
	begin := time.Now()
	resp, err := w.client.Do(req)
	if err != nil {
		return outcome{err: err, took: time.Since(begin)}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return outcome{resp.StatusCode, resp.Header, string(b), err, time.Since(begin)}
}

// chat posts a chat completion.
func (w *world) chat(body string, headers ...string) outcome {
	w.t.Helper()
	return w.do(w.request("POST", "/v1/chat/completions", body, headers...))
}

// settled fails the test unless nothing is held any more.
func (w *world) settled() {
	w.t.Helper()
	if n := w.p.InFlight(); n != 0 {
		w.t.Errorf("%d requests in flight", n)
	}
	if n := w.p.memory.used.Load(); n != 0 {
		w.t.Errorf("%d bytes held", n)
	}
	for _, d := range w.p.queue.Depths() {
		if d.Waiting != 0 {
			w.t.Errorf("%d waiting at %s", d.Waiting, d.Upstream)
		}
	}
	for _, t := range w.p.targets {
		if t.InUse() != 0 {
			w.t.Errorf("%d in use at %s", t.InUse(), t.Name)
		}
	}
}

// metric adds up the samples of a metric whose labels include the pairs given.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "penstock_"+name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for i := 0; i+1 < len(labels); i += 2 {
				if have[labels[i]] != labels[i+1] {
					continue samples
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello there, gateway"}]}`

const helloStream = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there, gateway"}]}`

const answerJSON = `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`

func chunk(text string) string {
	return fmt.Sprintf("data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", text)
}

const (
	finishChunk = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	usageChunk  = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n"
	doneChunk   = "data: [DONE]\n\n"
)

// sends answers with JSON.
func sends(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// streams answers with events, flushed one by one; a duration among them is a
// pause, an error breaks the connection off.
func streams(parts ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				_, _ = io.WriteString(w, p)
				_ = http.NewResponseController(w).Flush()
			case time.Duration:
				select {
				case <-time.After(p):
				case <-r.Context().Done():
					return
				}
			case error:
				panic(http.ErrAbortHandler)
			}
		}
	}
}

// inTurn serves each request with the next handler, the last one for ever.
func inTurn(hs ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := hs[min(n, len(hs)-1)]
		n++
		mu.Unlock()
		h(w, r)
	}
}

// counting counts the requests to a handler.
func counting(n *int, h http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		*n++
		mu.Unlock()
		h(w, r)
	}
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// resets breaks the connection off before any byte.
func resets(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

func readEvent(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\n" {
			return b.String()
		}
	}
}
