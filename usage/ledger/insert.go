package ledger

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"penstock/database"
	"penstock/usage"
)

// perStatement is how many rows one statement inserts; each row has about two dozen
// arguments, of which SQLite takes 32766.
const perStatement = 100

const day = 24 * time.Hour

var rowColumns = []string{
	"request_id", "began_at", "team", "key_name", "model", "label", "upstream", "operation", "class", "status", "outcome",
	"attempts", "stream", "queue_us", "ttft_us", "duration_us", "input_tokens", "output_tokens", "cached_tokens",
	"cache_write_tokens", "reasoning_tokens", "source", "cost_nano", "unpriced",
}

var (
	ownerColumns = []string{"day", "team", "key_name", "label", "upstream"}
	sumColumns   = []string{"requests", "failed", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nano", "unpriced"}
	dayColumns   = append(slices.Clone(ownerColumns), sumColumns...)
)

// insertInto is the beginning of a statement that inserts n rows.
func insertInto(table string, columns []string, n int) string {
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	return "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES " + row + strings.Repeat(", "+row, n-1)
}

// addSums is the end of one: sums that stand there already grow.
var addSums = func() string {
	parts := make([]string, len(sumColumns))
	for i, c := range sumColumns {
		parts[i] = c + " = usage_days." + c + " + excluded." + c
	}
	return " ON CONFLICT (" + strings.Join(ownerColumns, ", ") + ") DO UPDATE SET " + strings.Join(parts, ", ")
}()

// insert writes rows and adds them to the sums of their days, all or none. A row
// that is there already changes nothing: its first attempt did succeed.
func (l *Ledger) insert(batch []*usage.Row) error {
	ctx, cancel := context.WithTimeout(l.life, writeFor)
	defer cancel()
	return l.db.Write(ctx, func(tx *database.Tx) error {
		sums := make(map[owner]*sum)
		for part := range slices.Chunk(batch, perStatement) {
			fresh, err := insertRows(ctx, tx, part)
			if err != nil {
				return err
			}
			for _, r := range part {
				if fresh[r.ID] {
					add(sums, r)
					delete(fresh, r.ID) // the same row may stand in a batch twice
				}
			}
		}
		return insertSums(ctx, tx, sums)
	})
}

// insertRows reports the identifiers of the rows that were not there before.
func insertRows(ctx context.Context, tx *database.Tx, part []*usage.Row) (map[string]bool, error) {
	args := make([]any, 0, len(part)*len(rowColumns))
	for _, r := range part {
		t := &r.Tokens
		args = append(args,
			text(r.ID), r.Began.UnixMicro(), text(r.Team), text(r.Key), text(r.Model), text(r.Label), text(r.Upstream),
			text(r.Operation), text(r.Class), r.Status, text(r.Outcome), r.Attempts, number(r.Stream),
			r.Queue.Microseconds(), r.TTFT.Microseconds(), r.Duration.Microseconds(), t.Input, t.Output, t.Cached,
			t.CacheWrite, t.Reasoning, text(r.Source), r.Nano, number(r.Unpriced))
	}
	found, err := tx.Query(ctx, insertInto("usage_rows", rowColumns, len(part))+" ON CONFLICT (request_id) DO NOTHING RETURNING request_id", args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	fresh := make(map[string]bool, len(part))
	for found.Next() {
		var id string
		if err := found.Scan(&id); err != nil {
			return nil, err
		}
		fresh[id] = true
	}
	return fresh, found.Err()
}

// An owner is whose sums, and of which day.
type owner struct {
	day                        int64
	team, key, label, upstream string
}

type sum struct {
	requests, failed, unpriced int64
	tokens                     usage.Tokens
	nano                       int64
}

func add(sums map[owner]*sum, r *usage.Row) {
	o := owner{dayOf(r.Began), text(r.Team), text(r.Key), text(r.Label), text(r.Upstream)}
	s := sums[o]
	if s == nil {
		s = &sum{}
		sums[o] = s
	}
	s.requests++
	if r.Outcome != "ok" {
		s.failed++
	}
	s.tokens.Input += r.Tokens.Input
	s.tokens.Output += r.Tokens.Output
	s.tokens.Cached += r.Tokens.Cached
	s.tokens.CacheWrite += r.Tokens.CacheWrite
	s.tokens.Reasoning += r.Tokens.Reasoning
	s.nano += r.Nano
	s.unpriced += number(r.Unpriced)
}

// insertSums goes through the sums in order, so that writers of several gateways
// never wait for each other in a circle.
func insertSums(ctx context.Context, tx *database.Tx, sums map[owner]*sum) error {
	owners := make([]owner, 0, len(sums))
	for o := range sums {
		owners = append(owners, o)
	}
	slices.SortFunc(owners, func(a, b owner) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.team, b.team), cmp.Compare(a.key, b.key),
			cmp.Compare(a.label, b.label), cmp.Compare(a.upstream, b.upstream))
	})
	for part := range slices.Chunk(owners, perStatement) {
		args := make([]any, 0, len(part)*len(dayColumns))
		for _, o := range part {
			s := sums[o]
			args = append(args, o.day, o.team, o.key, o.label, o.upstream, s.requests, s.failed, s.tokens.Input, s.tokens.Output,
				s.tokens.Cached, s.tokens.CacheWrite, s.tokens.Reasoning, s.nano, s.unpriced)
		}
		if _, err := tx.Exec(ctx, insertInto("usage_days", dayColumns, len(part))+addSums, args...); err != nil {
			return err
		}
	}
	return nil
}

// text is what a database can hold: PostgreSQL takes neither NUL nor broken UTF-8.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// dayOf is the day of a moment in UTC, counted from 1970-01-01.
func dayOf(t time.Time) int64 {
	micro, length := t.UnixMicro(), day.Microseconds()
	d := micro / length
	if micro%length < 0 {
		d--
	}
	return d
}
