package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"penstock/config"
	"penstock/limits"
	"penstock/proxy"
)

type explainCommand struct {
	adminFlags
	ID string `arg:"" help:"Id of a finished request: the header x-penstock-request-id of its answer."`
}

// Run explains a request.
func (c *explainCommand) Run(env *environment) error {
	var e proxy.Explanation
	if done, err := c.call(env, http.MethodGet, "/admin/explain/"+escape(c.ID), nil, &e); done {
		return err
	}
	return explainTo(env.stdout, &e)
}

func explainTo(w io.Writer, e *proxy.Explanation) error {
	fmt.Fprintf(w, "%s: status %d, %s", e.ID, e.Status, e.Outcome)
	if e.Reason != "" {
		fmt.Fprintf(w, " (%s)", e.Reason)
	}
	fmt.Fprintf(w, ", after %s\n", seconds(e.Seconds))
	fmt.Fprintf(w, "team %s, key %s, class %s, %s of model %s\n", e.Team, cmp.Or(e.Key, "-"), cmp.Or(e.Class, "-"), cmp.Or(e.Operation, "-"), cmp.Or(e.Model, "-"))
	fmt.Fprintf(w, "queue %s, upstream %s, gateway %s\n", seconds(e.Queue.Seconds), seconds(e.Upstreamed), seconds(e.Overhead))
	for _, q := range e.Queue.For {
		if q.Paused {
			fmt.Fprintf(w, "  waited for %s, which was paused\n", q.Target)
			continue
		}
		fmt.Fprintf(w, "  waited for %s at %s\n", q.Limit, q.Target)
	}
	if r := e.Refusal; r != nil {
		fmt.Fprintf(w, "refused: %s %s", r.Reason, cmp.Or(r.Limit, r.Upstream))
		if r.RetryAfter > 0 {
			fmt.Fprintf(w, ", would fit after %s", seconds(r.RetryAfter))
		}
		fmt.Fprintln(w)
	}
	if u := e.Usage; u != nil {
		by := "the provider"
		if u.Source != "provider" {
			by = "the gateway"
		}
		fmt.Fprintf(w, "used %d input and %d output tokens, as counted by %s\n", u.Input, u.Output, by)
	}
	for _, p := range e.Plan {
		fmt.Fprintf(w, "target %s: %s", p.Target, strings.ReplaceAll(p.State, "_", " "))
		if p.Detail != "" {
			fmt.Fprintf(w, " (%s)", p.Detail)
		}
		if p.Left > 0 {
			fmt.Fprintf(w, ", for another %s", seconds(p.Left))
		}
		fmt.Fprintln(w)
	}
	var rows [][]string
	rows = append(rows, useRows("caller", e.Limits)...)
	for i, a := range e.Attempts {
		rows = append(rows, useRows(fmt.Sprintf("attempt %d", i+1), a.Limits)...)
	}
	if len(rows) == 0 {
		return nil
	}
	return table(w, "AT LIMIT RESERVED LEFT SETTLED", rows)
}

func useRows(at string, uses []proxy.LimitUse) [][]string {
	var rows [][]string
	for _, u := range uses {
		settled := number(u.Of, u.Settled)
		switch {
		case u.Refused:
			settled = "refused"
		case u.Shadow:
			settled = "would have refused"
		}
		rows = append(rows, []string{at, u.Limit, amount(u.Of, u.Reserved), number(u.Of, u.Left), settled})
	}
	return rows
}

func number(dimension string, n *int64) string {
	if n == nil {
		return "-"
	}
	return amount(dimension, *n)
}

// amount writes what a limit counts: money as such, and the rest as a number.
func amount(dimension string, n int64) string {
	if dimension == limits.Spend.String() {
		return limits.USD(n)
	}
	return strconv.FormatInt(n, 10)
}

// seconds writes a duration: to the millisecond below a minute, and then to the second,
// or to the minute from a day on.
func seconds(s float64) string {
	if s < 59.9995 {
		return strconv.FormatFloat(s, 'f', 3, 64) + " s"
	}
	step := time.Second
	if s >= 24*60*60 {
		step = time.Minute
	}
	return config.Duration(time.Duration(s * float64(time.Second)).Round(step)).String()
}

type limitsCommand struct {
	adminFlags
	Team     string `help:"Of this team alone, and of its keys."`
	Upstream string `help:"Of this upstream alone, and of its models."`
}

// Run shows every live level.
func (c *limitsCommand) Run(env *environment) error {
	var live proxy.Live
	query := url.Values{"team": {c.Team}, "upstream": {c.Upstream}}
	if done, err := c.call(env, http.MethodGet, "/admin/limits?"+query.Encode(), nil, &live); done {
		return err
	}
	var rows [][]string
	for _, l := range live.Limits {
		rows = append(rows, []string{l.ID, amount(l.Dimension, l.Remaining), amount(l.Dimension, l.Capacity), seconds(l.Reset), l.OnLimit, l.Source})
	}
	if err := table(env.stdout, "LIMIT LEFT OF FULL_IN ON_LIMIT SOURCE", rows); err != nil {
		return err
	}
	rows = nil
	for _, t := range live.Targets {
		state := "breaker " + t.Breaker
		if t.Paused > 0 {
			state += ", paused for " + seconds(t.Paused)
		}
		if t.Parked {
			state += ", refused our credential"
		}
		rows = append(rows, []string{t.Target, strconv.FormatInt(t.InUse, 10), strconv.FormatFloat(t.Scale, 'f', 2, 64), state})
	}
	fmt.Fprintln(env.stdout)
	if err := table(env.stdout, "TARGET IN_FLIGHT SCALE STATE", rows); err != nil {
		return err
	}
	rows = nil
	for _, q := range live.Queues {
		rows = append(rows, []string{q.Upstream, q.Class, strconv.FormatInt(q.Waiting, 10), seconds(q.Oldest)})
	}
	fmt.Fprintln(env.stdout)
	return table(env.stdout, "QUEUE CLASS WAITING OLDEST", rows)
}
