package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// transport is shared by all clients.
var transport = &http.Transport{MaxIdleConnsPerHost: 512, IdleConnTimeout: 30 * time.Second, DisableCompression: true}

var serial atomic.Int64

// An ask is what one request asks for. Its answer has the most tokens that it may
// have, so that what is reserved is what is used.
type ask struct {
	id      int
	replica int
	team    string
	model   string
	prompt  int // tokens
	output  int // tokens
}

func (a ask) tokens() float64 { return float64(a.prompt + a.output) }

// An answer is what became of an ask. Clients never retry.
type answer struct {
	ask                        ask
	sent, got                  time.Time
	status, attempts           int
	err                        error
	text                       string // of a failure
	queued, upstream, overhead time.Duration
}

func (a *answer) ok() bool { return a.err == nil && a.status == http.StatusOK }

func (a *answer) String() string {
	return fmt.Sprintf("%s at replica %d: status %d after %v, error %v: %.300s", a.ask.model, a.ask.replica, a.status, a.got.Sub(a.sent).Round(time.Millisecond), a.err, a.text)
}

// send sends the ask to a gateway and reads all of the answer.
func (a ask) send(ctx context.Context, base string) answer {
	a.id = int(serial.Add(1))
	out := answer{ask: a, sent: time.Now()}
	body := fmt.Appendf(nil, `{"model":%q,"max_tokens":%d,"messages":[{"role":"user","content":%q}]}`, a.model, a.output, strings.Repeat("abc ", a.prompt))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		panic(err) // the URL is a harness's own
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+keyOf(a.team))
	r.Header.Set(idHeader, strconv.Itoa(a.id))
	r.Header.Set(teamHeader, a.team)
	r.Header.Set(replicaHeader, strconv.Itoa(a.replica))
	r.Header.Set("X-Simulate", "tokens="+strconv.Itoa(a.output))
	out.read(r)
	out.got = time.Now()
	return out
}

func (a *answer) read(r *http.Request) {
	resp, err := transport.RoundTrip(r)
	if err != nil {
		a.err = err
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	a.status, a.err = resp.StatusCode, err
	if a.status != http.StatusOK || !json.Valid(b) {
		a.text = string(b)
	}
	a.attempts, _ = strconv.Atoi(resp.Header.Get("X-Penstock-Attempts")) // 0 where there was none
	timing := resp.Header.Get("Server-Timing")
	a.queued, a.upstream, a.overhead = span(timing, "queue"), span(timing, "upstream"), span(timing, "overhead")
}

// span is one of the times in a Server-Timing header.
func span(timing, name string) time.Duration {
	_, rest, _ := strings.Cut(timing, name+";dur=")
	ms, _, _ := strings.Cut(rest, ",")
	v, err := strconv.ParseFloat(ms, 64)
	if err != nil {
		return 0
	}
	return time.Duration(v * float64(time.Millisecond))
}

// A crowd is clients of which each sends one ask after the other until it is told
// to stop. It is safe for concurrent use.
type crowd struct {
	stop context.CancelFunc
	ctx  context.Context
	all  sync.WaitGroup

	mu      sync.Mutex
	answers []answer
}

func newCrowd(t testing.TB) *crowd {
	c := &crowd{}
	c.ctx, c.stop = context.WithCancel(context.Background())
	t.Cleanup(func() {
		c.stop()
		c.all.Wait()
		transport.CloseIdleConnections()
	})
	return c
}

// join adds n clients that ask what next says of a gateway. Those whose gateway is
// gone leave.
func (c *crowd) join(n int, base string, gone *atomic.Bool, next func() ask) {
	for range n {
		c.all.Go(func() {
			for c.ctx.Err() == nil {
				a := next().send(context.Background(), base)
				if gone.Load() {
					a.text = goneText
				}
				c.note(a)
				if gone.Load() {
					return
				}
			}
		})
	}
}

func (c *crowd) note(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, a)
}

// goneText marks the answers of a gateway that was killed meanwhile.
const goneText = "the gateway was killed"

// end waits for the last answers, and returns all.
func (c *crowd) end() []answer {
	c.stop()
	c.all.Wait()
	return c.answers
}

// allOK fails the test if any answer is not whole, except for those of gateways
// that were killed.
func allOK(t testing.TB, answers []answer) {
	t.Helper()
	bad := 0
	for i := range answers {
		if a := &answers[i]; !a.ok() && a.text != goneText {
			if bad++; bad <= 5 {
				t.Errorf("  %v", a)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d requests failed", bad, len(answers))
	}
}
