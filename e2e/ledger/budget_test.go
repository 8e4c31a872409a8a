package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/database/databasetest"
	"penstock/e2e/harness"
	"penstock/limits/redisstore/redistest"
)

const spenderKey = "psk_of-the-spending-team-0123"

// spend sends a request of the team with the budget and returns the status.
func spend(t *testing.T, g *harness.Gateway) int {
	t.Helper()
	req, err := http.NewRequest("POST", g.URL+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+spenderKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// left is what GET /admin/limits says is left of the team's budget, in millionths of
// a dollar.
func left(t *testing.T, g *harness.Gateway) (micro int64) {
	t.Helper()
	resp, err := http.Get(g.Admin + "/admin/limits?team=spender")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var live struct{ Limits []struct{ Remaining int64 } }
	if err := json.NewDecoder(resp.Body).Decode(&live); err != nil || len(live.Limits) != 1 {
		t.Fatalf("%+v, %v", live, err)
	}
	return live.Limits[0].Remaining
}

// leftSoon waits until so much is left. What a request has reserved is given back a
// moment after its answer.
func leftSoon(t *testing.T, what string, g *harness.Gateway, want int64) {
	t.Helper()
	var got int64
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if got = left(t, g); got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d left, want %d", what, got, want)
		}
	}
}

// covers DIST-05, LIM-08: budgets are live levels that are made again from the ledger
// after a kill, and from the larger of it and of what Redis knows where there is one.
func TestBudgetSurvivesAKill(t *testing.T) {
	const budget, each = 1000, 20 // 10 tokens of input at 1, 5 of output at 2 millionths
	for name, c := range map[string]struct{ redis, postgres bool }{
		"memory": {}, "redis": {redis: true}, "redis and postgres": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			url, redis := filepath.Join(t.TempDir(), "penstock.db"), ""
			if c.postgres {
				url = databasetest.Postgres(t)
			}
			empty := func() {}
			if c.redis {
				server := redistest.Start(t)
				redis = fmt.Sprintf("redis: {url: %q}\n", "redis://"+server.Addr)
				empty = func() {
					if err := server.Client().FlushAll(context.Background()).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
			g := harness.Start(t, config(provider(t)+"/v1", url)+redis+fmt.Sprintf(`
usage: {flush: 20ms}
tokens: {first_output: 5}
teams: {spender: {limits: {budget: $%g/month}, keys: [{name: prod, key: %s}]}}
`, budget/1e6, spenderKey))
			sent := int64(0)
			ask := func(n int) {
				t.Helper()
				for range n {
					if code := spend(t, g); code != 200 {
						t.Fatalf("request %d: %d", sent, code)
					}
					sent++
				}
				harness.Eventually(t, 30*time.Second, "the rows are written", func() bool { return g.Metric(t, "penstock_ledger_rows_total") >= float64(n) })
				leftSoon(t, "settled", g, budget-sent*each)
			}
			again := func() {
				g.Signal(t, syscall.SIGKILL)
				g.Wait(t, 30*time.Second)
				empty()
				g.Restart(t)
				if got := left(t, g); got != budget-sent*each {
					t.Errorf("after a kill %d are left, want %d", got, budget-sent*each)
				}
			}
			ask(20)
			again()
			ask(20)
			if c.redis { // it forgets while the gateway runs
				empty()
				leftSoon(t, "after a loss", g, budget-sent*each)
			}
			again()
			ask(int(budget/each - sent))
			empty = func() {} // what Redis knows counts, too
			again()
			if code := spend(t, g); code != 429 {
				t.Errorf("a spent budget after a kill: %d", code)
			}
		})
	}
}
