package main

import (
	"context"
	"fmt"
	"time"

	"penstock/config"
	"penstock/limits"
	"penstock/proxy"
	"penstock/telemetry"
	"penstock/usage"
	"penstock/usage/ledger"
)

// restoreEvery is how often budgets are compared with the ledger: what other
// gateways have spent, and what a shared store has forgotten.
const restoreEvery = 10 * time.Second

// restoreFor bounds one comparison.
const restoreFor = 2 * time.Second

// closeFor is how long a stop waits for the last rows to be written.
const closeFor = 10 * time.Second

// openLedger starts the usage ledger, where there is a database for it.
func (p *parts) openLedger(cfg *config.Config) {
	if p.db == nil || cfg.Usage.Disabled {
		return
	}
	p.ledger = ledger.New(p.db, ledger.Config{
		Flush: time.Duration(cfg.Usage.Flush), Buffer: int(cfg.Usage.Buffer), Retention: time.Duration(cfg.Usage.Retention),
		Metrics: p.metrics, Log: p.log,
	})
}

// recorder is the ledger as the proxy knows it.
func (p *parts) recorder() proxy.Ledger {
	if p.ledger == nil {
		return nil
	}
	return p.ledger
}

func (p *parts) closeLedger() error {
	if p.ledger == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeFor)
	defer cancel()
	return p.ledger.Close(ctx)
}

// ledgerGauges tell how the ledger stands.
func (p *parts) ledgerGauges() telemetry.Reader {
	return func() []telemetry.Gauge {
		if p.ledger == nil {
			return nil
		}
		up := 0.0
		if p.ledger.Healthy() {
			up = 1
		}
		return []telemetry.Gauge{
			{Name: "ledger_up", Help: "1 while usage can be written to the database.", Value: up},
			{Name: "ledger_queue", Help: "Rows of the usage ledger that wait to be written.", Value: float64(p.ledger.Queued())},
		}
	}
}

// buildPrices are the prices of the configuration before those that come with the
// program.
func buildPrices(c *config.Config) *usage.Prices {
	own := make(map[string]usage.Model, len(c.Prices))
	for name, entries := range c.Prices {
		for _, p := range entries {
			own[name] = append(own[name], buildRate(p))
		}
	}
	return usage.New(own)
}

func buildRate(p config.Price) usage.Rate {
	r := usage.Rate{
		Input: int64(p.Input), Output: int64(p.Output), Cached: int64(p.Input), Write: int64(p.Input),
		Reasoning: int64(p.Output), Request: int64(p.Request), Above: int64(p.Above), Weekdays: p.Weekdays,
	}
	if p.Cached != nil {
		r.Cached = int64(*p.Cached)
	}
	if p.Write != nil {
		r.Write = int64(*p.Write)
	}
	if p.Reasoning != nil {
		r.Reasoning = int64(*p.Reasoning)
	}
	r.From, _ = time.Parse(time.DateOnly, p.From) // Load has checked it
	for _, text := range p.Hours {
		if h, ok := usage.ParseHours(text); ok {
			r.Hours = append(r.Hours, h)
		}
	}
	return r
}

// buildBudgets are the budgets of a team or key. They go by their period, so that
// another amount keeps what was spent.
func buildBudgets(prefix string, scope limits.Scope, owner string, budgets config.Budgets) []*limits.Limit {
	var out []*limits.Limit
	for _, b := range budgets {
		days, _ := b.Per.Days() // Load has checked it
		out = append(out, &limits.Limit{
			ID: prefix + "/budget/" + string(b.Per), Scope: scope, Owner: owner, Dimension: limits.Spend, Amount: int64(b.Limit),
			Burst: int64(b.Limit), Window: time.Duration(days) * 24 * time.Hour, Monthly: days == 0, Shadow: b.Mode == "shadow",
		})
	}
	return out
}

// A budget is one with the owner whose spending counts against it. The key is empty
// for the team's own.
type budget struct {
	limit *limits.Limit
	owner ledger.Owner
}

func budgetsOf(teams map[string]*proxy.Team) []budget {
	var all []budget
	collect := func(some []*limits.Limit, o ledger.Owner) {
		for _, l := range some {
			if l.Dimension == limits.Spend {
				all = append(all, budget{l, o})
			}
		}
	}
	for name, t := range teams {
		collect(t.Limits, ledger.Owner{Team: name})
		for key, own := range t.Keys {
			collect(own, ledger.Owner{Team: name, Key: key})
		}
	}
	return all
}

// restore raises what the budgets have spent to what the ledger knows of, so that
// neither a restart nor a store that has forgotten gives anything back. Without a
// ledger it does nothing.
func (p *parts) restore(ctx context.Context, teams map[string]*proxy.Team) error {
	all := budgetsOf(teams)
	if p.ledger == nil || len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, restoreFor)
	defer cancel()
	every := make([]*limits.Limit, len(all))
	for i, b := range all {
		every[i] = b.limit
	}
	levels, err := p.store.Levels(ctx, every)
	if err != nil {
		return fmt.Errorf("read the budgets: %w", err)
	}
	now := time.Now().UnixMicro()
	type window struct{ start, end int64 }
	spent := make(map[window]map[ledger.Owner]int64) // in billionths of a dollar
	for i, b := range all {
		start, end := b.limit.WindowAt(now)
		w := window{start, end}
		if spent[w] == nil {
			if spent[w], err = p.spentIn(ctx, start, end); err != nil {
				return err
			}
		}
		micro := usage.Micro(spent[w][b.owner])
		if micro <= b.limit.Amount-levels[i].Remaining {
			continue
		}
		if err := p.store.Restore(ctx, b.limit, start, micro); err != nil {
			return fmt.Errorf("restore a budget: %w", err)
		}
	}
	return nil
}

// remember restores budgets that have come into force, so that one that is new
// counts what was spent before. The change itself does not wait for it.
func (p *parts) remember(teams map[string]*proxy.Team) {
	if err := p.restore(context.Background(), teams); err != nil {
		p.log.Warn("what was spent before a change of budgets is not known yet", "error", err.Error())
	}
}

// spentIn tells what every key, and every team as a whole, has spent in a window.
func (p *parts) spentIn(ctx context.Context, start, end int64) (map[ledger.Owner]int64, error) {
	byKey, err := ledger.Spent(ctx, p.db, time.UnixMicro(start), time.UnixMicro(end))
	if err != nil {
		return nil, fmt.Errorf("read what was spent from the usage ledger: %w", err)
	}
	all := make(map[ledger.Owner]int64, 2*len(byKey))
	for o, nano := range byKey {
		all[ledger.Owner{Team: o.Team}] += nano
		if o.Key != "" {
			all[o] += nano
		}
	}
	return all, nil
}

// watchBudgets compares the budgets in force with the ledger now and then, until
// ctx ends.
func (p *parts) watchBudgets(ctx context.Context) {
	ticker := time.NewTicker(restoreEvery)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := p.restore(ctx, p.proxy.Teams())
		if err != nil && !failing && ctx.Err() == nil {
			p.log.Warn("budgets cannot be compared with the usage ledger; they go on with what they know", "error", err.Error())
		}
		failing = err != nil
	}
}
