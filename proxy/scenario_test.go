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

// covers UP-02, UP-04, UP-05, UP-07: scenario S6 with its real times. An upstream
// fails half of the time for 10 s, hangs for a minute, and recovers.
func TestUpstreamFailsHangsAndRecovers(t *testing.T) {
	const failing, hanging, recovered, over = 10 * time.Second, 20 * time.Second, 80 * time.Second, 200 * time.Second
	for name, second := range map[string]bool{"alone": false, "with a second": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var mu sync.Mutex
				attempts := 0
				bad := func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					attempts++
					even := attempts%2 == 0
					mu.Unlock()
					switch at := time.Since(begin); {
					case at >= failing && at < hanging && even:
						sends(500, `{}`)(w, r)
					case at >= hanging && at < recovered:
						hangs(w, r)
					default:
						sends(200, answerJSON)(w, r)
					}
				}
				w := newWorld(t, bad, sends(200, answerJSON))
				body := hello
				if second {
					body = strings.Replace(hello, `"m"`, `"both"`, 1)
				}
				var wg sync.WaitGroup
				sent, opened := 0, false
				for time.Since(begin) < over {
					at := time.Since(begin)
					sent++
					wg.Go(func() {
						o := w.chat(body)
						if second && o.status != 200 {
							t.Errorf("at %v with a second upstream: %d %s", at, o.status, o.body)
						}
						if o.took > time.Minute+time.Second {
							t.Errorf("at %v: answered after %v, the deadline is a minute", at, o.took)
						}
						// 20 s are the time limit of the last probe before the recovery, and
						// 66 s the longest that the breaker is open after the second one.
						if at > recovered+86*time.Second && (o.status != 200 || o.header.Get("X-Penstock-Upstream") != "a") {
							t.Errorf("%v after its recovery: %d from %q", at-recovered, o.status, o.header.Get("X-Penstock-Upstream"))
						}
					})
					if at > hanging && at < recovered && w.metric("breaker_state", "upstream", "a") == 2 {
						opened = true
					}
					time.Sleep(200 * time.Millisecond)
				}
				wg.Wait()
				if !opened || w.metric("breaker_state", "upstream", "a") != 0 {
					t.Errorf("breaker opened: %v; state at the end %v, want closed", opened, w.metric("breaker_state", "upstream", "a"))
				}
				if ratio := float64(attempts) / float64(sent); ratio > 1.2 {
					t.Errorf("%d attempts for %d requests", attempts, sent)
				}
				w.settled()
			})
		})
	}
}

// covers LIM-02: scenario S2 with minutes as windows. Demand is three times what
// the provider's bucket of tokens earns; nobody is refused, and of the quota less
// than 3 % is lost at the brim.
func TestThreeTimesTheQuotaForMinutes(t *testing.T) {
	for _, count := range []simulate.Count{simulate.Actual, simulate.MaxTokens} {
		t.Run(count.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tpm, requests = 60_000, 2000
				up := simulate.New(simulate.Config{
					RPM: 10_000, TPM: tpm, Count: count, TTFT: 300 * time.Millisecond, TTFTJitter: time.Second, TokenTime: 20 * time.Millisecond,
				})
				w := newWorld(t, up.ServeHTTP, nil, func(s *Snapshot) {
					s.Settings.Timeouts = Timeouts{Idle: time.Minute, Total: 10 * time.Hour}
					s.Upstreams["a"].Timeouts, s.Upstreams["a"].Output = s.Settings.Timeouts, OutputCount(count.String())
				})
				config := queueConfig()
				config.MaxWait[limits.Default], config.PerTeam = 10*time.Hour, 100_000
				w.p.queue.Configure(config)
				w.limit(limits.Tokens, tpm, time.Minute)

				var wg sync.WaitGroup
				random := rand.New(rand.NewPCG(1, 2))
				for i := range requests {
					tokens := 20 + random.IntN(160)
					if i%5 == 0 {
						tokens = 300 + random.IntN(600)
					}
					body := hello
					if i%2 == 0 {
						body = helloStream
					}
					body = strings.TrimSuffix(body, "}") + `,"max_tokens":1000}`
					wg.Go(func() {
						if o := w.chat(body, "X-Simulate", fmt.Sprintf("tokens=%d", tokens)); o.status != 200 {
							t.Errorf("%d after %v: %s", o.status, o.took, o.body)
						}
					})
					time.Sleep(150 * time.Millisecond) // 400 a minute
				}
				begin, before := time.Now(), up.Stats().Admitted.Tokens
				for up.Stats().Admitted.Requests < requests*9/10 {
					time.Sleep(time.Second)
				}
				used := float64(up.Stats().Admitted.Tokens-before) / (tpm * time.Since(begin).Minutes())
				wg.Wait()
				s := up.Stats()
				if s.Refused["tokens"]+s.Refused["requests"] > requests/1000 {
					t.Errorf("the provider refused %v of %d", s.Refused, requests)
				}
				if used < 0.97 {
					t.Errorf("%.4f of the quota was used over %.1f minutes", used, time.Since(begin).Minutes())
				}
				w.settled()
			})
		})
	}
}

// covers LIM-02: the part of S2 that depends on being on time. A provider with an
// exact sliding window has no room for a burst besides its rate, so the burst is
// subtracted from it: then nothing is refused, and all but the burst is used.
func TestThreeTimesASlidingWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rpm, burst, requests = 480, 9, 2400
		up := simulate.New(simulate.Config{RPM: rpm, Mode: simulate.Sliding, TTFT: 300 * time.Millisecond, TokenTime: 20 * time.Millisecond, OutputTokens: 20})
		w := newWorld(t, up.ServeHTTP, nil)
		config := queueConfig()
		config.MaxWait[limits.Default], config.PerTeam = time.Hour, requests
		w.p.queue.Configure(config)
		w.s.Settings.Timeouts = Timeouts{Idle: time.Minute, Total: time.Hour}
		l := w.limit(limits.Requests, rpm-burst-1, time.Minute)
		l.Burst = burst
		var wg sync.WaitGroup
		begin := time.Now()
		for range requests {
			wg.Go(func() {
				if o := w.chat(hello); o.status != 200 {
					t.Errorf("%d after %v: %s", o.status, o.took, o.body)
				}
			})
			time.Sleep(time.Minute / (3 * rpm))
		}
		wg.Wait()
		if refused := up.Stats().Refused; len(refused) > 0 {
			t.Errorf("the provider refused %v", refused)
		}
		if used := requests / (rpm * time.Since(begin).Minutes()); used < 0.97 {
			t.Errorf("%.4f of the quota was used", used)
		}
		w.settled()
	})
}
