//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// results are the values of each figure for each system, one a round.
type results struct {
	values map[string]map[string][]float64
}

func newResults() *results { return &results{values: make(map[string]map[string][]float64)} }

func (r *results) add(figure, system string, v float64) {
	if r.values[figure] == nil {
		r.values[figure] = make(map[string][]float64)
	}
	r.values[figure][system] = append(r.values[figure][system], v)
}

// count adds to a figure that is one number over all rounds.
func (r *results) count(figure, system string, n int) {
	if len(r.values[figure][system]) == 0 {
		r.add(figure, system, 0)
	}
	r.values[figure][system][0] += float64(n)
}

// A figure is a row of the table.
type figure struct {
	title, unit string
	name        string // of the values
	system      string // that is judged; penstock when empty
	base        string // that it is compared with; the reverse proxy when empty
	less        string // the system whose value is subtracted in each round
	goal        goal
}

// A goal is a bound of the ratio to the base, of the value, or of the difference
// to the base, or that there be none. At most one is set.
type goal struct {
	ratio, least, value, more float64
	none                      bool
}

var figures = []figure{
	{title: "300 B request, 1 KB answer: CPU", unit: "µs", name: "small", goal: goal{ratio: 0.90}},
	{title: "the same with the JSON access log, against without", unit: "µs", name: "small", system: sysLogging, base: sysPenstock, goal: goal{ratio: 1.15}},
	{title: "the same with the usage ledger, against without", unit: "µs", name: "small", system: sysLedger, base: sysPenstock},
	{title: "32 KB request, 1 KB answer: CPU", unit: "µs", name: "large", goal: goal{ratio: 1.00}},
	{title: "SSE burst, usage counted: CPU per chunk", unit: "µs", name: "burst", goal: goal{ratio: 1.00}},
	{title: "500 streams × 20 ms: CPU per chunk", unit: "µs", name: "paced", goal: goal{ratio: 1.15}},
	{title: "500 streams × 20 ms: relay delay p50", unit: "ms", name: "delay50", goal: goal{more: 1}},
	{title: "500 streams × 20 ms: relay delay p99", unit: "ms", name: "delay99"},
	{title: "500 requests/s: added p50", unit: "ms", name: "p50", less: sysDirect, goal: goal{ratio: 1.10}},
	{title: "500 requests/s: added p99", unit: "ms", name: "p99", less: sysDirect},
	{title: "1,000 in flight at 200 ms: throughput", unit: "req/s", name: "waiting", goal: goal{least: 0.97}},
	{title: "memory per idle stream", unit: "KiB", name: "idle", goal: goal{value: 60}},
	{title: "memory after the start", unit: "MiB", name: "start", goal: goal{value: 30}},
	{title: "500 clients hang up: all released upstream after", unit: "ms", name: "release", goal: goal{value: 100}},
	{title: "answers and streams broken, in the whole run", unit: "", name: "broken", goal: goal{none: true}},
}

// redisFigures are those of limits in Redis, at 500 requests a second.
var redisFigures = []figure{
	{title: "large limits on requests, tokens and slots, of team and upstream: calls for each request", name: "calls", system: sysLarge, goal: goal{value: 0.2}},
	{title: "the same: p50 beyond that with limits in memory, ms", name: "p50", system: sysLarge, less: sysPenstock, base: sysCall},
	{title: "one small limit: calls for each request", name: "calls", system: sysSmall},
	{title: "the same: p50 beyond that with limits in memory, ms", name: "p50", system: sysSmall, less: sysPenstock, base: sysCall, goal: goal{ratio: 1.00}},
}

// redis writes the figures of limits in Redis.
func (r *results) redis(w io.Writer) {
	if len(r.values["calls"]) == 0 {
		return
	}
	fmt.Fprintln(w, "\n| Limits in Redis, 500 requests/s | value | mean time of a call, ms | ratio (range) | goal | reached |\n|---|--:|--:|--:|--:|---|")
	for _, f := range redisFigures {
		own, base := r.of(f, f.system), r.of(f, f.base)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", f.title, spread(own), spread(base), spread(ratios(own, base)), f.goal, f.goal.reached(own, base))
	}
	fmt.Fprintf(w, "\nA PING of that Redis takes %s ms.\n", spread(r.values["p50"][sysPing]))
}

