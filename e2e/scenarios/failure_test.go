package scenarios

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/limits/limitstest"
	"penstock/simulate"
)

// The phases of S6 from its start: well, then half of all requests fail, then none
// is answered, then well again.
const (
	failing   = 2 * time.Second
	hanging   = failing + 10*time.Second
	recovered = hanging + 3*time.Second
	over      = recovered + 5*time.Second
)

// covers UP-02, UP-04, UP-05, UP-07: an upstream fails half of the time, then
// hangs, then recovers.
func TestS6FailingUpstream(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		harness.Rounds(t, func(t *harness.Round) { s6(t, false) })
	})
	t.Run("with a second", func(t *testing.T) {
		t.Parallel()
		harness.Rounds(t, func(t *harness.Round) { s6(t, true) })
	})
}

func s6(t *harness.Round, second bool) {
	const rate, deadline = 40, 5 * time.Second
	bad := simulate.New(simulate.Config{TTFT: 10 * time.Millisecond, TokenTime: simulate.NoWait, OutputTokens: 4})
	good := simulate.New(simulate.Config{TTFT: 10 * time.Millisecond, TokenTime: simulate.NoWait, OutputTokens: 4})
	targets := "[bad]"
	if second {
		targets = "[bad, good]"
	}
	g := start(t, `
upstreams:
  bad: {base_url: "%s/v1", timeouts: {headers: 1s, first_token: 1s}}
  good: {base_url: "%s/v1"}
models: {m: {targets: `+targets+`}}
timeouts: {attempts: 5s}
breaker: {window: 10s, open: 1s, max_open: 2s}
`, harness.Serve(t, bad), harness.Serve(t, good))
	bad.SetFaults(
		simulate.Faults{Status: 500, Probability: 0.5, From: failing, Until: hanging},
		simulate.Faults{Hang: true, From: hanging, Until: recovered},
	)

	var seen, after tally
	late := limitstest.WatchLateness()
	var opened atomic.Bool
	begin := time.Now()
	arrive(int(over.Seconds()*rate), rate, func(i int) {
		at := time.Since(begin)
		a := chat{Stream: i%2 == 0}.send(t.Context(), g.URL)
		seen.add(a)
		if at > recovered+3*time.Second { // the breaker stays open for 2.2 s at most
			after.add(a)
			if up := a.header.Get("X-Penstock-Upstream"); up != "bad" {
				t.Missed("%v after its recovery the upstream is not used: %v", at-recovered, a)
			}
		}
		if at > hanging && !opened.Load() && g.Metric(t, "penstock_breaker_state", `upstream="bad"`) == 2 {
			opened.Store(true)
		}
	})

	late.End()
	if seen.longest > deadline+500*time.Millisecond+late.Most {
		t.Missed("somebody waited %v, want at most the deadline of %v", seen.longest, deadline)
	}
	attempts, _ := counts(bad)
	if ratio := attempts / float64(seen.all); ratio > 1.2 {
		t.Errorf("%.0f attempts at the failing upstream for %d requests: %.2f each, want at most 1.2", attempts, seen.all, ratio)
	}
	if second {
		seen.allOK(t)
	}
	if after.ok != after.all {
		t.Missed("%d of %d requests failed after the recovery, such as %v", after.all-after.ok, after.all, after.bad[0])
	}
	if !opened.Load() {
		t.Missed("the breaker did not open while the upstream hung")
	}
	if state := g.Metric(t, "penstock_breaker_state", `upstream="bad"`); state != 0 {
		t.Missed("the breaker is in state %v at the end, want closed", state)
	}
	name := "S6 failing upstream, alone"
	if second {
		name = "S6 failing upstream, with a second"
	}
	note := fmt.Sprintf("longest answer %.1f s of %v; breaker opened %.0f times and closed by itself", seen.longest.Seconds(), deadline,
		g.Metric(t, "penstock_breaker_transitions_total", `upstream="bad"`, `to="open"`))
	record(figures{Scenario: name, Success: seen.success(), Attempts: fmt.Sprintf("%.3f", attempts/float64(seen.all)), Note: strings.TrimSpace(note)})
}
