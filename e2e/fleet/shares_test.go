package fleet

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore/redistest"
	"penstock/simulate"
)

// covers LIM-09 (S3): two greedy teams share an upstream three to one, and a light
// one waits for less than a second at its 95th percentile, though each of them
// speaks to another replica.
func TestS3SharesAcrossReplicas(t *testing.T) {
	harness.Rounds(t, sharesAcrossReplicas)
}

func sharesAcrossReplicas(t *harness.Round) {
	const warm, measured, rate = 4 * time.Second, 14 * time.Second, 6000
	w := newWitness(simulate.Config{TTFT: 10 * time.Millisecond, TokenTime: simulate.NoWait})
	up := harness.Serve(t, w)
	text := fmt.Sprintf(`
upstreams:
  up: {base_url: "%s/v1", limits: {tokens: {limit: %d, per: 1s, burst: 2000}}}
models: {m: up}
log: {access: false}
redis: {url: "redis://%s"%s}
teams:
`, up, rate, redistest.Start(t).Addr, patient)
	teams := []string{"three", "one", "light"}
	for i, name := range teams {
		text += fmt.Sprintf("  %s: {weight: %d, keys: [{name: k, hash: \"sha256:%x\"}]}\n", name, []int{3, 1, 1}[i], sha256.Sum256([]byte(keyOf(name))))
	}
	var replicas []*replica
	for range teams {
		replicas = append(replicas, &replica{Gateway: harness.Start(t, text)})
	}
	late := limitstest.WatchLateness()
	c := newCrowd(t)
	begin := time.Now()
	for i, clients := range []int{120, 60} {
		for n := range clients {
			c.all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(n)))
				for c.ctx.Err() == nil {
					c.note(ask{replica: i, team: teams[i], model: "m", prompt: 10, output: 10 + r.IntN(81)}.send(t.Context(), replicas[i].URL))
				}
			})
		}
	}
	var waits []time.Duration
	var light sync.WaitGroup
	light.Go(func() {
		for c.ctx.Err() == nil {
			a := ask{replica: 2, team: "light", model: "m", prompt: 10, output: 20}.send(t.Context(), replicas[2].URL)
			c.note(a)
			if a.sent.After(begin.Add(warm)) {
				waits = append(waits, a.queued)
			}
			wait(100 * time.Millisecond)
		}
	})
	wait(warm + measured)
	answers := c.end()
	light.Wait()
	late.End()
	allOK(t, answers)
	used := map[string]float64{}
	for i := range answers {
		if a := &answers[i]; a.got.After(begin.Add(warm)) && a.got.Before(begin.Add(warm+measured)) {
			used[a.ask.team] += a.ask.tokens()
		}
	}
	if wrong := math.Abs(used["three"]/used["one"]/3 - 1); wrong > 0.03 {
		t.Missed("tokens served %.0f : %.0f, %.2f %% from 3 : 1, want at most 3 %%", used["three"], used["one"], 100*wrong)
	}
	slices.Sort(waits)
	p95 := waits[len(waits)*95/100]
	if p95 >= time.Second {
		t.Missed("the light team's p95 wait is %v of %d", p95, len(waits))
	}
	share := (used["three"] + used["one"] + used["light"]) / rate / measured.Seconds()
	if share < 0.9 {
		t.Missed("%.2f of the quota was used; shares mean little while it is not scarce", share)
	}
	t.Logf("%.0f : %.0f is %.3f, light p95 %v of %d, %.3f of the quota; late by %v, %v at most", used["three"], used["one"], used["three"]/used["one"], p95.Round(time.Millisecond), len(waits), share, late.Mean, late.Most)
}
