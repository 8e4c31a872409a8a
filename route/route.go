// Package route turns a model name into a plan: the targets that may serve it, in
// the order in which they are to be tried.
package route

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"penstock/provider"
)

// Strategy says which target of a route is tried first.
type Strategy string

// The strategies.
const (
	Ordered     Strategy = "ordered"
	Weighted    Strategy = "weighted"
	LeastLoaded Strategy = "least_loaded"
)

// Any is the name of the route for models that have none of their own.
const Any = "*"

// Other is the metric label of model names that no configuration mentions.
const Other = "other"

// maxSeen is how many models that no configuration mentions get limits, breaker
// and estimates of their own, per upstream.
const maxSeen = 64

// maxName is the longest name, in bytes, of a model that has a breaker of its own
// before an upstream has served it.
const maxName = 256

// A Route is the targets of one model, or of any.
type Route struct {
	Targets  []provider.Target
	Strategy Strategy
}

// Errors of Plan.
var (
	ErrUnknownModel = errors.New("unknown model")
	ErrNotAllowed   = errors.New("model not allowed")
)

// A Table holds the routes of one configuration. It is immutable but for the
// models it has seen, and safe for concurrent use.
type Table struct {
	Routes  map[string]Route
	Default provider.Target // for requests that name no model
	// Upstreams are bare targets by name. With a route for any model, a client may
	// address one as upstream/model.
	Upstreams map[string]provider.Target
	Seen      *Seen
}

// Plan returns the targets for a model, the first to try first. allowed are the
// caller's patterns; nil allows all. load tells how busy a target is, by State.
// It reports ErrUnknownModel or ErrNotAllowed.
func (t *Table) Plan(model string, allowed []string, load func(state string) float64) ([]*provider.Target, error) {
	if !Allowed(model, allowed) {
		return nil, ErrNotAllowed
	}
	if r, ok := t.Routes[model]; ok && model != Any {
		return r.order(load), nil
	}
	anyRoute, ok := t.Routes[Any]
	if !ok {
		return nil, ErrUnknownModel
	}
	if name, rest, ok := strings.Cut(model, "/"); ok && rest != "" {
		if up, ok := t.Upstreams[name]; ok {
			return []*provider.Target{t.unlisted(up, rest, model)}, nil
		}
	}
	plan := anyRoute.order(load)
	for i, target := range plan {
		sent := target.Model
		if sent == "" {
			sent = model
		}
		plan[i] = t.unlisted(*target, sent, model)
	}
	return plan, nil
}

// PlanDefault returns the target of requests that name no model.
func (t *Table) PlanDefault() []*provider.Target {
	d := t.Default
	return []*provider.Target{&d}
}

// PlanStored returns the targets of requests for an answer that the upstream which
// gave it keeps: the default one first. Where clients' own credentials are forwarded
// it is the only one, since they are not for others.
func (t *Table) PlanStored() []*provider.Target {
	plan := t.PlanDefault()
	if plan[0].Forward {
		return plan
	}
	for _, name := range slices.Sorted(maps.Keys(t.Upstreams)) {
		if up := t.Upstreams[name]; name != plan[0].Upstream && !up.Forward {
			plan = append(plan, &up)
		}
	}
	return plan
}

// unlisted is a target for a model that the configuration does not mention.
func (t *Table) unlisted(up provider.Target, sent, named string) *provider.Target {
	if sent != named {
		up.Model = sent
	}
	up.State = t.Seen.state(up.Upstream, sent)
	up.Label = Other
	if len(sent) <= maxName { // one model that is broken must not close the others
		up.Breaker = up.Upstream + "/" + sent
	}
	return &up
}

// Models lists the names that clients may use, sorted, without Any.
func (t *Table) Models(allowed []string) []string {
	var names []string
	for name := range t.Routes {
		if name != Any && Allowed(name, allowed) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Allowed reports whether a model matches one of the patterns: equal names, or a
// prefix before a final *. Nil patterns allow all.
func Allowed(model string, patterns []string) bool {
	if patterns == nil {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(model, prefix)
		}
		return p == model
	})
}

func (r Route) order(load func(string) float64) []*provider.Target {
	plan := make([]*provider.Target, len(r.Targets))
	for i := range r.Targets {
		plan[i] = &r.Targets[i]
	}
	switch r.Strategy {
	case Weighted:
		shuffle(plan)
	case LeastLoaded:
		loads := make(map[*provider.Target]float64, len(plan))
		for _, t := range plan {
			loads[t] = load(t.State)
		}
		slices.SortStableFunc(plan, func(a, b *provider.Target) int {
			switch d := loads[a] - loads[b]; {
			case d < 0:
				return -1
			case d > 0:
				return 1
			}
			return 0
		})
	}
	return plan
}

// shuffle draws without replacement, by weight.
func shuffle(plan []*provider.Target) {
	total := 0
	for _, t := range plan {
		total += max(1, t.Weight)
	}
	for i := range plan {
		n := rand.IntN(total)
		for j := i; j < len(plan); j++ {
			w := max(1, plan[j].Weight)
			if n < w {
				chosen := plan[j]
				copy(plan[i+1:j+1], plan[i:j])
				plan[i] = chosen
				total -= w
				break
			}
			n -= w
		}
	}
}

// Seen remembers models that no configuration mentions but that an upstream has
// served, so that each has its own state. It is bounded, because the names come
// from clients. It outlives reloads and is safe for concurrent use.
type Seen struct {
	mu    sync.RWMutex
	names map[string]bool // by state key
	count map[string]int  // by upstream
}

// NewSeen returns an empty Seen.
func NewSeen() *Seen { return &Seen{names: make(map[string]bool), count: make(map[string]int)} }

func (s *Seen) state(upstream, model string) string {
	key := upstream + "/" + model
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.names[key] {
		return key
	}
	return upstream + "/" + Any
}

// Know gives a model state of its own because the configuration mentions it, beyond
// any bound.
func (s *Seen) Know(upstream, model string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[upstream+"/"+model] = true
}

// Served notes that the upstream served the model.
func (s *Seen) Served(upstream, model string) {
	key := upstream + "/" + model
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.names[key] && s.count[upstream] < maxSeen {
		s.names[key] = true
		s.count[upstream]++
	}
}
