package main

import (
	"context"
	"slices"

	"penstock/config"
	"penstock/database"
	"penstock/proxy"
	"penstock/teams"
	"penstock/teams/sqlstore"
	"penstock/telemetry"
)

// openTeams opens the database, where one is configured, and loads its teams and
// keys.
func (p *parts) openTeams(ctx context.Context, cfg *config.Config) error {
	file, err := fileTeams(cfg)
	if err != nil {
		return err
	}
	t := teams.Parts{Check: p, Log: p.log, Apply: p.applyTeams}
	if cfg.Database.URL != "" {
		if p.db, err = database.Open(ctx, string(cfg.Database.URL)); err != nil {
			return err
		}
		t.Store = sqlstore.New(p.db)
	}
	p.teams = teams.New(t, file)
	return p.teams.Start(ctx)
}

// applyTeams puts the teams and keys of the database in force beside those of the
// file. Levels, upstreams and what waits stay as they are.
func (p *parts) applyTeams(set *teams.Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cfg := p.config.Load()
	who := p.builder.callers(cfg, set)
	p.complain(who)
	if newBudget(p.proxy.Teams(), who.teams) {
		defer p.remember(who.teams)
	}
	if who.open == p.open {
		p.proxy.SwapCallers(who.keys, who.teams)
		return
	}
	// With the first key, the client's credential is no longer the upstream's.
	s, err := p.builder.snapshot(cfg, who)
	if err != nil {
		p.log.Error("teams and keys of the database are not in force", "error", err.Error())
		return
	}
	p.open = who.open
	p.proxy.Swap(s)
}

// newBudget reports whether there is a budget that was not there before. Other
// changes need not ask the ledger.
func newBudget(before, now map[string]*proxy.Team) bool {
	known := make(map[string]bool)
	for _, b := range budgetsOf(before) {
		known[b.limit.ID] = true
	}
	return slices.ContainsFunc(budgetsOf(now), func(b budget) bool { return !known[b.limit.ID] })
}

// maxComplaints bounds the lines about what cannot be used of one set.
const maxComplaints = 20

func (p *parts) complain(who *callers) {
	for i, err := range who.problems {
		if i == maxComplaints {
			p.log.Error("more teams and keys of the database cannot be used", "count", len(who.problems)-i)
			return
		}
		p.log.Error("the database holds what cannot be used", "error", err.Error())
	}
}

// teamGauges tell how the teams and keys of the database stand.
func (p *parts) teamGauges() telemetry.Reader {
	return func() []telemetry.Gauge {
		s := p.teams.Status()
		if !s.Stored {
			return nil
		}
		ok := 0.0
		if s.OK {
			ok = 1
		}
		return []telemetry.Gauge{
			{Name: "teams_store_up", Help: "1 while teams and keys can be read from the database; while it is 0, the last known ones are in force.", Value: ok},
			{Name: "teams_store_age_seconds", Help: "Time since the database was last seen to hold the teams and keys that are in force.", Value: s.Age.Seconds()},
		}
	}
}
