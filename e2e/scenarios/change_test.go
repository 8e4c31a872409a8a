package scenarios

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// covers LIFE-04: two hundred reloads under load, some of them of files that are
// wrong, fail no request, and the limits' levels survive them.
func TestS10Reloads(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, s10Reloads)
}

func s10Reloads(t *harness.Round) {
	const reloads, rate = 200, 36
	p := simulate.New(simulate.Config{RPM: 30, Window: time.Second, TTFT: 5 * time.Millisecond, TokenTime: time.Millisecond, OutputTokens: 20})
	config := func(weight int) string {
		return fmt.Sprintf(`
log: {access: false}
upstreams:
  up: {base_url: "%s/v1", limits: {requests: 30/s}}
models: {m: up}
queue: {max_wait: {default: 10m}}
`, "%s") + teams(map[string]int{"some": weight})
	}
	url := harness.Serve(t, p)
	g := start(t, strings.Replace(config(1), "log: {access: false}\n", "", 1), url)
	var seen tally
	seen.add(chat{Key: keyOf("some")}.send(t.Context(), g.URL))
	before := holds(t, g)

	stop, loaded := make(chan struct{}), sync.WaitGroup{}
	loaded.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		var all sync.WaitGroup
		defer all.Wait()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				all.Go(func() { seen.add(chat{Key: keyOf("some"), Stream: i%2 == 0}.send(t.Context(), g.URL)) })
			}
		}
	})
	begin := time.Now()
	good, bad := 0, 0
	for i := range reloads {
		text, result := fmt.Sprintf(config(1+i%7), url), "ok"
		if i%10 == 9 {
			text, result = text+"nonsense: true\n", "error"
		}
		count := g.Metric(t, "penstock_config_reloads_total", fmt.Sprintf("result=%q", result))
		g.Rewrite(t, text)
		harness.Eventually(t, 30*time.Second, "the file is noticed", func() bool {
			return g.Metric(t, "penstock_config_reloads_total", fmt.Sprintf("result=%q", result)) > count
		})
		if result == "ok" {
			good++
		} else {
			bad++
		}
	}
	took := time.Since(begin)
	close(stop)
	loaded.Wait()

	seen.allOK(t)
	attempts, refused := counts(p)
	// With a new level at each reload all of the demand would get through, of which the
	// provider refuses one in six.
	if refused > attempts/10 {
		t.Errorf("the provider refused %v of %v attempts: reloads have given a limit a new level", refused, attempts)
	}
	if refused > attempts/100 {
		t.Missed("the provider refused %v of %v attempts", refused, attempts)
	}
	harness.Eventually(t, 30*time.Second, "nothing is left", func() bool { return quiet(t, g) && holds(t, g).like(before) })
	record(figures{Scenario: "S10 200 reloads", Success: seen.success(), Refused: percent(refused, attempts),
		Attempts: fmt.Sprintf("%.3f", attempts/float64(seen.all)), Leaks: "none",
		Note: fmt.Sprintf("%d good and %d refused files in %.0f s", good, bad, took.Seconds())})
}

// covers LIM-05: the process is stopped for longer than a window under load, as by
// a machine that sleeps. For whatever passed meanwhile a bucket gives one burst, and
// nobody who waits is lost.
func TestS10Suspended(t *testing.T) {
	t.Parallel()
	harness.Rounds(t, s10Suspended)
}

