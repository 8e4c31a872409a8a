package usage

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// A Rate is what a model costs under some conditions. Prices are in millionths of a
// US dollar per million tokens, which are trillionths per token: whole numbers, so
// that sums do not drift.
type Rate struct {
	Input, Output, Cached, Write int64
	Reasoning                    int64 // of the reasoning part of the output; Output is that of the rest
	Request                      int64 // for each request or image, in millionths of a US dollar

	// The conditions; zero ones always hold.
	From     time.Time // from this moment on
	Above    int64     // for requests with more input tokens, and then for all of them
	Hours    []Hours   // within one of these times of day in UTC
	Weekdays bool      // from Monday to Friday in UTC
}

// Hours are a time of day, in minutes since midnight. The end is not part of it.
type Hours struct{ Start, End int }

func (r *Rate) applies(at time.Time, input int64) bool {
	if at.Before(r.From) || r.Above > 0 && input <= r.Above {
		return false
	}
	at = at.UTC()
	if r.Weekdays && (at.Weekday() == time.Saturday || at.Weekday() == time.Sunday) {
		return false
	}
	minute := at.Hour()*60 + at.Minute()
	return len(r.Hours) == 0 || slices.ContainsFunc(r.Hours, func(h Hours) bool { return h.Start <= minute && minute < h.End })
}

// Cost is what a request costs, and so many units of what is billed apart from
// tokens, in billionths of a US dollar, rounded up; it saturates.
func (r *Rate) Cost(t Tokens, units int64) (nano int64) {
	cached := min(max(t.Cached, 0), max(t.Input, 0))
	written := min(max(t.CacheWrite, 0), max(t.Input, 0)-cached)
	reasoning := min(max(t.Reasoning, 0), max(t.Output, 0))
	var sum, carry uint64
	for _, part := range [...]struct{ n, price int64 }{
		{t.Input - cached - written, r.Input}, {cached, r.Cached}, {written, r.Write},
		{t.Output - reasoning, r.Output}, {reasoning, r.Reasoning},
		{units, min(r.Request, maxNano/1e6) * 1e6},
	} {
		hi, lo := bits.Mul64(uint64(max(part.n, 0)), uint64(part.price))
		if sum, carry = bits.Add64(sum, lo, 0); hi != 0 || carry != 0 {
			return maxNano
		}
	}
	return int64(min(sum/1000+min(sum%1000, 1), maxNano))
}

// AtMost is Cost where it is not known how much of the output is reasoning: as if all
// of it were, or nothing, whichever is dearer.
func (r *Rate) AtMost(t Tokens, units int64) (nano int64) {
	t.Reasoning = 0
	if r.Reasoning > r.Output {
		t.Reasoning = t.Output
	}
	return r.Cost(t, units)
}

// ByRequest reports whether the rate prices requests that use no tokens: it has a
// price for them, or everything is free.
func (r *Rate) ByRequest() bool {
	return r.Request > 0 || r.Input == 0 && r.Output == 0 && r.Reasoning == 0
}

// maxNano bounds the cost of one request: a billion dollars.
const maxNano = 1e18

// A Model is the rates of one model. Of those that apply, the last one counts.
type Model []Rate

// At is the rate of a request that is made at a time with so many input tokens, or
// nil when none applies.
func (m Model) At(at time.Time, input int64) *Rate {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].applies(at, input) {
			return &m[i]
		}
	}
	return nil
}

// Prices are the prices in force. They are immutable and safe for concurrent use;
// nil knows no price.
type Prices struct {
	own, shipped table
}

// A table holds models by name, and by patterns that end in *, the longest first.
type table struct {
	names    map[string]Model
	patterns []pattern
}

type pattern struct {
	prefix string
	model  Model
}

// New returns the prices that come with the program, with others before them. The
// names of own are models, upstreams with models (openai/gpt-4o), or either up to a
// final *; their case does not matter.
func New(own map[string]Model) *Prices {
	return &Prices{own: newTable(own), shipped: shipped()}
}

func newTable(models map[string]Model) table {
	t := table{names: make(map[string]Model, len(models))}
	for name, m := range models {
		name = strings.ToLower(name)
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			t.patterns = append(t.patterns, pattern{prefix, m})
			continue
		}
		t.names[name] = m
	}
	slices.SortFunc(t.patterns, func(a, b pattern) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
	return t
}

func (t *table) find(name string) Model {
	if m, ok := t.names[name]; ok {
		return m
	}
	for _, p := range t.patterns {
		if strings.HasPrefix(name, p.prefix) {
			return p.model
		}
	}
	return nil
}

// Find returns the rates of a model at an upstream, or nil when no price is known.
// A model is also known by its name without a vendor's prefix (openai/gpt-4o) and
// without the date or -latest at its end (gpt-4o-2024-08-06).
func (p *Prices) Find(upstream, model string) Model {
	if p == nil || model == "" {
		return nil
	}
	var names [4]string
	n := 0
	add := func(name string) {
		if name != "" && !slices.Contains(names[:n], name) {
			names[n] = name
			n++
		}
	}
	whole := strings.ToLower(model)
	base := whole[strings.LastIndexByte(whole, '/')+1:]
	add(whole)
	add(undated(whole))
	add(base)
	add(undated(base))
	upstream = strings.ToLower(upstream)
	for _, name := range names[:n] {
		if m := p.own.find(upstream + "/" + name); m != nil {
			return m
		}
	}
	for _, t := range [...]*table{&p.own, &p.shipped} {
		for _, name := range names[:n] {
			if m := t.find(name); m != nil {
				return m
			}
		}
	}
	return nil
}

// undated is a name without what marks a release of the model: -latest, or a date
// such as -2024-08-06, -20240806, @20240806 or -0613.
func undated(name string) string {
	if stem, ok := strings.CutSuffix(name, "-latest"); ok {
		return stem
	}
	for _, form := range [...]string{"-dddd-dd-dd", "-dddddddd", "@dddddddd", "-dddd"} {
		if at := len(name) - len(form); at > 0 && matches(name[at:], form) {
			return name[:at]
		}
	}
	return name
}

// matches reports whether text has the form, in which d is a digit.
func matches(text, form string) bool {
	for i := range len(form) {
		digit := text[i] >= '0' && text[i] <= '9'
		if form[i] == 'd' && !digit || form[i] != 'd' && text[i] != form[i] {
			return false
		}
	}
	return true
}

// Micro turns billionths of a US dollar into millionths, rounded up, as budgets
// count.
func Micro(nano int64) int64 {
	if nano > math.MaxInt64-999 {
		return math.MaxInt64 / 1000
	}
	return (nano + 999) / 1000
}
