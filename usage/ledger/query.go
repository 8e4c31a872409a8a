package ledger

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The formats of reports and exports.
const (
	CSV  = "csv"
	JSON = "json"
)

// defaultExport and maxExport are how many rows an export holds.
const defaultExport, maxExport = 100_000, 1_000_000

// A ParameterError says which parameter of a request is wrong.
type ParameterError struct{ Name, Text string }

// Error names the parameter and what is expected of it.
func (e *ParameterError) Error() string { return e.Name + ": " + e.Text }

// ParseReport reads the parameters of a report: from, to, group_by, team, key, model,
// upstream, format. Without any it is this month, by team. It reports
// *ParameterError.
func ParseReport(v url.Values, now time.Time) (q Query, format string, err error) {
	if err := known(v, "from", "to", "group_by", "team", "key", "model", "upstream", "format"); err != nil {
		return q, "", err
	}
	now = now.UTC()
	q = Query{
		From: time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC), To: now.Truncate(24*time.Hour).AddDate(0, 0, 1),
		GroupBy: []string{"team"}, Team: v.Get("team"), Key: v.Get("key"), Model: v.Get("model"), Upstream: v.Get("upstream"),
	}
	for name, into := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		if text := v.Get(name); text != "" {
			if *into, err = time.Parse(time.DateOnly, text); err != nil {
				return q, "", wrong(name, "expected a day in UTC such as 2026-11-01; to is the first day that is not counted")
			}
		}
	}
	if !q.From.Before(q.To) {
		return q, "", wrong("to", "expected a day after from")
	}
	if v.Has("group_by") {
		if q.GroupBy, err = groupsOf(v.Get("group_by")); err != nil {
			return q, "", err
		}
	}
	format, err = formatOf(v, JSON)
	return q, format, err
}

// groupsOf reads a list of groups; an empty one asks for one sum.
func groupsOf(text string) (by []string, err error) {
	if text == "" {
		return nil, nil
	}
	for g := range strings.SplitSeq(text, ",") {
		if !slices.Contains(Groups, g) || slices.Contains(by, g) {
			return nil, wrong("group_by", "expected some of "+strings.Join(Groups, ", ")+", with commas between them")
		}
		by = append(by, g)
	}
	return by, nil
}

// An ExportQuery asks for rows: of the requests that began from From to before To,
// the first Most.
type ExportQuery struct {
	From, To time.Time
	Most     int
	Format   string
}

// ParseExport reads the parameters of an export: from, to, limit, format. Without any
// it is the last day. It reports *ParameterError.
func ParseExport(v url.Values, now time.Time) (q ExportQuery, err error) {
	q = ExportQuery{From: now.Add(-24 * time.Hour), To: now, Most: defaultExport}
	if err := known(v, "from", "to", "limit", "format"); err != nil {
		return q, err
	}
	for name, into := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		if *into, err = time.Parse(time.RFC3339Nano, text); err == nil {
			continue
		}
		if *into, err = time.Parse(time.DateOnly, text); err != nil {
			return q, wrong(name, "expected a moment such as 2026-11-01T08:00:00Z, or a day in UTC")
		}
	}
	if !q.From.Before(q.To) {
		return q, wrong("to", "expected a moment after from")
	}
	if text := v.Get("limit"); text != "" {
		if q.Most, err = strconv.Atoi(text); err != nil || q.Most < 1 || q.Most > maxExport {
			return q, wrong("limit", "expected a number of rows from 1 to "+strconv.Itoa(maxExport))
		}
	}
	q.Format, err = formatOf(v, CSV)
	return q, err
}

// known refuses parameters that are misspelt: a filter that is not applied would
// answer another question.
func known(v url.Values, names ...string) error {
	for name, values := range v {
		if !slices.Contains(names, name) || len(values) > 1 {
			return wrong(name, "expected each of "+strings.Join(names, ", ")+" at most once")
		}
	}
	return nil
}

func wrong(parameter, text string) error {
	return &ParameterError{parameter, text}
}

func formatOf(v url.Values, preferred string) (string, error) {
	switch f := v.Get("format"); f {
	case "":
		return preferred, nil
	case CSV, JSON:
		return f, nil
	}
	return "", wrong("format", "expected csv or json")
}
