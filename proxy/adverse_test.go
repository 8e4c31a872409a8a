package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
	"penstock/simulate"
)

// An asked is one request of a case: tokens of its prompt, its max_tokens, and the
// tokens that the answer has.
type asked struct{ prompt, most, answer int }

// An adverse case is demand well above the limits of one or two providers.
type adverse struct {
	name   string
	ups    []simulate.Config
	silent string // "limits": answers tell nothing of limits; "all": nor when to come again
	limits []limits.Limit
	every  time.Duration
	lasts  time.Duration // 6 min when 0
	ask    func(i int, r *rand.Rand) asked
	// What must be so after the first third: least use of each provider's quota, most
	// refusals by providers, and over all the most failures that clients see, as shares.
	used, refused, failed float64
}

// silence hides what a provider tells of its limits.
type silence struct {
	http.ResponseWriter
	all bool
}

func (s silence) WriteHeader(status int) {
	for name := range s.Header() {
		if strings.HasPrefix(name, "X-Ratelimit") || s.all && strings.HasPrefix(name, "Retry-After") {
			s.Header().Del(name)
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s silence) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (c *adverse) handler(p *simulate.Provider) http.HandlerFunc {
	if c.silent == "" {
		return p.ServeHTTP
	}
	return func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(silence{w, c.silent == "all"}, r) }
}

func plainly(_ int, r *rand.Rand) asked { return asked{answer: 20 + r.IntN(60)} }

// covers LIM-02: whatever the limits and the requests are like, a provider that
// states its limits is neither asked too often nor left idle, and one that does not
// is not asked much too often.
func TestNeverOverNeverIdle(t *testing.T) {
	rpm, tpm := simulate.Config{RPM: 60}, simulate.Config{TPM: 6000}
	perMinute := func(d limits.Dimension, n int64) limits.Limit {
		return limits.Limit{Dimension: d, Amount: n, Window: time.Minute}
	}
	requests, tokens := perMinute(limits.Requests, 60), perMinute(limits.Tokens, 6000)
	slots := func(n int64) limits.Limit { return limits.Limit{Dimension: limits.Concurrency, Amount: n} }
	const second, ms = time.Second, time.Millisecond
	for _, c := range []adverse{
		{name: "stated requests", ups: []simulate.Config{rpm}, every: 300 * ms, used: 0.97},
		{name: "stated tokens", ups: []simulate.Config{tpm}, every: 300 * ms, used: 0.97},
		{name: "half of the configured requests", ups: []simulate.Config{rpm}, limits: []limits.Limit{perMinute(limits.Requests, 120)}, every: 300 * ms, used: 0.97},
		{name: "one request a minute", ups: []simulate.Config{{RPM: 1}}, limits: []limits.Limit{perMinute(limits.Requests, 1)}, every: 20 * second, lasts: time.Hour, used: 0.97},
		{name: "one request in a sliding minute", ups: []simulate.Config{{RPM: 1, Mode: simulate.Sliding}}, limits: []limits.Limit{perMinute(limits.Requests, 1)}, every: 20 * second, lasts: time.Hour, used: 0.97},
		{name: "one slot", ups: []simulate.Config{{Concurrency: 1}}, limits: []limits.Limit{slots(1)}, every: 700 * ms, used: 0.97},
		{name: "huge among small", ups: []simulate.Config{{TPM: 10_000}}, limits: []limits.Limit{perMinute(limits.Tokens, 10_000)}, every: 500 * ms, used: 0.97,
			ask: func(i int, r *rand.Rand) asked {
				if i%50 == 0 {
					return asked{prompt: 8000, answer: 10}
				}
				return asked{answer: 20 + r.IntN(400)}
			}},
		{name: "far shorter than predicted", ups: []simulate.Config{tpm}, limits: []limits.Limit{tokens}, every: 150 * ms, used: 0.97,
			ask: func(_ int, r *rand.Rand) asked { return asked{most: 4000, answer: 1 + r.IntN(30)} }},
		{name: "far longer than predicted", ups: []simulate.Config{{TPM: 4000}}, limits: []limits.Limit{perMinute(limits.Tokens, 4000)}, every: 300 * ms, used: 0.9,
			ask: func(i int, r *rand.Rand) asked {
				if i%12 == 0 {
					return asked{answer: 600} // the provider counts it long after it was admitted
				}
				return asked{answer: 10 + r.IntN(10)}
			}},
		{name: "max_tokens counted and not configured", ups: []simulate.Config{{TPM: 6000, Count: simulate.MaxTokens}}, limits: []limits.Limit{tokens}, every: 300 * ms, used: 0.97, failed: 0.01,
			ask: func(_ int, r *rand.Rand) asked { return asked{most: 500, answer: 20 + r.IntN(60)} }}, // that it does, has to be found out
		{name: "several windows", ups: []simulate.Config{rpm}, every: 300 * ms, used: 0.97,
			limits: []limits.Limit{requests, {Dimension: limits.Requests, Amount: 3, Window: second}, {Dimension: limits.Tokens, Amount: 1_000_000, Window: time.Hour}}},
		{name: "two unlike upstreams", ups: []simulate.Config{{RPM: 20}, {RPM: 100}}, every: 250 * ms, lasts: 4 * time.Minute, used: 0.97},

		// Where a provider says nothing but 429, it has to be tried.
		{name: "requests, in silence", silent: "all", ups: []simulate.Config{rpm}, every: 450 * ms, lasts: 10 * time.Minute, used: 0.8, refused: 0.15, failed: 0.1},
		{name: "tokens, in silence", silent: "all", ups: []simulate.Config{tpm}, every: 450 * ms, lasts: 10 * time.Minute, used: 0.8, refused: 0.15, failed: 0.1},
		{name: "requests, with Retry-After alone", silent: "limits", ups: []simulate.Config{rpm}, every: 450 * ms, lasts: 10 * time.Minute, used: 0.8, refused: 0.15, failed: 0.1},
		{name: "slots, in silence", silent: "all", ups: []simulate.Config{{Concurrency: 5}}, every: 250 * ms, lasts: 10 * time.Minute, used: 0.7, refused: 0.15, failed: 0.1},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.run) })
	}
}

