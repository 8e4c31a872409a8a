package ledger

import (
	"context"
	"strings"
	"time"

	"penstock/database"
	"penstock/usage"
)

// perPage is how many rows are read at once, so that an export of many rows holds
// neither memory nor a long transaction.
const perPage = 1000

var exportQuery = "SELECT " + strings.Join(rowColumns, ", ") + " FROM usage_rows WHERE began_at < ? AND (began_at, request_id) > (?, ?) ORDER BY began_at, request_id LIMIT ?"

// Export calls each with the rows of the requests that began from one moment to
// before another, in that order, but at most so many. It stops at the first error
// of each, which it returns.
func Export(ctx context.Context, db *database.DB, from, to time.Time, most int, each func(*usage.Row) error) error {
	// Identifiers are never empty, so this stands just before the first row.
	at, id := from.UnixMicro(), ""
	for most > 0 {
		rows, err := page(ctx, db, to.UnixMicro(), at, id, min(most, perPage))
		if err != nil {
			return err
		}
		for i := range rows {
			if err := each(&rows[i]); err != nil {
				return err
			}
		}
		if len(rows) < min(most, perPage) {
			return nil
		}
		last := &rows[len(rows)-1]
		at, id, most = last.Began.UnixMicro(), last.ID, most-len(rows)
	}
	return nil
}

func page(ctx context.Context, db *database.DB, to, at int64, id string, most int) ([]usage.Row, error) {
	found, err := db.Query(ctx, exportQuery, to, at, id, most)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []usage.Row
	for found.Next() {
		var r usage.Row
		var began, stream, queue, ttft, duration, unpriced int64
		t := &r.Tokens
		if err := found.Scan(&r.ID, &began, &r.Team, &r.Key, &r.Model, &r.Label, &r.Upstream, &r.Operation, &r.Class, &r.Status,
			&r.Outcome, &r.Attempts, &stream, &queue, &ttft, &duration, &t.Input, &t.Output, &t.Cached, &t.CacheWrite,
			&t.Reasoning, &r.Source, &r.Nano, &unpriced); err != nil {
			return nil, err
		}
		r.Began, r.Stream, r.Unpriced = time.UnixMicro(began).UTC(), stream == 1, unpriced == 1
		r.Queue, r.TTFT, r.Duration = micros(queue), micros(ttft), micros(duration)
		rows = append(rows, r)
	}
	return rows, found.Err()
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