// table writes the figures as a Markdown table: medians, and the range over the
// rounds where it says something.
func (r *results) table(w io.Writer, old bool) {
	columns := []string{sysPenstock, sysProxy, sysNginx, sysDirect}
	if old {
		columns = append(columns, sysOld)
	}
	fmt.Fprint(w, "| Figure | unit |")
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c)
	}
	fmt.Fprint(w, " ratio to reverse proxy (range) | goal | reached |\n|---|---|")
	for range columns {
		fmt.Fprint(w, "--:|")
	}
	fmt.Fprintln(w, "--:|--:|---|")
	for _, f := range figures {
		own := r.of(f, f.judged())
		if len(own) == 0 {
			continue
		}
		fmt.Fprintf(w, "| %s | %s |", f.title, f.unit)
		for _, c := range columns {
			if c == sysPenstock {
				c = f.judged()
			}
			fmt.Fprintf(w, " %s |", spread(r.of(f, c)))
		}
		base := r.of(f, f.against())
		fmt.Fprintf(w, " %s | %s | %s |\n", spread(ratios(own, base)), f.goal, f.goal.reached(own, base))
	}
	if old {
		fmt.Fprintln(w, "\n| Figure | new penstock / old (range) |\n|---|--:|")
		for _, f := range figures {
			if both := ratios(r.of(f, sysPenstock), r.of(f, sysOld)); f.system == "" && len(both) > 0 {
				fmt.Fprintf(w, "| %s | %s |\n", f.title, spread(both))
			}
		}
	}
}

func (f figure) judged() string {
	if f.system != "" {
		return f.system
	}
	return sysPenstock
}

func (f figure) against() string {
	if f.base != "" {
		return f.base
	}
	return sysProxy
}

// of is a figure of a system by round.
func (r *results) of(f figure, system string) []float64 {
	all := slices.Clone(r.values[f.name][system])
	if f.less == "" || system == f.less || system == sysCall {
		return all
	}
	less := r.values[f.name][f.less]
	for i := range min(len(all), len(less)) {
		all[i] -= less[i]
	}
	return all
}

// ratios compares two systems round by round.
func ratios(a, b []float64) []float64 {
	n := min(len(a), len(b))
	out := make([]float64, 0, n)
	for i := range n {
		if b[i] > 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// spread is a median and the range around it.
func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	if len(v) == 1 {
		return number(v[0])
	}
	return fmt.Sprintf("%s (%s–%s)", number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
}

// number has about three digits.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// String is the goal in the table.
func (g goal) String() string {
	switch {
	case g.ratio > 0:
		return fmt.Sprintf("≤ %.2f ×", g.ratio)
	case g.least > 0:
		return fmt.Sprintf("≥ %.2f ×", g.least)
	case g.value > 0:
		return fmt.Sprintf("≤ %g", g.value)
	case g.more > 0:
		return fmt.Sprintf("≤ reverse proxy + %g", g.more)
	case g.none:
		return "0"
	}
	return ""
}

// reached judges medians over the rounds.
func (g goal) reached(own, base []float64) string {
	ratio := ratios(own, base)
	var ok bool
	switch {
	case g.none:
		ok = median(own) == 0
	case g.value > 0:
		ok = median(own) <= g.value
	case len(base) == 0 || g == goal{}:
		return ""
	case g.more > 0:
		ok = median(own) <= median(base)+g.more
	case len(ratio) == 0:
		return ""
	case g.ratio > 0:
		ok = median(ratio) <= g.ratio
	default:
		ok = median(ratio) >= g.least
	}
	if ok {
		return "yes"
	}
	return "no"
}

// failure says that nothing was measured. Missed goals are no failure: the machine
// may be busy.
func (r *results) failure() error {
	if len(r.values) == 0 {
		return errors.New("nothing was measured")
	}
	return nil
}
