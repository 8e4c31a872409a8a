package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// transport is shared by all clients, and keeps as many connections as they use.
var transport = &http.Transport{MaxIdleConnsPerHost: 2048, IdleConnTimeout: 30 * time.Second, DisableCompression: true}

// A chat is one chat completion as a client sends it. Clients never retry.
type chat struct {
	Key       string // client key
	Model     string // "m" when empty
	Prompt    int    // tokens, 10 when 0
	MaxTokens int    // 0 for none
	Stream    bool
	Simulate  string // directives for the simulated provider
}

func (c chat) body() []byte {
	model, prompt := c.Model, c.Prompt
	if model == "" {
		model = "m"
	}
	if prompt == 0 {
		prompt = 10
	}
	b := fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}]`, model, strings.Repeat("abc ", prompt))
	if c.MaxTokens > 0 {
		b = fmt.Appendf(b, `,"max_tokens":%d`, c.MaxTokens)
	}
	if c.Stream {
		b = append(b, `,"stream":true,"stream_options":{"include_usage":true}`...)
	}
	return append(b, '}')
}

func (c chat) request(ctx context.Context, base string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/chat/completions", bytes.NewReader(c.body()))
	if err != nil {
		panic(err) // the URL is a harness's own
	}
	r.Header.Set("Content-Type", "application/json")
	if c.Key != "" {
		r.Header.Set("Authorization", "Bearer "+c.Key)
	}
	if c.Simulate != "" {
		r.Header.Set("X-Simulate", c.Simulate)
	}
	return r
}

// send sends the chat and reads all of the answer.
func (c chat) send(ctx context.Context, base string) answer {
	begin := time.Now()
	a := c.read(ctx, base)
	a.took = time.Since(begin)
	return a
}

func (c chat) read(ctx context.Context, base string) (a answer) {
	resp, err := transport.RoundTrip(c.request(ctx, base))
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a.stream, a.status, a.header = c.Stream, resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// An answer is what a client got.
type answer struct {
	stream bool
	status int
	header http.Header
	body   []byte
	err    error
	took   time.Duration
}

// ok reports whether the answer is whole.
func (a answer) ok() bool {
	if a.err != nil || a.status != http.StatusOK {
		return false
	}
	if a.stream {
		return bytes.HasSuffix(bytes.TrimSpace(a.body), []byte("data: [DONE]")) && !bytes.Contains(a.body, []byte(`"error"`))
	}
	return json.Valid(a.body)
}

func (a answer) String() string {
	return fmt.Sprintf("status %d after %v, error %v: %.300s", a.status, a.took.Round(time.Millisecond), a.err, a.body)
}

// tokens is the usage that an unstreamed answer reports.
func (a answer) tokens() int64 {
	var v struct {
		Usage struct {
			Total int64 `json:"total_tokens"`
		}
	}
	_ = json.Unmarshal(a.body, &v) // ok has seen that it is valid
	return v.Usage.Total
}

// queued is how long the gateway says that the request waited.
func (a answer) queued() time.Duration {
	_, rest, _ := strings.Cut(a.header.Get("Server-Timing"), "queue;dur=")
	ms, _, _ := strings.Cut(rest, ",")
	v, err := strconv.ParseFloat(ms, 64)
	if err != nil {
		return 0
	}
	return time.Duration(v * float64(time.Millisecond))
}

// arrive calls do n times at a steady rate a second, each in a goroutine of its
// own, however long they take, and waits for all.
func arrive(n int, rate float64, do func(i int)) {
	var all sync.WaitGroup
	begin := time.Now()
	for i := range n {
		at := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if d := time.Until(at); d > 0 {
			<-time.After(d)
		}
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// A tally counts answers. It is safe for concurrent use.
type tally struct {
	mu      sync.Mutex
	all, ok int
	bad     []answer // the first few
	longest time.Duration
}

func (c *tally) add(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	c.longest = max(c.longest, a.took)
	if a.ok() {
		c.ok++
	} else if len(c.bad) < 5 {
		c.bad = append(c.bad, a)
	}
}

// done is how many answers there are so far.
func (c *tally) done() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

func (c *tally) success() string { return percent(float64(c.ok), float64(c.all)) }

// allOK fails the test if any answer is not whole.
func (c *tally) allOK(t testing.TB) {
	t.Helper()
	if c.ok != c.all {
		t.Errorf("%d of %d requests failed, such as:", c.all-c.ok, c.all)
		for _, a := range c.bad {
			t.Errorf("  %v", a)
		}
	}
}

// counts are the provider's own: attempts that reached it, and its 429s.
func counts(p *simulate.Provider) (attempts, refused float64) {
	s := p.Stats()
	for _, byStatus := range s.Requests {
		for _, n := range byStatus {
			attempts += float64(n)
		}
	}
	for _, n := range s.Refused {
		refused += float64(n)
	}
	return attempts, refused
}

// p95 is the 95th percentile.
func p95(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[len(sorted)*95/100]
}

// start runs a gateway before one or more providers; config has %s where the base
// URL of each goes.
func start(t testing.TB, config string, urls ...any) *harness.Gateway {
	t.Helper()
	g := harness.Start(t, "log: {access: false}\n"+fmt.Sprintf(config, urls...))
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if strings.Contains(g.Logs(), "DATA RACE") { // with PENSTOCK_RACE=1
			t.Error("the gateway has a data race; its log tells where")
		}
	})
	return g
}
