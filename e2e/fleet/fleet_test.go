package fleet

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/limits/redisstore/redistest"
	"penstock/simulate"
)

func TestMain(m *testing.M) {
	// The tests mostly wait, so they run side by side, however few cores there are.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// keyOf is the client key of a team in these tests.
func keyOf(team string) string { return "psk_" + strings.Repeat(team, 6) }

// A fleet is gateways that share their limits through a Redis on a wire.
type fleet struct {
	*testing.T
	redis    *redistest.Server
	wire     *harness.Wire
	slots    *witness // upstream whose limit is concurrency
	rates    *witness // upstream whose limits are rates
	replicas []*replica
}

type replica struct {
	*harness.Gateway
	gone atomic.Bool
}

// The limits of the fleets of these tests.
const (
	slots       = 24
	cappedSlots = 8 // of the team capped
	perSecond   = 100
	burst       = 30
	tokens      = 4000 // a second
	tokensBurst = 2000
)

// rules are the rates of these fleets, as a witness is to see them.
var rules = []rule{
	{name: "requests", rate: perSecond, burst: burst, of: func(a ask) float64 { return ofRates(a, 1) }},
	{name: "tokens", rate: tokens, burst: tokensBurst, of: func(a ask) float64 { return ofRates(a, a.tokens()) }},
}

func ofRates(a ask, n float64) float64 {
	if a.model == "rates" {
		return n
	}
	return 0
}

func newFleet(t *testing.T, replicas int) *fleet {
	t.Helper()
	f := &fleet{T: t, redis: redistest.Start(t)}
	f.wire = harness.NewWire(t, f.redis.Addr)
	f.start(replicas, fmt.Sprintf("{url: %q}", "redis://"+f.wire.Addr))
	return f
}

func (f *fleet) start(replicas int, redis string) {
	f.Helper()
	f.slots = newWitness(simulate.Config{TTFT: 120 * time.Millisecond, TTFTJitter: 60 * time.Millisecond, TokenTime: simulate.NoWait})
	f.rates = newWitness(simulate.Config{TTFT: 20 * time.Millisecond, TokenTime: simulate.NoWait})
	text := fmt.Sprintf(`
upstreams:
  slots: {base_url: "%[1]s/v1", limits: {concurrency: %[2]d}}
  rates:
    base_url: "%[3]s/v1"
    limits:
      requests: {limit: %[4]d, per: 1s, burst: %[5]d}
      tokens: {limit: %[6]d, per: 1s, burst: %[7]d}
  long: {base_url: "%[3]s/v1"}
models: {slots: slots, rates: rates, long: long}
log: {access: false}
drain: {delay: 300ms, limit: 10s}
teams:
  free: {keys: [{name: k, hash: "sha256:%[8]x"}]}
  capped: {keys: [{name: k, hash: "sha256:%[9]x"}], limits: {concurrency: %[10]d}}
redis: %[11]s
`, harness.Serve(f, f.slots), slots, harness.Serve(f, f.rates), perSecond, burst, tokens, tokensBurst,
		sha256.Sum256([]byte(keyOf("free"))), sha256.Sum256([]byte(keyOf("capped"))), cappedSlots, redis)
	for range replicas {
		f.replicas = append(f.replicas, &replica{Gateway: harness.Start(f, text)})
	}
	for _, r := range f.replicas {
		harness.Eventually(f, 10*time.Second, "every replica knows of all", func() bool {
			return r.Metric(f, "penstock_store_replicas") == float64(replicas)
		})
	}
}

// load keeps every limit of the fleet used up, by clients of every replica.
func (f *fleet) load() *crowd {
	c := newCrowd(f.T)
	for i, r := range f.replicas {
		var n atomic.Int64
		c.join(6, r.URL, &r.gone, func() ask { return ask{replica: i, team: "capped", model: "slots", prompt: 10, output: 5} })
		c.join(14, r.URL, &r.gone, func() ask { return ask{replica: i, team: "free", model: "slots", prompt: 10, output: 5} })
		// Now many requests, now many tokens.
		c.join(20, r.URL, &r.gone, func() ask {
			size := 20
			if n.Add(1)%200 > 120 {
				size = 100
			}
			return ask{replica: i, team: "free", model: "rates", prompt: 10, output: size - 10}
		})
	}
	return c
}

// full reports whether the slots are used: a replica that has just missed an answer
// of Redis takes no more than its part, so one or the other may be free.
func (f *fleet) full() bool { return f.slots.within() >= slots-2 }

// judge ends the load and checks what has reached the upstreams, with so many bursts
// more of a rate.
func (f *fleet) judge(c *crowd, bursts float64) {
	f.Helper()
	answers := c.end()
	allOK(f.T, answers)
	f.judgeSlots(0)
	f.judgeRates(answers, bursts)
}

// judgeRates checks the rates, of which so many bursts more are allowed.
func (f *fleet) judgeRates(answers []answer, bursts float64) {
	f.Helper()
	for _, r := range rules {
		r.excess = bursts * r.burst
		r.check(f.T, f.rates.admissions(answers))
	}
}

// judgeSlots checks that most of the slots were used at once, and no more but for an
// excess.
func (f *fleet) judgeSlots(excess int) {
	f.Helper()
	if peak := f.slots.provider.Stats().PeakInFlight; peak > slots+excess || peak < slots/2 {
		f.Errorf("at most %d in flight at the upstream, want most of %d and no more", peak, slots)
	}
	if peak := f.slots.most("capped"); peak > cappedSlots+excess || peak < cappedSlots/2 {
		f.Errorf("at most %d of the capped team in flight, want most of %d and no more", peak, cappedSlots)
	}
}

// kill ends a replica at once.
func (f *fleet) kill(r *replica) {
	f.Helper()
	r.gone.Store(true)
	r.Signal(f, syscall.SIGKILL)
	r.Wait(f, 5*time.Second)
}

// ready is what readiness says.
func (r *replica) ready(t *testing.T) (status int, detail string) {
	t.Helper()
	resp, err := http.Get(r.Admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 4096)
	n, _ := resp.Body.Read(b) // all of it is short
	return resp.StatusCode, string(b[:n])
}

// wait is a pause in which the load goes on.
func wait(d time.Duration) { <-time.After(d) }

// lines are the first lines of a text.
func lines(text string, n int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[:min(n, len(all))], "")
}
