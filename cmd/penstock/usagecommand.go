package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"penstock/database"
	"penstock/usage"
	"penstock/usage/ledger"
)

type usageCommand struct {
	Report usageReportCommand `cmd:"" default:"withargs" help:"Sums by team, key, model, upstream or day (the default)."`
	Export usageExportCommand `cmd:"" help:"Every request as a line of CSV or JSON."`
}

// usageFlags say where usage is read.
type usageFlags struct {
	adminFlags
	Config string `placeholder:"FILE" type:"path" help:"Read the database of this configuration file itself, and not through a gateway."`
}

// database opens the database of the configuration file.
func (f *usageFlags) database(env *environment) (*database.DB, error) {
	cfg, err := loadConfig(f.Config, env)
	if err != nil {
		return nil, err
	}
	if cfg.Database.URL == "" {
		return nil, fmt.Errorf("%s has no database.url, so there is no usage ledger", f.Config)
	}
	return database.OpenExisting(env.ctx, string(cfg.Database.URL))
}

type usageReportCommand struct {
	usageFlags
	From     string   `placeholder:"DAY" help:"First day, in UTC; the first of this month when absent."`
	To       string   `placeholder:"DAY" help:"First day that is not counted; tomorrow when absent."`
	GroupBy  []string `default:"team" placeholder:"GROUP" help:"Some of team, key, model, upstream and day, with commas between them; none for one sum."`
	Team     string   `help:"Only this team."`
	Key      string   `help:"Only keys of this name."`
	Model    string   `help:"Only this model."`
	Upstream string   `help:"Only this upstream."`
	CSV      bool     `name:"csv" help:"Print CSV."`
}

// Run prints a report: a table, or what the admin API answers.
func (c *usageReportCommand) Run(env *environment) error {
	v := url.Values{}
	set(v, map[string]string{"from": c.From, "to": c.To, "team": c.Team, "key": c.Key, "model": c.Model, "upstream": c.Upstream})
	by := c.GroupBy
	if len(by) == 1 && by[0] == "none" {
		by = nil
	}
	v.Set("group_by", strings.Join(by, ","))
	format := ledger.CSV
	if c.JSON {
		format = ledger.JSON
	}
	v.Set("format", format)
	answer, err := c.read(env, v)
	if err != nil {
		return err
	}
	if c.JSON || c.CSV {
		_, err = env.stdout.Write(answer)
		return err
	}
	return csvTable(env.stdout, answer)
}

func (c *usageReportCommand) read(env *environment, v url.Values) ([]byte, error) {
	if c.Config == "" {
		return c.ask(env, http.MethodGet, "/admin/usage?"+v.Encode(), nil)
	}
	q, format, err := ledger.ParseReport(v, time.Now())
	if err != nil {
		return nil, err
	}
	db, err := c.database(env)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	groups, cut, err := ledger.Report(env.ctx, db, q)
	if err != nil {
		return nil, fmt.Errorf("read the usage ledger: %w", err)
	}
	var b bytes.Buffer
	err = ledger.WriteReport(&b, format, q, groups, cut)
	return b.Bytes(), err
}

// csvTable prints CSV in columns.
func csvTable(w io.Writer, text []byte) error {
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) == 0 {
		return fmt.Errorf("expected CSV from the admin API: %w; check --admin", err)
	}
	if len(rows) == 1 {
		_, err := fmt.Fprintln(w, "no requests in that time")
		return err
	}
	return table(w, strings.ToUpper(strings.Join(rows[0], " ")), rows[1:])
}

func set(v url.Values, values map[string]string) {
	for name, text := range values {
		if text != "" {
			v.Set(name, text)
		}
	}
}

type usageExportCommand struct {
	usageFlags
	From  string `placeholder:"TIME" help:"A moment (2026-11-01T08:00:00Z) or a day in UTC; a day ago when absent."`
	To    string `placeholder:"TIME" help:"The moment before which requests began; now when absent."`
	Limit *int   `placeholder:"ROWS" help:"Most rows, from 1 to 1000000; 100000 when absent."`
}

// Run prints rows as they come: CSV, or with --json an object a line.
func (c *usageExportCommand) Run(env *environment) error {
	v := url.Values{}
	set(v, map[string]string{"from": c.From, "to": c.To, "format": map[bool]string{true: ledger.JSON}[c.JSON]})
	if c.Limit != nil {
		v.Set("limit", strconv.Itoa(*c.Limit))
	}
	export := c.remote
	if c.Config != "" {
		export = c.local
	}
	cut, err := export(env, v)
	if err == nil && cut {
		fmt.Fprintln(env.stderr, "penstock: there may be more rows; go on with --from and the time of the last one, or raise --limit")
	}
	return err
}

func (c *usageExportCommand) remote(env *environment, v url.Values) (cut bool, err error) {
	resp, err := c.send(env.ctx, env, http.MethodGet, "/admin/usage/export?"+v.Encode(), nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(env.stdout, resp.Body); err != nil {
		return false, fmt.Errorf("the export broke off: %w", err)
	}
	return resp.Trailer.Get("X-Penstock-Truncated") == "true", nil
}

func (c *usageExportCommand) local(env *environment, v url.Values) (cut bool, err error) {
	q, err := ledger.ParseExport(v, time.Now())
	if err != nil {
		return false, err
	}
	db, err := c.database(env)
	if err != nil {
		return false, err
	}
	defer db.Close()
	out, err := ledger.NewRowWriter(env.stdout, q.Format)
	if err != nil {
		return false, err
	}
	n := 0
	err = ledger.Export(env.ctx, db, q.From, q.To, q.Most, func(r *usage.Row) error {
		n++
		return out.Write(r)
	})
	if err != nil {
		return false, fmt.Errorf("read the usage ledger: %w", err)
	}
	return n == q.Most, out.Flush()
}
