package faults

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// body is a chat request of n bytes.
func body(n int) string {
	const frame = `{"model":"m","messages":[{"role":"user","content":""}]}`
	return strings.Replace(frame, `""`, `"`+strings.Repeat("x", max(0, n-len(frame)))+`"`, 1)
}

// covers RES-04: 200 bodies of 4 MiB at once stay under the memory of the container;
// those that there is no room for are told so, and all come through who try again.
func TestManyLargeBodies(t *testing.T) {
	const limit, bodies = 256 << 20, 200
	u := newUpstream(answersAfter(100 * time.Millisecond)) // bodies pile up meanwhile
	// In a container penstock sets GOMEMLIMIT to nine tenths of the memory by itself.
	g := harness.Start(t, one(harness.Serve(t, u), "log: {access: false}\nqueue: {max_bytes: 64MiB, max_team_bytes: 64MiB}\n"), fmt.Sprintf("GOMEMLIMIT=%d", limit/10*9))
	text := body(4 << 20)
	var mu sync.Mutex
	statuses := map[int]int{}
	ask := func() int {
		resp, err := http.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(text))
		if err != nil {
			return 0 // refused while it was still sending
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 503 && (!strings.Contains(string(b), "memory_full") || resp.Header.Get("Retry-After") == "") {
			t.Errorf("503 with %s", b)
		}
		return resp.StatusCode
	}
	var all sync.WaitGroup
	for range bodies {
		all.Go(func() {
			status := ask()
			mu.Lock()
			statuses[status]++
			mu.Unlock()
			for range 200 {
				if status == 200 {
					return
				}
				<-time.After(100 * time.Millisecond)
				status = ask()
			}
			t.Errorf("still %d after 200 tries", status)
		})
	}
	all.Wait()
	peak := g.Peak(t)
	if peak > limit {
		t.Errorf("peak of %d MiB, the limit is %d MiB", peak>>20, limit>>20)
	}
	for status := range statuses {
		if status != 200 && status != 503 && status != 429 && status != 0 {
			t.Errorf("answered %d", status)
		}
	}
	if statuses[200] == 0 || statuses[200] == bodies {
		t.Errorf("%v: want some to be served at once, and some refused", statuses)
	}
	if n := g.Metric(t, "penstock_buffered_bytes"); n != 0 {
		t.Errorf("%v bytes are still counted", n)
	}
	t.Logf("peak %d MiB of %d, first answers %v", peak>>20, limit>>20, statuses)
}

// covers RES-04: a request of 10 KiB costs less than 1 MiB.
func TestSmallRequestsCostLittle(t *testing.T) {
	const n = 300
	u := newUpstream(hangs)
	g := harness.Start(t, one(harness.Serve(t, u), ""))
	before := g.Resident(t)
	text := body(10 << 10)
	for range n {
		dial(t, g).post(text)
	}
	harness.Eventually(t, 30*time.Second, "all are waiting for the upstream", reached(u, n))
	each := (g.Resident(t) - before) / n
	if each >= 1<<20 {
		t.Errorf("%d KiB each", each>>10)
	}
	t.Logf("%d KiB each", each>>10)
}

// covers CL-04: bodies that are too large or compressed are refused, by their
// length before a byte of them is read, and cost no memory.
func TestHugeBodies(t *testing.T) {
	harness.Rounds(t, hugeBodies)
}

func hugeBodies(t *harness.Round) {
	const limit = 1 << 20
	u := newUpstream(answers)
	g := harness.Start(t, one(harness.Serve(t, u), "gateway: {max_body: 1MiB}\n"))
	before := g.Resident(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	chunked := func(coding string) string {
		return strings.Replace(head(0, coding), "Content-Length: 0", "Transfer-Encoding: chunked", 1)
	}
	cases := map[string]struct {
		send   func(s *socket)
		status int
	}{
		"declared":  {func(s *socket) { s.send(head(1 << 40)) }, 413},
		"chunked":   {func(s *socket) { s.send(chunked("X-A: b")); endless(s) }, 413},
		"gzip":      {func(s *socket) { s.post(bomb.String(), "Content-Encoding: gzip") }, 415},
		"gzip too":  {func(s *socket) { s.post(bomb.String(), "Content-Encoding: identity", "Content-Encoding: gzip") }, 415},
		"gzip name": {func(s *socket) { s.post(bomb.String(), "Content-Encoding: x-unknown") }, 415},
	}
	var all sync.WaitGroup
	for name, c := range cases {
		for range 20 {
			all.Go(func() {
				s := dial(t, g)
				begin := time.Now()
				go c.send(s)
				resp := s.response()
				if resp.StatusCode != c.status {
					t.Errorf("%s: %d, want %d", name, resp.StatusCode, c.status)
				}
				if name == "declared" {
					t.AtMost(2*time.Second, time.Since(begin), "an answer to a declared length")
				}
				b, _ := io.ReadAll(resp.Body)
				if !strings.Contains(string(b), `"error"`) || resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %s", name, b)
				}
			})
		}
	}
	all.Wait()
	if grown := g.Peak(t) - before; grown > 20*limit+32<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if u.hits.Load() != 0 {
		t.Errorf("%d reached the upstream", u.hits.Load())
	}
}

// endless sends chunks until the connection breaks.
func endless(s *socket) {
	piece := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10))
	for {
		if _, err := io.WriteString(s, piece); err != nil {
			return
		}
	}
}
