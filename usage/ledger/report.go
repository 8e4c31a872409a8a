package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/database"
	"penstock/usage"
)

// Groups are what usage may be grouped by.
var Groups = []string{"team", "key", "model", "upstream", "day"}

// groupColumns are their columns.
var groupColumns = map[string]string{"team": "team", "key": "key_name", "model": "label", "upstream": "upstream", "day": "day"}

// maxGroups is how many groups a report holds.
const maxGroups = 10_000

// A Query asks for usage: sums over whole days in UTC.
type Query struct {
	From, To  time.Time // the days from From to before To
	GroupBy   []string  // of Groups; none for one sum
	Team, Key string    // only of these, where not empty
	Model     string
	Upstream  string
}

// A Group is what one group used.
type Group struct {
	By       map[string]string // the group: a value for each of Query.GroupBy
	Requests int64
	Failed   int64 // of these, the ones that did not end well
	Unpriced int64 // of these, the ones that no price was known for
	Tokens   usage.Tokens
	Nano     int64 // cost in billionths of a US dollar
}

// Report sums usage up, ordered by group. It reports cut when there are more groups
// than it returns.
func Report(ctx context.Context, db *database.DB, q Query) (groups []Group, cut bool, err error) {
	columns := make([]string, 0, len(q.GroupBy))
	for _, g := range q.GroupBy {
		column, ok := groupColumns[g]
		if !ok || slices.Contains(columns, column) {
			return nil, false, fmt.Errorf("group by %q: expected each of %s at most once", g, strings.Join(Groups, ", "))
		}
		columns = append(columns, column)
	}
	where, args := conditions(q)
	rows, err := db.Query(ctx, reportQuery(columns, where), append(args, maxGroups+1)...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		if len(groups) == maxGroups {
			return groups, true, rows.Err()
		}
		g, err := scanGroup(rows, q.GroupBy)
		if err != nil {
			return nil, false, err
		}
		groups = append(groups, g)
	}
	return groups, false, rows.Err()
}

// reportQuery is made of the names of columns alone.
func reportQuery(columns []string, where string) string {
	fields := slices.Clone(columns)
	for _, c := range sumColumns {
		// sum is a decimal in PostgreSQL.
		fields = append(fields, "CAST(coalesce(sum("+c+"), 0) AS BIGINT)")
	}
	query := "SELECT " + strings.Join(fields, ", ") + " FROM usage_days WHERE " + where
	if len(columns) > 0 {
		list := strings.Join(columns, ", ")
		query += " GROUP BY " + list + " ORDER BY " + list
	}
	return query + " LIMIT ?"
}

func conditions(q Query) (where string, args []any) {
	where, args = "day >= ? AND day < ?", []any{dayOf(q.From), dayOf(q.To)}
	for _, c := range [...]struct{ column, value string }{{"team", q.Team}, {"key_name", q.Key}, {"label", q.Model}, {"upstream", q.Upstream}} {
		if c.value != "" {
			where += " AND " + c.column + " = ?"
			args = append(args, text(c.value))
		}
	}
	return where, args
}

func scanGroup(rows *sql.Rows, by []string) (Group, error) {
	g := Group{By: make(map[string]string, len(by))}
	values := make([]string, len(by))
	var day int64
	into := make([]any, 0, len(by)+len(sumColumns))
	for i, name := range by {
		if name == "day" {
			into = append(into, &day)
		} else {
			into = append(into, &values[i])
		}
	}
	t := &g.Tokens
	into = append(into, &g.Requests, &g.Failed, &t.Input, &t.Output, &t.Cached, &t.CacheWrite, &t.Reasoning, &g.Nano, &g.Unpriced)
	if err := rows.Scan(into...); err != nil {
		return g, err
	}
	for i, name := range by {
		if name == "day" {
			values[i] = dayStart(day).Format(time.DateOnly)
		}
		g.By[name] = values[i]
	}
	return g, nil
}

func dayStart(d int64) time.Time { return time.UnixMicro(d * day.Microseconds()).UTC() }

// An Owner is who has spent something: a team and the name of one of its keys.
type Owner struct{ Team, Key string }

// Spent tells what each key has spent from one moment to another, both of which
// begin a day in UTC, in billionths of a US dollar.
func Spent(ctx context.Context, db *database.DB, from, to time.Time) (map[Owner]int64, error) {
	rows, err := db.Query(ctx, "SELECT team, key_name, CAST(sum(cost_nano) AS BIGINT) FROM usage_days WHERE day >= ? AND day < ? GROUP BY team, key_name", dayOf(from), dayOf(to))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	spent := make(map[Owner]int64)
	for rows.Next() {
		var o Owner
		var nano int64
		if err := rows.Scan(&o.Team, &o.Key, &nano); err != nil {
			return nil, err
		}
		spent[o] = nano
	}
	return spent, rows.Err()
}
