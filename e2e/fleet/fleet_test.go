package fleet

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
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

// patient, as a part of a fleet's redis settings, has replies that come late on a busy
// machine not taken for a loss of Redis, where none is lost.
const patient = ", timeout: 1s"

// newFleet starts a fleet, with more settings of redis.
func newFleet(t testing.TB, replicas int, more string) *fleet {
	t.Helper()
	f := &fleet{redis: redistest.Start(t)}
	f.wire = harness.NewWire(t, f.redis.Addr)
	f.start(t, replicas, fmt.Sprintf("{url: %q%s}", "redis://"+f.wire.Addr, more))
	return f
}

func (f *fleet) start(t testing.TB, replicas int, redis string) {
	t.Helper()
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
drain: {delay: 500ms, limit: 10s}
teams:
  free: {keys: [{name: k, hash: "sha256:%[8]x"}]}
  capped: {keys: [{name: k, hash: "sha256:%[9]x"}], limits: {concurrency: %[10]d}}
redis: %[11]s
`, harness.Serve(t, f.slots), slots, harness.Serve(t, f.rates), perSecond, burst, tokens, tokensBurst,
		sha256.Sum256([]byte(keyOf("free"))), sha256.Sum256([]byte(keyOf("capped"))), cappedSlots, redis)
	for range replicas {
		f.replicas = append(f.replicas, &replica{Gateway: harness.Start(t, text)})
	}
	for _, r := range f.replicas {
		harness.Eventually(t, 30*time.Second, "every replica knows of all", func() bool {
			return r.Metric(t, "penstock_store_replicas") == float64(replicas)
		})
	}
}

// load keeps every limit of the fleet used up, by clients of every replica.
func (f *fleet) load(t testing.TB) *crowd {
	c := newCrowd(t)
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
func (f *fleet) judge(t *harness.Round, c *crowd, bursts float64) {
	t.Helper()
	answers := c.end()
	allOK(t, answers)
	f.judgeSlots(t)
	f.judgeRates(t, answers, bursts)
}

// judgeRates checks the rates, of which so many bursts more are allowed.
func (f *fleet) judgeRates(t *harness.Round, answers []answer, bursts float64) {
	t.Helper()
	for _, r := range rules {
		r.excess = bursts * r.burst
		r.check(t, f.rates.admissions(answers))
	}
}

// judgeSlots checks that no more slots were used at once than there are, and that
// there was the load to use most of them.
func (f *fleet) judgeSlots(t *harness.Round) {
	t.Helper()
	all, capped := f.peaks()
	if all > slots || capped > cappedSlots {
		t.Errorf("up to %d in flight at the upstream, of %d, and %d of the capped team, of %d", all, slots, capped, cappedSlots)
	}
	if all < slots/2 || capped < cappedSlots/2 {
		t.Missed("no more than %d in flight at the upstream, of %d, and %d of the capped team, of %d", all, slots, capped, cappedSlots)
	}
}

// peaks are the most slots that were used at once, by all and by the capped team.
func (f *fleet) peaks() (all, capped int) {
	return f.slots.provider.Stats().PeakInFlight, f.slots.most("capped")
}

// kill ends it at once.
func (r *replica) kill(t testing.TB) {
	t.Helper()
	r.gone.Store(true)
	r.Signal(t, syscall.SIGKILL)
	r.Wait(t, 30*time.Second)
}

// ready is what readiness says.
func (r *replica) ready() (status int, detail string, err error) {
	resp, err := http.Get(r.Admin + "/readyz")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// wait is a pause in which the load goes on.
func wait(d time.Duration) { <-time.After(d) }

// lines are the first lines of a text.
func lines(text string, n int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[:min(n, len(all))], "")
}
