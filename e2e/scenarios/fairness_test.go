package scenarios

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// keyOf is the client key of a team in these tests.
func keyOf(team string) string { return "psk_" + strings.Repeat(team, 6) }

// teams is the configuration of teams, from name to weight.
func teams(weights map[string]int) string {
	var b strings.Builder
	b.WriteString("teams:\n")
	for name, weight := range weights {
		fmt.Fprintf(&b, "  %s: {weight: %d, keys: [{name: k, hash: \"sha256:%x\"}]}\n", name, weight, sha256.Sum256([]byte(keyOf(name))))
	}
	return b.String()
}

// A served says how many tokens an answer had, and when it was read.
type served struct {
	at     time.Time
	tokens int64
}

// covers LIM-09: two greedy teams share an upstream three to one, and a team that
// asks for little waits for less than a second at its 95th percentile.
func TestS3Shares(t *testing.T) {
	harness.Rounds(t, shares)
}

// shares is a round of S3.
func shares(t *harness.Round) {
	const warm, measured = 3 * time.Second, 12 * time.Second
	p := simulate.New(simulate.Config{TPM: 9000, Window: time.Second, TokenTime: simulate.NoWait})
	g := start(t, `
upstreams:
  up: {base_url: "%s/v1", limits: {tokens: 9k/s}}
models: {m: up}
`+teams(map[string]int{"three": 3, "one": 1, "light": 1}), harness.Serve(t, p))

	var seen tally
	var mu sync.Mutex
	log := map[string][]served{}
	var waits []time.Duration
	begin := time.Now()
	end := begin.Add(warm + measured)
	ask := func(team string, tokens int) answer {
		a := chat{Key: keyOf(team), Prompt: 10, Simulate: fmt.Sprintf("tokens=%d", tokens)}.send(t.Context(), g.URL)
		seen.add(a)
		mu.Lock()
		defer mu.Unlock()
		log[team] = append(log[team], served{time.Now(), a.tokens()})
		return a
	}
	var all sync.WaitGroup
	// More clients than a whole burst could serve at once, so that a greedy team
	// always has somebody who waits.
	for team, clients := range map[string]int{"three": 300, "one": 100} {
		for i := range clients {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(len(team))))
				for time.Now().Before(end) {
					ask(team, 10+r.IntN(41))
				}
			})
		}
	}
	all.Go(func() {
		for time.Now().Before(end) {
			waits = append(waits, ask("light", 30).queued())
			<-time.After(100 * time.Millisecond)
		}
	})
	all.Wait()

	seen.allOK(t)
	share := func(team string) (sum float64) {
		for _, s := range log[team] {
			if s.at.After(begin.Add(warm)) && s.at.Before(end) {
				sum += float64(s.tokens)
			}
		}
		return sum
	}
	three, one := share("three"), share("one")
	wrong := math.Abs(three/one/3 - 1)
	if wrong > 0.03 {
		t.Missed("tokens served %.0f : %.0f, %.2f %% from 3 : 1, want at most 3 %%", three, one, 100*wrong)
	}
	light := p95(waits)
	if light >= time.Second {
		t.Missed("the light team's p95 wait is %v of %d, want less than 1 s", light, len(waits))
	}
	used := (three + one + share("light")) / (9000 * measured.Seconds())
	if used < 0.97 {
		t.Missed("%.3f of the quota was used; shares mean little while it is not scarce", used)
	}
	attempts, refused := counts(p)
	record(figures{Scenario: "S3 shares 3 : 1", Success: seen.success(), Refused: percent(refused, attempts), Used: percent(used, 1),
		Share: percent(wrong, 1), Light: light.Round(time.Millisecond).String(), Attempts: fmt.Sprintf("%.3f", attempts/float64(seen.all))})
}
