package ledger

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"penstock/usage"
)

// USD writes billionths of a US dollar as a decimal number of dollars, exactly.
func USD(nano int64) string {
	sign := ""
	if nano < 0 {
		sign, nano = "-", -nano
	}
	text := fmt.Sprintf("%s%d.%09d", sign, nano/1e9, nano%1e9)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".")
}

// cell is text as a spreadsheet should see it: one that begins like a formula would
// be run by it.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(s[0])) {
		return "'" + s
	}
	return s
}

var tokenNames = []string{"input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"}

func tokenCounts(t *usage.Tokens) []int64 {
	return []int64{t.Input, t.Output, t.Cached, t.CacheWrite, t.Reasoning}
}

// WriteReport writes a report in one of the formats.
func WriteReport(w io.Writer, format string, q Query, groups []Group, cut bool) error {
	if format == CSV {
		return writeReportCSV(w, q.GroupBy, groups)
	}
	return writeReportJSON(w, q, groups, cut)
}

func writeReportCSV(w io.Writer, by []string, groups []Group) error {
	c := csv.NewWriter(w)
	heading := append(append(append([]string{}, by...), "requests", "failed"), tokenNames...)
	if err := c.Write(append(heading, "cost_usd", "unpriced")); err != nil {
		return err
	}
	for i := range groups {
		g := &groups[i]
		var record []string
		for _, name := range by {
			record = append(record, cell(g.By[name]))
		}
		record = append(record, itoa(g.Requests), itoa(g.Failed))
		for _, n := range tokenCounts(&g.Tokens) {
			record = append(record, itoa(n))
		}
		if err := c.Write(append(record, USD(g.Nano), itoa(g.Unpriced))); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// fields are the group as JSON members, in order.
func (g *Group) fields(by []string) []field {
	var all []field
	for _, name := range by {
		all = append(all, field{name, jsontext.String(g.By[name])})
	}
	all = append(all, field{"requests", jsontext.Int(g.Requests)}, field{"failed", jsontext.Int(g.Failed)})
	for i, n := range tokenCounts(&g.Tokens) {
		all = append(all, field{tokenNames[i], jsontext.Int(n)})
	}
	return append(all, field{"cost_usd", decimal(g.Nano)}, field{"unpriced", jsontext.Int(g.Unpriced)})
}

// A field is one member of a JSON object: a token, or a number as it stands.
type field struct {
	name  string
	value any // jsontext.Token or jsontext.Value
}

// decimal is money as a JSON number that is not rounded.
func decimal(nano int64) jsontext.Value { return jsontext.Value(USD(nano)) }

func writeObject(e *jsontext.Encoder, fields []field) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, f := range fields {
		if err := e.WriteToken(jsontext.String(f.name)); err != nil {
			return err
		}
		var err error
		switch v := f.value.(type) {
		case jsontext.Token:
			err = e.WriteToken(v)
		case jsontext.Value:
			err = e.WriteValue(v)
		}
		if err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

func writeReportJSON(w io.Writer, q Query, groups []Group, cut bool) error {
	e := jsontext.NewEncoder(w, jsontext.WithIndent("  "))
	head := []jsontext.Token{
		jsontext.BeginObject,
		jsontext.String("from"), jsontext.String(q.From.Format(time.DateOnly)), jsontext.String("to"), jsontext.String(q.To.Format(time.DateOnly)),
		jsontext.String("truncated"), jsontext.Bool(cut), jsontext.String("prices_of"), jsontext.String(usage.Date()),
		jsontext.String("groups"), jsontext.BeginArray,
	}
	for _, t := range head {
		if err := e.WriteToken(t); err != nil {
			return err
		}
	}
	for i := range groups {
		if err := writeObject(e, groups[i].fields(q.GroupBy)); err != nil {
			return err
		}
	}
	if err := e.WriteToken(jsontext.EndArray); err != nil {
		return err
	}
	return e.WriteToken(jsontext.EndObject)
}

// A RowWriter writes rows in one of the formats. Its errors are those of the writer
// below.
type RowWriter struct {
	csv  *csv.Writer
	json *jsontext.Encoder
}

// NewRowWriter returns a writer of CSV, which it begins with a heading, or of JSON,
// one object a line.
func NewRowWriter(w io.Writer, format string) (*RowWriter, error) {
	if format == JSON {
		return &RowWriter{json: jsontext.NewEncoder(w)}, nil
	}
	c := csv.NewWriter(w)
	var heading []string
	for _, f := range rowFields(&usage.Row{}) {
		heading = append(heading, f.name)
	}
	return &RowWriter{csv: c}, c.Write(heading)
}

// Write writes a row.
func (w *RowWriter) Write(r *usage.Row) error {
	fields := rowFields(r)
	if w.json != nil {
		return writeObject(w.json, fields)
	}
	record := make([]string, len(fields))
	for i, f := range fields {
		switch v := f.value.(type) {
		case jsontext.Token:
			if record[i] = v.String(); v.Kind() == '"' {
				record[i] = cell(record[i])
			}
		case jsontext.Value:
			record[i] = string(v)
		}
	}
	return w.csv.Write(record)
}

// Flush hands on what is held back.
func (w *RowWriter) Flush() error {
	if w.csv == nil {
		return nil
	}
	w.csv.Flush()
	return w.csv.Error()
}

// rowFields are a row in its order of columns.
func rowFields(r *usage.Row) []field {
	text, number, seconds := jsontext.String, jsontext.Int, func(d time.Duration) jsontext.Value {
		return jsontext.Value(strconv.FormatFloat(d.Seconds(), 'f', -1, 64))
	}
	all := []field{
		{"time", text(r.Began.UTC().Format("2006-01-02T15:04:05.000000Z"))}, {"request_id", text(r.ID)},
		{"team", text(r.Team)}, {"key", text(r.Key)}, {"model", text(r.Model)}, {"label", text(r.Label)}, {"upstream", text(r.Upstream)},
		{"operation", text(r.Operation)}, {"class", text(r.Class)}, {"status", number(int64(r.Status))}, {"outcome", text(r.Outcome)},
		{"attempts", number(int64(r.Attempts))}, {"stream", jsontext.Bool(r.Stream)},
		{"queue_seconds", seconds(r.Queue)}, {"ttft_seconds", seconds(r.TTFT)}, {"duration_seconds", seconds(r.Duration)},
	}
	for i, n := range tokenCounts(&r.Tokens) {
		all = append(all, field{tokenNames[i], number(n)})
	}
	return append(all, field{"usage_source", text(r.Source)}, field{"cost_usd", decimal(r.Nano)}, field{"unpriced", jsontext.Bool(r.Unpriced)})
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
