package proxy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"penstock/breaker"
	"penstock/limits"
)

// Live is where everything stands now.
type Live struct {
	Gateway LiveGateway  `json:"gateway"`
	Limits  []LiveLimit  `json:"limits"`
	Targets []LiveTarget `json:"targets"`
	Queues  []LiveQueue  `json:"queues"`
}

// LiveGateway is the process as a whole.
type LiveGateway struct {
	InFlight    int64 `json:"requests_in_flight"` // waiting ones included
	Memory      int64 `json:"buffered_bytes"`
	MemoryLimit int64 `json:"buffered_bytes_limit"`
	Ready       bool  `json:"ready"`
}

// A LiveLimit is one limit and its level.
type LiveLimit struct {
	ID        string  `json:"limit"`
	Scope     string  `json:"scope"`
	Owner     string  `json:"owner"`
	Dimension string  `json:"dimension"`
	Rule      string  `json:"rule"`   // in words
	Source    string  `json:"source"` // configured, learned from an upstream's headers, or adaptive
	Capacity  int64   `json:"capacity"`
	Remaining int64   `json:"remaining"` // negative is debt
	Reset     float64 `json:"reset_seconds,omitzero"`
	OnLimit   string  `json:"on_limit"`
	Shadow    bool    `json:"shadow,omitzero"`
}

// A LiveTarget is an upstream × model and what it lets through.
type LiveTarget struct {
	Target   string  `json:"target"`
	Upstream string  `json:"upstream"`
	InUse    int64   `json:"in_flight"`
	Scale    float64 `json:"scale"` // share of its limits that it may use
	Paused   float64 `json:"paused_seconds,omitzero"`
	Breaker  string  `json:"breaker"`
	Open     float64 `json:"breaker_open_seconds,omitzero"` // until it is probed
	Parked   bool    `json:"parked_credential,omitzero"`    // it refused our credential lately
}

// A LiveQueue is the requests of a class that wait for an upstream.
type LiveQueue struct {
	Upstream string  `json:"upstream"`
	Class    string  `json:"class"`
	Waiting  int64   `json:"waiting"`
	Oldest   float64 `json:"oldest_seconds"`
}

// A LiveFilter leaves out what does not belong to a team or an upstream. Empty ones
// leave out nothing.
type LiveFilter struct{ Team, Upstream string }

// Errors of a filter.
var (
	ErrUnknownTeam     = errors.New("there is no team of that name")
	ErrUnknownUpstream = errors.New("there is no upstream of that name")
)

// Live reports where everything stands. It fails when the filter names what there is
// not, or the store of levels fails.
func (p *Proxy) Live(ctx context.Context, f LiveFilter) (*Live, error) {
	s := p.snapshot.Load()
	switch {
	case f.Team != "" && s.Teams[f.Team] == nil:
		return nil, ErrUnknownTeam
	case f.Upstream != "" && s.Upstreams[f.Upstream] == nil:
		return nil, ErrUnknownUpstream
	}
	out := &Live{
		Gateway: LiveGateway{p.inFlight.Load(), p.memory.used.Load(), s.Settings.MaxMemory, !p.Leaving()},
		Limits:  []LiveLimit{}, Targets: []LiveTarget{}, Queues: []LiveQueue{},
	}
	targets := p.liveTargets(f)
	all := f.limits(s)
	states := p.breakerStates(targets)
	for _, t := range targets {
		all = append(all, t.Limits()...)
		out.Targets = append(out.Targets, p.liveTarget(t, states[t.Name]))
	}
	all = once(all)
	levels, err := limits.LevelsNow(ctx, p.store, all)
	if err != nil {
		return nil, err
	}
	for i, l := range all {
		out.Limits = append(out.Limits, liveLimit(l, levels[i]))
	}
	for _, d := range p.queue.Depths() {
		if (d.Waiting > 0 || f.Upstream != "") && (f.Upstream == "" || f.Upstream == d.Upstream) {
			out.Queues = append(out.Queues, LiveQueue{d.Upstream, d.Class.String(), d.Waiting, seconds(d.Oldest)})
		}
	}
	slices.SortFunc(out.Limits, func(a, b LiveLimit) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Targets, func(a, b LiveTarget) int { return strings.Compare(a.Target, b.Target) })
	slices.SortFunc(out.Queues, func(a, b LiveQueue) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Class, b.Class))
	})
	return out, nil
}

// limits are those of the configuration that the filter lets through.
func (f LiveFilter) limits(s *Snapshot) []*limits.Limit {
	var all []*limits.Limit
	if f == (LiveFilter{}) {
		all = append(all, s.Gateway...)
	}
	if f.Upstream == "" {
		for name, t := range s.Teams {
			if f.Team != "" && f.Team != name {
				continue
			}
			all = append(all, t.Limits...)
			for _, key := range t.Keys {
				all = append(all, key...)
			}
		}
	}
	if f.Team == "" {
		for name, u := range s.Upstreams {
			if f.Upstream != "" && f.Upstream != name {
				continue
			}
			all = append(all, u.Limits...)
			for _, m := range u.Models {
				all = append(all, m...)
			}
		}
	}
	return all
}

func (p *Proxy) liveTargets(f LiveFilter) []*limits.Target {
	if f.Team != "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*limits.Target
	for _, t := range p.targets {
		if f.Upstream == "" || f.Upstream == t.Upstream {
			all = append(all, t)
		}
	}
	return all
}

func (p *Proxy) liveTarget(t *limits.Target, st breaker.State) LiveTarget {
	return LiveTarget{
		Target: t.Name, Upstream: t.Upstream, InUse: t.InUse(), Scale: t.Scale(), Paused: seconds(t.Paused()),
		Breaker: st.String(), Open: seconds(p.breakers.Left(t.Name)),
		Parked: p.parking.parked(t.Upstream) || p.parking.parked(t.Name),
	}
}

// once drops limits that stand at several targets.
func once(all []*limits.Limit) []*limits.Limit {
	seen := make(map[string]bool, len(all))
	return slices.DeleteFunc(all, func(l *limits.Limit) bool {
		again := seen[l.ID]
		seen[l.ID] = true
		return again
	})
}

func liveLimit(l *limits.Limit, level limits.Level) LiveLimit {
	out := LiveLimit{
		ID: l.ID, Scope: l.Scope.String(), Owner: l.Owner, Dimension: l.Dimension.String(), Rule: l.String(),
		Source: l.Origin(), Capacity: l.Burst, Remaining: level.Remaining,
		Reset: seconds(level.Reset), OnLimit: "refuse", Shadow: l.Shadow,
	}
	if l.Dimension == limits.Concurrency {
		out.Capacity = l.Amount
	}
	if l.Wait {
		out.OnLimit = "wait"
	}
	return out
}
