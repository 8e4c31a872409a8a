package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/config"
	"penstock/database"
	"penstock/limits"
	"penstock/proxy"
	"penstock/usage"
	"penstock/usage/ledger"
)

const spenderKey = "a-key-of-the-spending-team"

// spending is a configuration with a team that has a budget. The upstream of the
// tests reports 5 input and 7 output tokens, which here cost 75 millionths of a
// dollar.
func spending(database, budget string) string {
	return fmt.Sprintf(`
database: {url: %q}
prices: {m: {input: 1, output: 10}}
tokens: {first_output: 7}
teams:
  spender:
    limits: {budget: %s}
    keys: [{name: prod, key: %s}]
`, database, budget, spenderKey)
}

func (g *testGateway) spend(want int) {
	g.t.Helper()
	if code := g.bearer(spenderKey); code != want {
		g.t.Errorf("answered %d, want %d", code, want)
	}
}

// budgetLeft is the level of the team's first budget.
func (g *testGateway) budgetLeft() int64 {
	g.t.Helper()
	levels, err := g.store.Levels(context.Background(), g.proxy.Teams()["spender"].Limits)
	if err != nil {
		g.t.Fatal(err)
	}
	return levels[0].Remaining
}

// settled waits until requests whose answers have arrived have ended.
func (g *testGateway) settled() {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		live, err := g.proxy.Live(context.Background(), proxy.LiveFilter{})
		if err == nil && live.Gateway.InFlight == 0 {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatal("requests have not ended within 20 s")
		}
	}
}

// withGateway runs do with a gateway and stops it cleanly.
func withGateway(t *testing.T, text string, do func(g *testGateway)) {
	t.Helper()
	t.Run("", func(t *testing.T) { do(startGateway(t, text)) })
}

