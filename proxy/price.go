package proxy

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/route"
	"penstock/usage"
)

// errUnpriced refuses what a budget could not count.
var errUnpriced = &apiError{Status: http.StatusForbidden, Code: "price_unknown", Type: typeInvalid, Outcome: "client_error",
	Message: "the gateway does not know what this request costs, and this key may only make requests that its budget can count; use a model with a price, or ask the gateway's operator to set one under prices, or unpriced: allow for the team"}

// price adds to the cost what the request may cost at the dearest of its targets.
// Where a budget applies, targets without a price are left out, and a request for
// which none is left is refused.
func (x *exchange) price(plan []*provider.Target, cost *limits.Cost) ([]*provider.Target, error) {
	budget, enforced := x.budget()
	refuse := x.team.Unpriced == UnpricedRefuse || enforced && x.team.Unpriced != UnpricedAllow
	if !budget && !refuse {
		return plan, nil
	}
	known := make([]*provider.Target, 0, len(plan))
	for _, t := range plan {
		all, ok := x.moneyAt(t, usage.Tokens{Input: cost.Input, Output: cost.Output}, (*usage.Rate).AtMost)
		if !ok {
			continue
		}
		known = append(known, t)
		certain, _ := x.moneyAt(t, usage.Tokens{Input: cost.Input, Output: cost.Output - cost.Predicted}, (*usage.Rate).AtMost)
		if micro := usage.Micro(all); micro > cost.MicroUSD {
			cost.MicroUSD, cost.PredictedMicroUSD = micro, micro-usage.Micro(certain)
		}
	}
	switch {
	case !refuse:
		return plan, nil
	case len(known) == 0:
		return nil, errUnpriced
	}
	return known, nil
}

// budget reports whether a budget applies to the caller, and whether one of them
// refuses.
func (x *exchange) budget() (applies, enforced bool) {
	for _, l := range x.limits {
		if l.Dimension == limits.Spend {
			applies, enforced = true, enforced || !l.Shadow
		}
	}
	return applies, enforced
}

// What a team does with requests whose price is not known. The zero value refuses
// them where a budget applies.
const (
	UnpricedAllow  = "allow"
	UnpricedRefuse = "refuse"
)

// moneyAt is what the request costs at a target that uses so many tokens, in
// billionths of a US dollar by the rule cost, and whether that is known. Requests that
// set no model to work cost nothing.
func (x *exchange) moneyAt(t *provider.Target, tokens usage.Tokens, cost func(*usage.Rate, usage.Tokens, int64) int64) (nano int64, known bool) {
	if !billed(x.call) {
		return 0, true
	}
	rate := x.s.Prices.Find(t.Upstream, x.modelAt(t)).At(x.begin, tokens.Input)
	if rate == nil || !x.call.Op.Metered && !rate.ByRequest() {
		return 0, false // no price, or one of tokens, which are not known here
	}
	units := int64(1)
	if strings.HasPrefix(x.call.Op.Name, "images_") {
		units = max(1, x.call.Choices)
	}
	return cost(rate, tokens, units), true
}

// billed reports whether providers take money for such a call.
func billed(c *provider.Call) bool {
	return c.Op.Metered || c.Op.Unchecked || c.Upgrade || c.Op.Name == "images_variations"
}

// modelAt is the name under which a target knows the call's model.
func (x *exchange) modelAt(t *provider.Target) string {
	if t.Model != "" {
		return t.Model
	}
	return x.call.Model
}

// spent notes what the request cost. Of output that was counted here, all may have been
// reasoning.
func (x *exchange) spent(t *provider.Target, use provider.Usage) {
	rule := (*usage.Rate).Cost
	if x.rec.Source == "estimated" {
		rule = (*usage.Rate).AtMost
	}
	nano, known := x.moneyAt(t, usage.Tokens{
		Input: use.Input, Output: use.Output, Cached: use.Cached, CacheWrite: use.CacheWrite, Reasoning: use.Reasoning,
	}, rule)
	x.rec.Nano, x.rec.Unpriced = nano, !known
	if !known && x.p.unpriced.first(mention{t.Upstream, x.labelAt(t)}) {
		x.p.log.Warn("no price is known for a model, so its requests count as free; set one under prices", "upstream", t.Upstream, "model", x.labelAt(t), "operation", x.call.Op.Name)
	}
}

// moreOutput is what so many tokens of output may cost beyond those before them, in
// millionths of a US dollar.
func (x *exchange) moreOutput(t *provider.Target, input, before, more int64) int64 {
	less, _ := x.moneyAt(t, usage.Tokens{Input: input, Output: before}, (*usage.Rate).AtMost)
	all, _ := x.moneyAt(t, usage.Tokens{Input: input, Output: before + more}, (*usage.Rate).AtMost)
	return usage.Micro(all - less)
}

// labelAt is the bounded name of the model at a target: that of the configuration,
// or one that the upstream has served, or other.
func (x *exchange) labelAt(t *provider.Target) string {
	if t.Label != route.Other {
		return t.Label
	}
	if _, model, _ := strings.Cut(t.State, "/"); model != route.Any {
		return model
	}
	return route.Other
}

// A mention is a model of an upstream that the log has spoken of.
type mention struct{ upstream, model string }

// mentions remembers what has been said once. Its names are bounded by the
// configuration and by route.Seen, and by their number. Each request may ask, so who asks
// for what has been said waits for nobody.
type mentions struct {
	said atomic.Pointer[map[mention]bool] // not changed, but replaced
	mu   sync.Mutex                       // while it is
}

const maxMentions = 1000

func (m *mentions) has(x mention) bool {
	said := m.said.Load()
	return said != nil && ((*said)[x] || len(*said) >= maxMentions)
}

// first reports whether something is to be said now. Of too many things nothing is.
func (m *mentions) first(x mention) bool {
	if m.has(x) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.has(x) {
		return false
	}
	more := map[mention]bool{x: true}
	if said := m.said.Load(); said != nil {
		maps.Copy(more, *said)
	}
	m.said.Store(&more)
	return true
}

// maxModelName bounds what is kept of the name that a client gives a model.
const maxModelName = 128

// row is the request's row of the usage ledger.
func (x *exchange) row(took, ttft time.Duration, label string) *usage.Row {
	r := &x.rec
	if r.target != nil {
		label = x.labelAt(r.target)
	}
	row := &usage.Row{
		ID: r.ID, Began: x.begin, Team: r.Team, Key: r.Key, Label: label, Upstream: r.Upstream, Operation: r.Operation, Class: r.Class,
		Status: r.Status, Outcome: r.Outcome, Attempts: r.Attempts, Stream: r.cut != nil, Queue: r.Queue, TTFT: ttft, Duration: took,
		Tokens: usage.Tokens{Input: r.Usage.Input, Output: r.Usage.Output, Cached: r.Usage.Cached, CacheWrite: r.Usage.CacheWrite, Reasoning: r.Usage.Reasoning},
		Source: r.Source, Nano: r.Nano, Unpriced: r.Unpriced,
	}
	if x.call != nil {
		row.Model = strings.Clone(clip(x.call.Model, maxModelName)) // not a part of the body
	}
	return row
}