// progress is what a provider has done so far.
type progress struct{ requests, tokens, attempts, refused, open float64 }

func progressOf(p *simulate.Provider) (out progress) {
	s := p.Stats()
	for _, byStatus := range s.Requests {
		for _, n := range byStatus {
			out.attempts += float64(n)
		}
	}
	for _, n := range s.Refused {
		out.refused += float64(n)
	}
	out.requests, out.tokens, out.open = float64(s.Admitted.Requests), float64(s.Admitted.Tokens), float64(s.Open)
	return out
}

func (c *adverse) world(t *testing.T, ups []*simulate.Provider) *world {
	handlers := make([]http.HandlerFunc, 2)
	for i, p := range ups {
		handlers[i] = c.handler(p)
	}
	w := newWorld(t, handlers[0], handlers[1], func(s *Snapshot) {
		s.Settings.AccessLog = false
		s.Settings.Timeouts = Timeouts{Idle: time.Minute, Total: 10 * time.Hour}
		for _, up := range s.Upstreams {
			up.Timeouts = s.Settings.Timeouts
		}
		s.Upstreams["a"].Output, s.Upstreams["b"].Output = CountAuto, CountAuto
		for i, l := range c.limits {
			l.ID, l.Scope, l.Owner, l.Burst, l.Wait = fmt.Sprintf("upstream/a/%d", i), limits.ScopeUpstream, "a", l.Amount, true
			s.Upstreams["a"].Limits = append(s.Upstreams["a"].Limits, &l)
		}
	})
	config := queueConfig()
	config.MaxWait[limits.Default], config.PerTeam = 10*time.Hour, 10_000
	w.p.queue.Configure(config)
	return w
}

func (c *adverse) run(t *testing.T) {
	var ups []*simulate.Provider
	for _, up := range c.ups {
		up.TTFT, up.TTFTJitter, up.TokenTime = 300*time.Millisecond, time.Second, 20*time.Millisecond
		ups = append(ups, simulate.New(up))
	}
	w := c.world(t, ups)
	if c.lasts == 0 {
		c.lasts = 6 * time.Minute
	}
	if c.ask == nil {
		c.ask = plainly
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	done, failed := 0, 0
	random := rand.New(rand.NewPCG(1, 2))
	from, open := make([]progress, len(ups)), make([]float64, len(ups))
	begin, ticks := time.Now(), 0.0
	for i := 0; time.Since(begin) < c.lasts; i++ {
		if time.Since(begin) >= c.lasts/3 {
			for i, p := range ups {
				if ticks == 0 {
					from[i] = progressOf(p)
				}
				open[i] += progressOf(p).open
			}
			ticks++
		}
		body, answer := c.body(c.ask(i, random), i)
		all.Go(func() {
			o := w.chat(body, "X-Simulate", fmt.Sprintf("tokens=%d", answer))
			mu.Lock()
			defer mu.Unlock()
			done++
			if o.status != 200 {
				failed++
			}
		})
		time.Sleep(c.every)
	}
	mu.Lock()
	if share := float64(failed) / float64(done); share > c.failed {
		t.Errorf("%d of %d requests failed, want at most %.3f", failed, done, c.failed)
	}
	mu.Unlock()
	for i, up := range c.ups {
		c.judge(t, up, from[i], progressOf(ups[i]), open[i]/ticks)
	}
	all.Wait() // in virtual time
	w.settled()
}

func (c *adverse) judge(t *testing.T, up simulate.Config, from, to progress, open float64) {
	minutes := (c.lasts - c.lasts/3).Minutes()
	var used float64
	switch {
	case up.RPM > 0:
		used = (to.requests - from.requests) / (float64(up.RPM) * minutes)
	case up.TPM > 0:
		used = (to.tokens - from.tokens) / (float64(up.TPM) * minutes)
	default:
		used = open / float64(up.Concurrency)
	}
	refused := (to.refused - from.refused) / (to.attempts - from.attempts)
	t.Logf("%.3f used, %.4f refused", used, refused)
	if used < c.used {
		t.Errorf("%.3f of the quota used, want at least %.2f", used, c.used)
	}
	if refused > max(c.refused, 0.001) {
		t.Errorf("the provider refused %.4f of %.0f attempts, want at most %.3f", refused, to.attempts-from.attempts, max(c.refused, 0.001))
	}
}

// body is a chat, every other one streamed.
func (c *adverse) body(a asked, i int) (body string, answer int) {
	model, content := "m", "hello there, gateway"
	if len(c.ups) > 1 {
		model = "both"
	}
	if a.prompt > 0 {
		content = strings.Repeat("abc ", a.prompt)
	}
	body = fmt.Sprintf(`{"model":%q,"stream":%v,"messages":[{"role":"user","content":%q}]`, model, i%2 == 0, content)
	if a.most > 0 {
		body += fmt.Sprintf(`,"max_tokens":%d`, a.most)
	}
	return body + "}", a.answer
}