func usageOf(t *testing.T, path string) ledger.Group {
	t.Helper()
	db, err := database.OpenExisting(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	groups, _, err := ledger.Report(context.Background(), db, ledger.Query{From: time.Now().AddDate(0, 0, -1), To: time.Now().AddDate(0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	return groups[0]
}

// covers DB-06, DIST-05: a clean stop loses no row, and what was spent is known
// after a restart.
func TestBudgetSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	withGateway(t, spending(path, "$0.0003/month"), func(g *testGateway) {
		for range 4 {
			g.spend(http.StatusOK)
		}
		g.spend(http.StatusTooManyRequests)
	})
	if u := usageOf(t, path); u.Requests != 5 || u.Failed != 1 || u.Nano != 4*75_000 {
		t.Errorf("the ledger has %+v", u)
	}
	withGateway(t, spending(path, "$0.0003/month"), func(g *testGateway) {
		if left := g.budgetLeft(); left != 0 {
			t.Errorf("%d left after a restart", left)
		}
		g.spend(http.StatusTooManyRequests)
	})
	// A budget that is new counts what was spent before it.
	withGateway(t, spending(path, "$0.0004/7d"), func(g *testGateway) {
		if left := g.budgetLeft(); left != 100 {
			t.Errorf("%d left of a new budget, want 100", left)
		}
	})
	withGateway(t, strings.Replace(spending(path, "$1/day"), "tokens:", "usage: {disabled: true}\ntokens:", 1), func(g *testGateway) {
		g.spend(http.StatusOK)
		if left := g.budgetLeft(); left != 1e6-75 {
			t.Errorf("%d left without a ledger", left)
		}
	})
	if u := usageOf(t, path); u.Requests != 6 {
		t.Errorf("a ledger that is off has written: %+v", u)
	}
}

// covers LIM-08: a raised budget works as soon as the file is loaded again.
func TestRaisedBudgetAfterReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	g := startGateway(t, spending(path, "$0.00015/month"))
	g.spend(http.StatusOK)
	g.spend(http.StatusOK)
	g.spend(http.StatusTooManyRequests)
	file := filepath.Join(t.TempDir(), "raised.yaml")
	up := g.cfg.Upstreams["up"].BaseURL
	text := fmt.Sprintf("listen: %s\nadmin: {listen: %s}\nupstreams: {up: {base_url: %q}}\n%s", g.cfg.Listen, g.cfg.Admin.Listen, up, spending(path, "$0.0003/month"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if g.reload(file, g.environment()) == nil {
		t.Fatalf("not loaded:\n%s", g.log)
	}
	g.spend(http.StatusOK)
	g.spend(http.StatusOK)
	g.spend(http.StatusTooManyRequests)
}

// Budgets without a database work, and begin anew with the process.
func TestBudgetWithoutADatabase(t *testing.T) {
	text := strings.Replace(spending("", "$0.0001/month"), "database: {url: \"\"}\n", "", 1)
	for range 2 {
		withGateway(t, text, func(g *testGateway) {
			g.spend(http.StatusOK)
			g.spend(http.StatusTooManyRequests)
		})
	}
}

// Gateways on one database without a shared store learn of each other's spending.
func TestBudgetIsComparedWithTheLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	g := startGateway(t, spending(path, "$0.001/month"))
	g.spend(http.StatusOK)
	l := ledger.New(g.db, ledger.Config{Flush: time.Millisecond, Buffer: 10, Metrics: g.metrics, Log: g.gateway.log})
	l.Record(&usage.Row{ID: "elsewhere", Began: time.Now(), Team: "spender", Key: "other", Nano: 800_000, Outcome: "ok"})
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if err := g.restore(context.Background(), g.proxy.Teams()); err != nil {
			t.Fatal(err)
		}
	}
	if left := g.budgetLeft(); left > 200 || left < 200-75 {
		t.Errorf("%d left", left)
	}
}

func TestBuildBudgets(t *testing.T) {
	all := buildLimits("team/a", limits.ScopeTeam, "a", config.Limits{Budget: config.Budgets{
		{Limit: 100e6, Per: "month"}, {Limit: 5e6, Per: "week", Mode: "shadow"}, {Limit: 1, Per: "30d"},
	}})
	if len(all) != 3 || !all[0].Monthly || all[0].Window != 0 || all[0].Amount != 100e6 || all[0].ID != "team/a/budget/month" || all[0].Wait ||
		all[1].Window != 7*24*time.Hour || !all[1].Shadow || all[1].Monthly || all[2].Window != 30*24*time.Hour {
		t.Errorf("%+v %+v %+v", all[0], all[1], all[2])
	}
}

func TestBuildRate(t *testing.T) {
	free := config.Money(0)
	r := buildRate(config.Price{Input: 2e6, Output: 3e6, Cached: &free, Request: 7, From: "2027-01-01", Above: 5, Hours: []string{"01:00-04:00"}, Weekdays: true})
	if r.Input != 2e6 || r.Output != 3e6 || r.Cached != 0 || r.Write != 2e6 || r.Request != 7 || r.From.Year() != 2027 || r.Above != 5 || len(r.Hours) != 1 || !r.Weekdays || r.Reasoning != 3e6 {
		t.Errorf("%+v", r)
	}
}

func TestBuildReasoningPrice(t *testing.T) {
	for _, price := range []config.Money{0, 5e6} {
		if r := buildRate(config.Price{Output: 3e6, Reasoning: &price}); r.Reasoning != int64(price) || r.Output != 3e6 {
			t.Errorf("%+v", r)
		}
	}
}

// The command prints the same through a gateway and from the database itself.
func TestUsageCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	g := startGateway(t, spending(path, "$1/month"))
	g.spend(http.StatusOK)
	g.spend(http.StatusOK)
	g.settled()
	if out := g.cli(0, "usage"); !strings.Contains(out, "spender  2") {
		t.Errorf("just after two requests:\n%s", out)
	}
	if out := g.cli(0, "usage", "--team", "nobody"); out != "no requests in that time\n" {
		t.Errorf("of a team without requests:\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(file, []byte("upstreams: {up: {base_url: http://127.0.0.1:1/v1}}\n"+spending(path, "$1/month")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"usage"}, {"usage", "--group-by", "team,key,model,upstream,day"}, {"usage", "--group-by", "none", "--csv"}, {"usage", "--json", "--team", "spender"},
		{"usage", "export"}, {"usage", "export", "--json", "--limit", "1"},
	} {
		remote, local := g.cli(0, args...), g.cli(0, append(args, "--config", file)...)
		if remote != local {
			t.Errorf("%v prints\n%s\nand from the database\n%s", args, remote, local)
		}
		if !strings.Contains(remote, "0.00015") && !strings.Contains(remote, "0.000075") {
			t.Errorf("%v prints\n%s", args, remote)
		}
	}
	if out := g.cli(0, "usage"); !strings.Contains(out, "TEAM") || !strings.Contains(out, "spender  2") {
		t.Errorf("%s", out)
	}
	for _, limit := range []string{"0", "-1", "1000001"} {
		for _, from := range [][]string{nil, {"--config", file}} {
			if out := g.cli(1, append([]string{"usage", "export", "--limit=" + limit}, from...)...); !strings.Contains(out, "limit: expected a number of rows from 1 to 1000000") {
				t.Errorf("--limit %s %v: %s", limit, from, out)
			}
		}
	}
	if out := g.cli(1, "usage", "--from", "today"); !strings.Contains(out, "expected a day") {
		t.Errorf("%s", out)
	}
	if out := g.cli(1, "usage", "--from", "today", "--config", file); !strings.Contains(out, "expected a day") {
		t.Errorf("%s", out)
	}
}