func s10Suspended(t *harness.Round) {
	const stopped = 2500 * time.Millisecond
	p := simulate.New(simulate.Config{RPM: 40, Window: time.Second, TTFT: 5 * time.Millisecond, TokenTime: time.Millisecond, OutputTokens: 20})
	g := start(t, `
upstreams:
  up: {base_url: "%s/v1", limits: {requests: 40/s}}
models: {m: up}
`, harness.Serve(t, p))
	var seen tally
	var all sync.WaitGroup
	all.Go(func() {
		arrive(300, 60, func(i int) { seen.add(chat{Stream: i%2 == 0}.send(t.Context(), g.URL)) })
	})
	for range 2 {
		<-time.After(time.Second)
		g.Signal(t, syscall.SIGSTOP)
		<-time.After(stopped)
		g.Signal(t, syscall.SIGCONT)
	}
	all.Wait()

	seen.allOK(t)
	attempts, refused := counts(p)
	if refused >= 40 { // a burst too many
		t.Errorf("the provider refused %v of %v attempts: the time away gave more than a burst", refused, attempts)
	}
	if refused > 8 {
		t.Missed("the provider refused %v of %v attempts", refused, attempts)
	}
	harness.Eventually(t, 30*time.Second, "nothing is left", func() bool { return quiet(t, g) })
	record(figures{Scenario: "S10 stopped twice", Success: seen.success(), Refused: percent(refused, attempts),
		Attempts: fmt.Sprintf("%.3f", attempts/float64(seen.all)), Note: fmt.Sprintf("for %v each", stopped)})
}

// covers LIM-05 together with limits.TestNobodyReadsTheWallClock, and the bounds of
// what is remembered: ten thousand keys and twenty thousand models that nobody
// configured leave neither metrics nor memory.
func TestS10UnknownNames(t *testing.T) {
	quick := simulate.Config{TTFT: simulate.NoWait, TokenTime: simulate.NoWait, OutputTokens: 1}
	strict := quick
	strict.Models, strict.Strict = []string{"m"}, true
	config := `
upstreams:
  up: {base_url: "%s/v1"}
models: {m: up, "*": up}
` + teams(map[string]int{"some": 1})
	some := keyOf("some")
	unknown := func(i int) chat { return chat{Key: some, Model: fmt.Sprintf("nothing-%d", i)} }
	var notes, leaks []string
	for _, c := range []struct {
		name  string
		up    simulate.Config
		names map[int]func(i int) chat // by status
	}{
		{"where models are refused", strict, map[int]func(int) chat{
			http.StatusUnauthorized: func(i int) chat { return chat{Key: fmt.Sprintf("psk_nobody-%040d", i)} },
			http.StatusNotFound:     unknown,
		}},
		{"where they are served", quick, map[int]func(int) chat{http.StatusOK: unknown}},
	} {
		g := start(t, config, harness.Serve(t, simulate.New(c.up)))
		ask(t, g, http.StatusOK, func(int) chat { return chat{Key: some} })
		before, seriesBefore := holds(t, g), series(t, g)
		for status, ofName := range c.names {
			ask(t, g, status, ofName)
		}
		now, count := holds(t, g), series(t, g)
		if count > 400 {
			t.Errorf("%s: %d series, want fewer than 400", c.name, count)
		}
		harness.Eventually(t, 30*time.Second, "resources as before", func() bool { now = holds(t, g); return now.like(before) })
		notes = append(notes, fmt.Sprintf("%d series %s, %d before", count, c.name, seriesBefore))
		leaks = append(leaks, fmt.Sprintf("%+.0f MiB", (now.memory-before.memory)/(1<<20)))
	}
	record(figures{Scenario: "S10 10,000 unknown names", Leaks: strings.Join(leaks, ", "), Note: strings.Join(notes, "; ")})
}

// ask sends ten thousand chats, a few at once, and expects one status of all.
func ask(t testing.TB, g *harness.Gateway, want int, ofName func(i int) chat) {
	t.Helper()
	const names, at = 10_000, 32
	var mu sync.Mutex
	var wrong []answer
	var all sync.WaitGroup
	for worker := range at {
		all.Go(func() {
			for i := worker; i < names; i += at {
				if a := ofName(i).send(t.Context(), g.URL); a.status != want {
					mu.Lock()
					wrong = append(wrong, a)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d answers are not %d, such as %v", len(wrong), want, wrong[0])
	}
}

// series counts the samples that the gateway shows of itself.
func series(t testing.TB, g *harness.Gateway) int {
	t.Helper()
	n := 0
	for line := range strings.SplitSeq(g.Metrics(t), "\n") {
		if strings.HasPrefix(line, "penstock_") {
			n++
		}
	}
	return n
}
