package faults

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// mischief is what an upstream does now and then.
var mischief = []string{
	"p=0.05,reset", "p=0.05,hang", "p=0.05,stall-after=2", "p=0.05,truncate-after=2", "p=0.05,reset-after=2", "p=0.05,reset-after=7b",
	"p=0.05,error-event-after=1", "p=0.03,garbage=html", "p=0.03,garbage=json", "p=0.05,status=500", "p=0.05,status=429,retry-after=1",
	"p=0.03,status=503", "p=0.03,insufficient-quota", "p=0.05,no-usage", "p=0.05,no-done", "p=0.05,split=3", "p=0.03,echo-key", "p=0.05,slow-body",
}

// Anything that clients and upstreams may do, at random and all at once, leaves the
// gateway as it was: nothing in flight, nothing held, no slot taken, no panic.
// covers CL-01, LIM-01, LIM-03, LIFE-06
func TestMonkeys(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var faults []simulate.Faults
	for _, text := range mischief {
		f, err := simulate.ParseFaults(text)
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, f)
	}
	p := simulate.New(simulate.Config{TTFT: 5 * time.Millisecond, TokenTime: time.Millisecond, OutputTokens: 20, Faults: faults, Seed: seed})
	url := harness.Serve(t, p)
	g := harness.Start(t, fmt.Sprintf(`
upstreams:
  up: {base_url: "%s/v1", api_key: sk-upstream-secret-0123456789, limits: {concurrency: 20, requests: 2000/s, tokens: 1M/s}}
  second: {base_url: "%s/v1", limits: {concurrency: 10}}
models: {m: [up, second]}
teams: {default: {limits: {concurrency: 25, requests: 3000/s}}}
log: {access: false}
timeouts: {headers: 500ms, first_token: 500ms, idle: 300ms, total: 3s, attempts: 2s}
gateway: {read_timeout: 300ms, max_body: 256KiB, max_memory: 4MiB, max_replay_bytes: 256KiB}
queue: {max_bytes: 2MiB, max_team_bytes: 2MiB, keepalive: 100ms, max_per_team: 200}
breaker: {open: 200ms, max_open: 1s}
relay: {write_timeout: 300ms}
`, url, url))
	quiet := func() bool {
		return g.Metric(t, "penstock_requests_in_flight") == 0 && g.Metric(t, "penstock_concurrency_in_use") == 0 &&
			g.Metric(t, "penstock_buffered_bytes") == 0 && g.Metric(t, "penstock_queue_depth") == 0
	}
	run := func(span time.Duration) {
		var all sync.WaitGroup
		until := time.Now().Add(span)
		for i := range 40 {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			all.Go(func() {
				for time.Now().Before(until) {
					monkey(t, g, r)
				}
			})
		}
		all.Wait()
		harness.Eventually(t, 30*time.Second, "all is quiet", quiet)
	}
	run(500 * time.Millisecond) // what is allocated once
	goroutines, descriptors := g.Goroutines(t), g.Descriptors(t)
	run(3 * time.Second)
	harness.Eventually(t, 30*time.Second, "goroutines and descriptors are gone", func() bool {
		return g.Goroutines(t) <= goroutines+60 && g.Descriptors(t) <= descriptors+60
	})
	for _, l := range []string{`scope="upstream"`, `scope="team"`} {
		level, capacity := g.Metric(t, "penstock_limit_level", l, `dimension="concurrency"`), g.Metric(t, "penstock_limit_capacity", l, `dimension="concurrency"`)
		if level != capacity || capacity == 0 {
			t.Errorf("%s: %v of %v slots are free", l, level, capacity)
		}
	}
	if n := g.Metric(t, "penstock_panics_total"); n != 0 || strings.Contains(g.Logs(), "DATA RACE") || strings.Contains(g.Logs(), `"level":"ERROR"`) {
		t.Errorf("%v panics, or worse: %s", n, g.Logs())
	}
	if strings.Contains(g.Logs(), "sk-upstream") {
		t.Error("a key stands in the log")
	}
	ok, all := g.Metric(t, "penstock_requests_total", `outcome="ok"`), g.Metric(t, "penstock_requests_total")
	if ok < 50 {
		t.Errorf("only %v of %v requests were served: this shows nothing", ok, all)
	}
	t.Logf("%v of %v requests were served", ok, all)
}

// monkey does one thing that a client may do.
func monkey(t *testing.T, g *harness.Gateway, r *rand.Rand) {
	s := dial(t, g)
	defer s.fin()
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	text := hello
	if r.IntN(2) == 0 {
		text = helloStream
	}
	switch r.IntN(12) {
	case 0:
		text = body(1 + r.IntN(300<<10))
	case 1:
		text = text[:r.IntN(len(text))]
	case 2:
		text = strings.Replace(text, "hello", strings.Repeat("[", r.IntN(1000)), 1)
	}
	request := head(len(text)) + text
	switch r.IntN(12) {
	case 0: // garbage
		b := []byte(request)
		for range 1 + r.IntN(20) {
			b[r.IntN(len(b))] = byte(r.IntN(256))
		}
		request = string(b)
	case 1: // cut
		request = request[:r.IntN(len(request))]
	case 2: // in chunks
		request = strings.Replace(head(0), "Content-Length: 0", "Transfer-Encoding: chunked", 1) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text)
	case 3: // two at once
		request += request
	case 4:
		request = "GET /v1/files/x HTTP/1.1\r\nHost: x\r\n\r\n"
	}
	if r.IntN(8) == 0 { // by the drop
		for i := 0; i < len(request) && i < 2000; i += 200 {
			s.send(request[i:min(len(request), i+200)])
			<-time.After(time.Duration(r.IntN(50)) * time.Millisecond)
		}
	} else {
		s.send(request)
	}
	switch r.IntN(6) {
	case 0:
		<-time.After(time.Duration(r.IntN(100)) * time.Millisecond)
		s.rst()
	case 1:
		<-time.After(time.Duration(r.IntN(100)) * time.Millisecond)
	case 2:
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s.r)
	case 3:
		_, _ = io.CopyN(io.Discard, s.r, int64(r.IntN(600)))
	default:
		resp, err := http.ReadResponse(s.r, nil)
		if err != nil {
			return
		}
		b, _ := io.ReadAll(resp.Body)
		if strings.Contains(string(b), "sk-upstream") {
			t.Errorf("the key came: %s", b)
		}
	}
}
