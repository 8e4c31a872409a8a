package ledger

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/e2e/harness"
	"penstock/usage"
	"penstock/usage/ledger"
)

// rounds are the kills of TestUsageSurvivesACrash, over both databases.
const rounds = 12

func provider(t testing.TB) string {
	return harness.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}}`)
	}))
}

func config(upstream, url string) string {
	return fmt.Sprintf(`
log: {access: false}
upstreams: {up: {base_url: %q, models: {m: {}}}}
prices: {m: {input: 1, output: 2}}
database: {url: %q}
`, upstream, url)
}

// ask sends a request and returns its id.
func ask(g *harness.Gateway) (id string, err error) {
	resp, err := http.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answered %d", resp.StatusCode)
	}
	return resp.Header.Get("X-Penstock-Request-Id"), nil
}

// load sends requests from several clients until they fail or stop is closed, and
// returns when each answer had come.
func load(g *harness.Gateway, stop <-chan struct{}) map[string]time.Time {
	var mu sync.Mutex
	answered := map[string]time.Time{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(3 * time.Millisecond):
				}
				id, err := ask(g)
				if err != nil {
					return
				}
				mu.Lock()
				answered[id] = time.Now()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answered
}

// kept reads the ledger: the ids of its rows, each once, and checks that its sums
// are those of its rows.
func kept(t testing.TB, url string) map[string]bool {
	t.Helper()
	ctx := context.Background()
	db, err := database.OpenExisting(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	from, to := time.Now().UTC().AddDate(0, 0, -1), time.Now().UTC().AddDate(0, 0, 1)
	ids, nano := map[string]bool{}, int64(0)
	err = ledger.Export(ctx, db, from, to, 1_000_000, func(r *usage.Row) error {
		if ids[r.ID] {
			t.Errorf("%s is there twice", r.ID)
		}
		ids[r.ID], nano = true, nano+r.Nano
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	groups, _, err := ledger.Report(ctx, db, ledger.Query{From: from, To: to.AddDate(0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if g := groups[0]; g.Requests != int64(len(ids)) || g.Nano != nano {
		t.Errorf("the sums are of %d requests and %d, the rows are %d and %d", g.Requests, g.Nano, len(ids), nano)
	}
	return ids
}

// covers DB-06: after kill -9 the ledger misses at most the last second and counts
// nothing twice; after a clean stop it misses nothing.
func TestUsageSurvivesACrash(t *testing.T) {
	harness.Binary(t) // building it is no part of a start
	for name, url := range map[string]string{"sqlite": filepath.Join(t.TempDir(), "penstock.db"), "postgres": databasetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			g := harness.Start(t, config(provider(t)+"/v1", url))
			total, lost := 0, 0
			for range rounds / 2 {
				harness.Rounds(t, func(t *harness.Round) { // the disk may be busy with something else
					kill := make(chan time.Time, 1)
					time.AfterFunc(1200*time.Millisecond+time.Duration(random.IntN(600))*time.Millisecond, func() {
						kill <- time.Now()
						g.Signal(t, syscall.SIGKILL)
					})
					answered := load(g, nil)
					killed := <-kill
					g.Wait(t, 30*time.Second)
					ids := kept(t, url)
					for id, at := range answered {
						if ids[id] {
							continue
						}
						lost++
						if age := killed.Sub(at); age > time.Second {
							t.Missed("a request that had ended %v before the kill is not written", age)
						}
					}
					total += len(answered)
					g.Restart(t)
				})
			}
			before := len(kept(t, url))
			stop := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(stop) })
			answered := load(g, stop)
			if err := g.Stop(t, 30*time.Second); err != nil {
				t.Errorf("a clean stop: %v", err)
			}
			ids := kept(t, url)
			for id := range answered {
				if !ids[id] {
					t.Error("a clean stop has lost a row")
				}
			}
			if len(ids) != before+len(answered) {
				t.Errorf("%d rows, want %d and %d", len(ids), before, len(answered))
			}
			t.Logf("%d kills, %d requests, %d of the last second lost", rounds/2, total, lost)
		})
	}
}
