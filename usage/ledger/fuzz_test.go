package ledger_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/usage"
	"penstock/usage/ledger"
)

// FuzzDatabasesAgree writes the same rows to SQLite and PostgreSQL, and expects the
// same rows, reports and spending of both. Each row is 8 bytes of the script, and
// its model any text.
func FuzzDatabasesAgree(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00"), "gpt-4o")
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x10\x11\x12\x13\x14\x15\x16\x17\x00\x01\x02\x03\x04\x05\x06\x07"), "a\x00b\xff☃'\"?$1;--")
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\x00\x00\xff\xff"), "")
	dbs := []*database.DB{databasetest.Open(f, f.TempDir()+"/penstock.db"), databasetest.Open(f, databasetest.Postgres(f))}
	f.Fuzz(func(t *testing.T, script []byte, model string) {
		var all []*usage.Row
		for b := range slices.Chunk(script[:min(len(script), 8*100)/8*8], 8) {
			all = append(all, rowOf([8]byte(b), model))
		}
		var seen [2]string
		for i, db := range dbs {
			err := db.Write(t.Context(), func(tx *database.Tx) error {
				for _, table := range []string{"usage_rows", "usage_days"} {
					if _, err := tx.Exec(t.Context(), "DELETE FROM "+table); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			l, m := start(db, func(c *ledger.Config) { c.Flush = time.Hour })
			for _, r := range all {
				l.Record(r)
			}
			closeLedger(t, l)
			if m.failed.Load() != 0 || m.dropped.Load() != 0 {
				t.Errorf("%s: %d failures, %d dropped", db.Name(), m.failed.Load(), m.dropped.Load())
			}
			seen[i] = said(t, db)
		}
		if seen[0] != seen[1] {
			t.Errorf("SQLite says\n%s\nPostgreSQL says\n%s", seen[0], seen[1])
		}
	})
}

// rowOf is a row of few owners and days, whose identifier may come again.
func rowOf(b [8]byte, model string) *usage.Row {
	r := row(int(b[0]))
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	r.Began = noon.Add(time.Duration(int8(b[1])) * 7 * time.Hour)
	r.Team, r.Key, r.Upstream = fmt.Sprint("team", b[2]%3), []string{"", "prod"}[b[2]>>7], fmt.Sprint("up", b[3]%2)
	r.Model, r.Label = model, model
	r.Outcome, r.Unpriced = []string{"ok", "timeout"}[b[3]>>7], b[3]&64 != 0
	r.Tokens = usage.Tokens{Input: n, Output: n / 3, Cached: n / 5, CacheWrite: n / 7, Reasoning: n / 9}
	r.Nano = n * 1_000_003
	return r
}

// said is all that a ledger says, in an order that does not depend on how the
// database compares text.
func said(t *testing.T, db *database.DB) string {
	t.Helper()
	var lines []string
	for _, r := range rows(t, db, 1000) {
		lines = append(lines, fmt.Sprintf("%+q", fmt.Sprint(r)))
	}
	from, to := noon.AddDate(0, 0, -20), noon.AddDate(0, 0, 20)
	for _, by := range [][]string{nil, {"day"}, {"team", "key"}, {"model"}, {"upstream", "day", "model", "team", "key"}} {
		for _, q := range []ledger.Query{{From: from, To: to}, {From: noon, To: to, Team: "team1"}, {From: from, To: noon, Key: "prod", Upstream: "up0"}} {
			q.GroupBy = by
			groups, cut, err := ledger.Report(ctx, db, q)
			if err != nil || cut {
				t.Fatal(cut, err)
			}
			for _, g := range groups {
				lines = append(lines, fmt.Sprintf("%v %s %+v", by, q.Team+q.Key, g))
			}
		}
	}
	spent, err := ledger.Spent(ctx, db, noon, to)
	if err != nil {
		t.Fatal(err)
	}
	for o, nano := range spent {
		lines = append(lines, fmt.Sprint(o, nano))
	}
	slices.Sort(lines)
	return fmt.Sprintf("%q", lines)
}
