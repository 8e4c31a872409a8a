package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/breaker"
	"penstock/limits"
	"penstock/telemetry"
	"penstock/tokens"
)

// replies is an upstream without a network: a transport that answers each request
// with the same bytes.
type replies struct {
	kind string
	body []byte
	step int // bytes of a read, 0 for all that fit
}

func (r *replies) RoundTrip(req *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, req.Body)
	resp := &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(r.body)), Request: req,
		Header: http.Header{"Content-Type": {r.kind}, "Content-Length": {strconv.Itoa(len(r.body))}, "Date": {"Mon, 02 Nov 2026 15:04:05 GMT"}},
		Body:   io.NopCloser(&pieces{bytes.NewReader(r.body), r.step}),
	}
	return resp, nil
}

// pieces reads a few bytes at a time.
type pieces struct {
	r    *bytes.Reader
	step int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.step > 0 {
		b = b[:min(len(b), p.step)]
	}
	return p.r.Read(b)
}

// sink is a client that takes everything.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header                { return s.h }
func (s *sink) Write(b []byte) (int, error)        { return len(b), nil }
func (s *sink) WriteHeader(int)                    {}
func (s *sink) FlushError() error                  { return nil }
func (s *sink) SetReadDeadline(_ time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(_ time.Time) error { return nil }

// benchServe serves one request again and again, with limits on everything.
func benchServe(b *testing.B, upstream *replies, body string) {
	s := snapshot(upstream)
	s.Settings.AccessLog = false
	for scope, add := range map[limits.Scope]func(...*limits.Limit){
		limits.ScopeTeam:     func(l ...*limits.Limit) { s.Teams["search"].Limits = append(s.Teams["search"].Limits, l...) },
		limits.ScopeUpstream: func(l ...*limits.Limit) { s.Upstreams["a"].Limits = append(s.Upstreams["a"].Limits, l...) },
	} {
		wait := scope == limits.ScopeUpstream
		add(
			&limits.Limit{ID: scope.String() + "/concurrency", Scope: scope, Dimension: limits.Concurrency, Amount: 1000, Burst: 1000, Wait: true},
			&limits.Limit{ID: scope.String() + "/requests", Scope: scope, Dimension: limits.Requests, Amount: 1e9, Burst: 1e9, Window: time.Minute, Wait: wait},
			&limits.Limit{ID: scope.String() + "/tokens", Scope: scope, Dimension: limits.Tokens, Amount: 1e12, Burst: 1e12, Window: time.Minute, Wait: wait},
		)
	}
	store := limits.NewMemory()
	p := New(Parts{
		Store: store, Queue: limits.NewQueue(store, queueConfig()),
		Breakers:  breaker.NewSet(breaker.Config{Consecutive: 5, Ratio: 50, MinRequests: 20, Window: time.Minute, Open: 30 * time.Second, MaxOpen: 5 * time.Minute, Probes: 1}, nil),
		Estimator: tokens.New(tokens.Config{BytesPerToken: 4, FirstOutput: 100}),
		Metrics:   telemetry.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	}, s)
	r, err := http.NewRequest("POST", "http://gateway/v1/chat/completions", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + clientKey}, "Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {"bench/1"}}
	r.ContentLength = int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(strings.NewReader(body))
		p.ServeHTTP(&sink{h: make(http.Header)}, r)
	}
	if n := p.InFlight(); n != 0 {
		b.Fatalf("%d requests in flight", n)
	}
}

// BenchmarkAnswer is the whole life of a small request, without any network.
func BenchmarkAnswer(b *testing.B) {
	benchServe(b, &replies{kind: "application/json", body: []byte(answerJSON)}, hello)
}

// BenchmarkStream is that of a stream of a thousand events, which come one by one
// or as fast as they can be read.
func BenchmarkStream(b *testing.B) {
	event := chunk(" word")
	body := []byte(strings.Repeat(event, 1000) + finishChunk + usageChunk + doneChunk)
	for _, c := range []struct {
		name string
		step int
	}{{"burst", 4 << 10}, {"single", len(event)}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			benchServe(b, &replies{kind: "text/event-stream", body: body, step: c.step}, helloStream)
		})
	}
}
