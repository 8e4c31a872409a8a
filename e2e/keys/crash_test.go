package keys

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/database"
	"penstock/e2e/harness"
)

// rounds are the kills of TestKeysSurviveACrash.
const rounds = 100

// covers DB-01: keys that were answered 2xx are there after kill -9 at any moment,
// and the database is whole. Each round makes keys from several clients, kills the
// gateway in the middle of it, and starts it again.
func TestKeysSurviveACrash(t *testing.T) {
	harness.Binary(t) // building it is no part of a start
	up, db := provider(t), filepath.Join(t.TempDir(), "penstock.db")
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Logf("seed %d", seed)
	acknowledged := map[string]string{} // key by id
	var starts []time.Duration
	for round := range rounds {
		begin := time.Now()
		g := start(t, up, db)
		starts = append(starts, time.Since(begin))
		if round == 0 {
			g.api(201, "POST", "/admin/teams", map[string]any{"name": "search"})
		}
		if lost := g.missing(acknowledged); len(lost) > 0 {
			t.Fatalf("round %d: %d of %d keys are lost, such as %s", round, len(lost), len(acknowledged), lost[0])
		}
		made := g.makeUntilKilled(round, time.Duration(random.IntN(60))*time.Millisecond)
		for id, key := range made {
			acknowledged[id] = key
		}
		intact(t, db)
	}
	g := start(t, up, db)
	if lost := g.missing(acknowledged); len(lost) > 0 {
		t.Fatalf("%d of %d keys are lost", len(lost), len(acknowledged))
	}
	tried := 0
	for id, key := range acknowledged {
		if code := g.key(key); code != 200 {
			t.Errorf("key %s: %d", id, code)
		}
		if tried++; tried == 100 {
			break
		}
	}
	slices.Sort(starts)
	if second := starts[rounds-2]; second > 5*time.Second { // one may be the machine's
		t.Errorf("two starts took %v or longer", second)
	}
	t.Logf("%d kills, %d keys, slowest start %v", rounds, len(acknowledged), starts[rounds-1].Round(time.Millisecond))
}

// missing are the ids that the gateway does not list.
func (r *replica) missing(want map[string]string) (lost []string) {
	listed := map[string]bool{}
	for _, k := range r.api(200, "GET", "/admin/keys?team=search", nil)["keys"].([]any) {
		listed[k.(map[string]any)["id"].(string)] = true
	}
	for id := range want {
		if !listed[id] {
			lost = append(lost, id)
		}
	}
	return lost
}

// makeUntilKilled makes keys from several clients, kills the gateway after a while,
// and returns the keys that were acknowledged.
func (r *replica) makeUntilKilled(round int, after time.Duration) map[string]string {
	var (
		mu   sync.Mutex
		made = map[string]string{}
		wg   sync.WaitGroup
	)
	for client := range 3 {
		wg.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("r%d-c%d-n%d", round, client, n)
				status, out, err := r.ask("POST", "/admin/keys", map[string]any{"team": "search", "name": name})
				if err != nil {
					return // killed
				}
				if status != 201 {
					r.t.Errorf("make %s: %d %v", name, status, out)
					return
				}
				mu.Lock()
				made[out["id"].(string)] = out["key"].(string)
				mu.Unlock()
			}
		})
	}
	<-time.After(after)
	r.Signal(r.t, syscall.SIGKILL)
	r.Wait(r.t, 30*time.Second)
	wg.Wait()
	return made
}

// intact opens the database, which checks it.
func intact(t *testing.T, path string) {
	t.Helper()
	db, err := database.OpenExisting(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
