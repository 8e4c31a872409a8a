package proxy

import (
	"context"
	"strings"
	"time"

	"penstock/breaker"
	"penstock/limits"
	"penstock/route"
	"penstock/telemetry"
)

// Gauges reads the live state of the parts when metrics are scraped.
func (p *Proxy) Gauges(version string) telemetry.Reader {
	return func() []telemetry.Gauge {
		s := p.snapshot.Load()
		out := []telemetry.Gauge{
			{Name: "build_info", Help: "Always 1; the label tells the version.", Labels: []string{"version"}, Values: []string{version}, Value: 1},
			{Name: "ready", Help: "1 while the gateway accepts requests.", Value: truth(!p.Leaving())},
			{Name: "websockets", Help: "WebSockets that are open.", Value: float64(p.sockets.Load())},
			{Name: "buffered_bytes", Help: "Bytes of request bodies held in memory.", Value: float64(p.memory.used.Load())},
			{Name: "buffered_bytes_limit", Help: "Most bytes of request bodies that may be held in memory.", Value: float64(s.Settings.MaxMemory)},
		}
		out = append(out, p.queueGauges()...)
		out = append(out, p.targetGauges(s)...)
		out = append(out, p.limitGauges(s)...)
		for upstream, left := range p.budgets.left(s.Settings.Budget, s.Settings.BudgetFloor) {
			out = append(out, telemetry.Gauge{Name: "retry_budget_left", Help: "Attempts at the same upstream that the retry budget still allows.",
				Labels: []string{"upstream"}, Values: []string{upstream}, Value: float64(left)})
		}
		return out
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (p *Proxy) queueGauges() []telemetry.Gauge {
	var out []telemetry.Gauge
	labels := []string{"upstream", "class"}
	for _, d := range p.queue.Depths() {
		values := []string{d.Upstream, d.Class.String()}
		out = append(out,
			telemetry.Gauge{Name: "queue_depth", Help: "Requests that wait.", Labels: labels, Values: values, Value: float64(d.Waiting)},
			telemetry.Gauge{Name: "queue_oldest_seconds", Help: "How long the request first in line of its key has waited.", Labels: labels, Values: values, Value: d.Oldest.Seconds()})
	}
	return out
}

// modelLabel is the bounded model label of a target: the name in the
// configuration, or other. Targets of models that only clients mention share it,
// so their gauges are added up.
func modelLabel(s *Snapshot, t *limits.Target) string {
	_, model, _ := strings.Cut(t.Name, "/")
	for _, r := range s.Routes.Routes {
		for _, target := range r.Targets {
			if target.State == t.Name && target.Label != "other" {
				return model
			}
		}
	}
	if up := s.Upstreams[t.Upstream]; up != nil && up.Models[model] != nil {
		return model
	}
	return "other"
}

// breakerStates are the states of breakers by target. Models that have a breaker, but
// no target of their own, count at their upstream's target for any: the worst of them.
func (p *Proxy) breakerStates(targets []*limits.Target) map[string]breaker.State {
	states := make(map[string]breaker.State, len(targets))
	for _, t := range targets {
		states[t.Name] = breaker.Closed
	}
	p.breakers.Each(func(name string, st breaker.State) {
		if _, ok := states[name]; !ok {
			upstream, _, _ := strings.Cut(name, "/")
			name = upstream + "/" + route.Any
		}
		states[name] = max(states[name], st)
	})
	return states
}

func (p *Proxy) targetGauges(s *Snapshot) []telemetry.Gauge {
	type key struct{ upstream, model string }
	type sums struct{ inUse, scale, state, parked float64 }
	all := make(map[key]sums)
	p.mu.Lock()
	targets := make([]*limits.Target, 0, len(p.targets))
	for _, t := range p.targets {
		targets = append(targets, t)
	}
	p.mu.Unlock()
	states := p.breakerStates(targets)
	for _, t := range targets {
		k := key{t.Upstream, modelLabel(s, t)}
		v, ok := all[k]
		if !ok {
			v.scale = 1
		}
		v.inUse += float64(t.InUse())
		v.scale = min(v.scale, t.Scale())
		v.state = max(v.state, float64(states[t.Name]))
		v.parked = max(v.parked, truth(p.parking.parked(t.Upstream) || p.parking.parked(t.Name)))
		all[k] = v
	}
	var out []telemetry.Gauge
	labels := []string{"upstream", "model"}
	for k, v := range all {
		values := []string{k.upstream, k.model}
		out = append(out,
			telemetry.Gauge{Name: "concurrency_in_use", Help: "Requests in flight at the upstream.", Labels: labels, Values: values, Value: v.inUse},
			telemetry.Gauge{Name: "upstream_scale", Help: "Share of its limits that the upstream may use; below 1 it was slowed down for its 429s.", Labels: labels, Values: values, Value: v.scale},
			telemetry.Gauge{Name: "breaker_state", Help: "State of the circuit breaker: 0 closed, 1 half-open, 2 open.", Labels: labels, Values: values, Value: v.state},
			telemetry.Gauge{Name: "upstream_credential_parked", Help: "1 while other upstreams are preferred because this one refused our credential lately.", Labels: labels, Values: values, Value: v.parked})
	}
	return out
}

// gaugesFor bounds how long a scrape waits for a shared store, which is asked for what
// this replica has not used lately.
const gaugesFor = time.Second

// limitGauges tell the level and capacity of every configured limit but those of
// single keys, whose number is not bounded.
func (p *Proxy) limitGauges(s *Snapshot) []telemetry.Gauge {
	var all []*limits.Limit
	all = append(all, s.Gateway...)
	for _, t := range s.Teams {
		all = append(all, t.Limits...)
	}
	for _, u := range s.Upstreams {
		all = append(all, u.Limits...)
		for _, m := range u.Models {
			all = append(all, m...)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), gaugesFor)
	defer cancel()
	levels, err := limits.LevelsNow(ctx, p.store, all)
	if err != nil {
		return nil
	}
	var out []telemetry.Gauge
	labels := []string{"scope", "owner", "dimension", "window"}
	seen := make(map[string]bool, len(all))
	for i, l := range all {
		window, level, capacity := l.Window.String(), float64(levels[i].Remaining), float64(l.Burst)
		switch l.Dimension {
		case limits.Concurrency:
			window, capacity = "", float64(l.Amount)
		case limits.Spend:
			window, level, capacity = l.Period(), level/1e6, capacity/1e6
		}
		values := []string{l.Scope.String(), l.Owner, l.Dimension.String(), window}
		if id := strings.Join(values, "\x00"); seen[id] {
			continue // a second rate over the same window
		} else {
			seen[id] = true
		}
		out = append(out,
			telemetry.Gauge{Name: "limit_level", Help: "What is left of a limit, of budgets in US dollars; negative is debt.", Labels: labels, Values: values, Value: level},
			telemetry.Gauge{Name: "limit_capacity", Help: "What a limit holds when it is full.", Labels: labels, Values: values, Value: capacity})
	}
	return out
}
