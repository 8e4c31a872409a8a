package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/usage"
	"penstock/usage/ledger"
)

var ctx = context.Background()

type counts struct{ wrote, dropped, failed atomic.Int64 }

func (c *counts) LedgerWrote(n int)   { c.wrote.Add(int64(n)) }
func (c *counts) LedgerDropped(n int) { c.dropped.Add(int64(n)) }
func (c *counts) LedgerFailed()       { c.failed.Add(1) }

// start starts a ledger that the test closes.
func start(db *database.DB, change func(*ledger.Config)) (*ledger.Ledger, *counts) {
	m := &counts{}
	c := ledger.Config{Flush: 20 * time.Millisecond, Buffer: 10_000, Metrics: m, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&c)
	}
	return ledger.New(db, c), m
}

func closeLedger(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := l.Close(bounded); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until done, or fails the test.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass within 20 s")
		}
	}
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func row(i int) *usage.Row {
	return &usage.Row{
		ID: fmt.Sprintf("req_%06d", i), Began: noon.Add(time.Duration(i) * time.Millisecond), Team: fmt.Sprintf("team%d", i%3), Key: "prod",
		Model: "gpt-4o-2024-08-06", Label: "gpt-4o", Upstream: "openai", Operation: "chat", Class: "default", Status: 200, Outcome: "ok",
		Attempts: 1, Stream: i%2 == 0, Queue: 3 * time.Millisecond, TTFT: 40 * time.Millisecond, Duration: time.Second,
		Tokens: usage.Tokens{Input: 100, Output: 10, Cached: 50, CacheWrite: 5, Reasoning: 2}, Source: "provider", Nano: int64(1000 + i),
	}
}

func total(t *testing.T, db *database.DB) ledger.Group {
	t.Helper()
	groups, _, err := ledger.Report(ctx, db, ledger.Query{From: noon.AddDate(-1, 0, 0), To: noon.AddDate(1, 0, 0)})
	if err != nil || len(groups) != 1 {
		t.Fatal(len(groups), err)
	}
	return groups[0]
}

func rows(t *testing.T, db *database.DB, most int) (all []usage.Row) {
	t.Helper()
	err := ledger.Export(ctx, db, noon.AddDate(-1, 0, 0), noon.AddDate(1, 0, 0), most, func(r *usage.Row) error {
		all = append(all, *r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A clean stop loses nothing, and what comes out is what went in.
func TestRowsAreKept(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		l, m := start(db, nil)
		const n = 2500
		var nano int64
		for i := range n {
			l.Record(row(i))
			nano += row(i).Nano
		}
		closeLedger(t, l)
		if m.wrote.Load() != n || m.dropped.Load() != 0 || m.failed.Load() != 0 {
			t.Errorf("wrote %d, dropped %d, failed %d", m.wrote.Load(), m.dropped.Load(), m.failed.Load())
		}
		got := rows(t, db, 10_000)
		if len(got) != n {
			t.Fatalf("%d rows, want %d", len(got), n)
		}
		for i := range got {
			if want := *row(i); !reflect.DeepEqual(got[i], want) {
				t.Fatalf("row %d is\n%+v, want\n%+v", i, got[i], want)
			}
		}
		if len(rows(t, db, 1001)) != 1001 {
			t.Error("the bound of an export does not hold")
		}
		sum := total(t, db)
		if sum.Requests != n || sum.Nano != nano || sum.Tokens.Input != 100*n || sum.Tokens.Reasoning != 2*n || sum.Failed != 0 {
			t.Errorf("sums: %+v", sum)
		}
	})
}

// Sync waits for what has been recorded, and for nothing else.
func TestSync(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		l, _ := start(db, func(c *ledger.Config) { c.Flush = time.Hour })
		bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		l.Sync(bounded) // nothing
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				for j := range 1500 {
					l.Record(row(1500*i + j))
				}
				l.Sync(bounded)
				if n := total(t, db).Requests; n < 1500 {
					t.Errorf("%d rows are written after 1500 were recorded", n)
				}
			})
		}
		wg.Wait()
		if n := total(t, db).Requests; n != 4500 || bounded.Err() != nil {
			t.Errorf("%d rows are written, want 4500; %v", n, bounded.Err())
		}
		l.Record(row(9999))
		ended, cancel := context.WithCancel(ctx)
		cancel()
		l.Sync(ended)
		closeLedger(t, l)
		l.Sync(bounded) // of one that has ended
		if n := total(t, db).Requests; n != 4501 || bounded.Err() != nil {
			t.Errorf("%d rows are written, want 4501; %v", n, bounded.Err())
		}
	})
}

// covers DB-06: a row that is written again counts once.
func TestNothingCountsTwice(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		for range 2 {
			l, _ := start(db, nil)
			for i := range 250 {
				l.Record(row(i))
				l.Record(row(i))
			}
			closeLedger(t, l)
		}
		if sum := total(t, db); sum.Requests != 250 || len(rows(t, db, 1000)) != 250 {
			t.Errorf("%d requests, want 250", sum.Requests)
		}
	})
}

// Several gateways add to the same sums at once.
func TestSeveralWriters(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		var wg sync.WaitGroup
		const writers, each = 4, 300
		for w := range writers {
			wg.Go(func() {
				l, _ := start(db, func(c *ledger.Config) { c.Flush = time.Millisecond })
				for i := range each {
					r := row(w*each + i)
					r.Team, r.Label = fmt.Sprint("team", (i*7+w)%5), fmt.Sprint("model", (i*3+w)%4)
					l.Record(r)
				}
				closeLedger(t, l)
			})
		}
		wg.Wait()
		if sum := total(t, db); sum.Requests != writers*each {
			t.Errorf("%d requests, want %d", sum.Requests, writers*each)
		}
	})
}

func TestReport(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		l, _ := start(db, nil)
		for i := range 12 {
			r := row(i)
			r.Began = noon.Add(time.Duration(i%4)*24*time.Hour - 12*time.Hour) // midnight, the first moment of the day
			r.Key = []string{"prod", "test"}[i%2]
			if i == 11 {
				r.Outcome, r.Unpriced = "timeout", true
			}
			l.Record(r)
		}
		closeLedger(t, l)
		report := func(q ledger.Query) []ledger.Group {
			t.Helper()
			groups, cut, err := ledger.Report(ctx, db, q)
			if err != nil || cut {
				t.Fatal(cut, err)
			}
			return groups
		}
		week := ledger.Query{From: noon, To: noon.AddDate(0, 0, 7), GroupBy: []string{"team", "key"}}
		got := report(week)
		if len(got) != 6 || got[0].By["team"] != "team0" || got[0].By["key"] != "prod" || got[0].Requests != 2 {
			t.Errorf("by team and key: %+v", got)
		}
		if last := got[5]; last.Failed != 1 || last.Unpriced != 1 {
			t.Errorf("the last group: %+v", last)
		}
		days := report(ledger.Query{From: noon, To: noon.AddDate(0, 0, 2), GroupBy: []string{"day", "model", "upstream"}})
		if len(days) != 2 || days[0].By["day"] != "2026-11-25" || days[1].By["day"] != "2026-11-26" || days[1].By["model"] != "gpt-4o" || days[1].Requests != 3 {
			t.Errorf("by day: %+v", days)
		}
		one := report(ledger.Query{From: noon, To: noon.AddDate(0, 0, 7), Team: "team1", Key: "test", Model: "gpt-4o", Upstream: "openai"})
		if len(one) != 1 || one[0].Requests != 2 {
			t.Errorf("filtered: %+v", one)
		}
		if none := report(ledger.Query{From: noon, To: noon}); len(none) != 1 || none[0].Requests != 0 {
			t.Errorf("of no day: %+v", none)
		}
		for _, by := range []string{"user", "", "team; DROP TABLE usage_days", "key_name"} {
			if _, _, err := ledger.Report(ctx, db, ledger.Query{GroupBy: []string{by}}); err == nil {
				t.Errorf("grouped by %q", by)
			}
		}
		spent, err := ledger.Spent(ctx, db, noon.AddDate(0, 0, 1), noon.AddDate(0, 0, 3))
		if err != nil || spent[ledger.Owner{Team: "team1", Key: "test"}] != 1001 || spent[ledger.Owner{Team: "team1", Key: "prod"}] != 1010 {
			t.Errorf("spent: %v, %v", spent, err)
		}
	})
}

// The ledger deletes by itself what is old today, at a moment of its own choosing;
// so nothing here is old today, and the test looks from a later day.
func TestOldRowsAreDeleted(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		l, _ := start(db, func(c *ledger.Config) { c.Retention = 90 * 24 * time.Hour })
		const old, young = 4100, 10
		today := time.Now()
		before := today.AddDate(0, 0, -10)
		for i := range old + young {
			r := row(i)
			r.Began = today
			if i < old {
				r.Began = before
			}
			l.Record(r)
		}
		l.Sync(ctx)
		expire := func(days, want int) {
			t.Helper()
			if n, err := l.Expire(today.AddDate(0, 0, days)); err != nil || n != int64(want) {
				t.Errorf("%d rows deleted after %d days, %v; want %d", n, days, err, want)
			}
		}
		left := func(wantRows, wantSums int) {
			t.Helper()
			count, sums := 0, 0
			if err := db.QueryRow(ctx, "SELECT count(*) FROM usage_rows").Scan(&count); err != nil {
				t.Fatal(err)
			}
			if err := db.QueryRow(ctx, "SELECT CAST(coalesce(sum(requests), 0) AS BIGINT) FROM usage_days").Scan(&sums); err != nil {
				t.Fatal(err)
			}
			if count != wantRows || sums != wantSums {
				t.Errorf("%d rows and sums of %d requests left, want %d and %d", count, sums, wantRows, wantSums)
			}
		}
		left(old+young, old+young)
		expire(79, 0)
		left(old+young, old+young)
		expire(85, old)
		left(young, old+young) // sums outlive the rows
		expire(389, young)
		left(0, old+young)
		expire(395, 0)
		left(0, young) // 400 days at most
		closeLedger(t, l)
	})
}

// What a client wrote is kept as far as a database can, and no row takes others
// along.
func TestHostileText(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		l, m := start(db, nil)
		for i, model := range []string{"a\x00b", "\xff\xfe", "'; DROP TABLE usage_rows; --", "=cmd|' /C calc'!A0", strings.Repeat("ü", 500), "?$1"} {
			r := row(i)
			r.Model = model
			l.Record(r)
		}
		closeLedger(t, l)
		got := rows(t, db, 100)
		if len(got) != 6 || m.dropped.Load() != 0 {
			t.Fatalf("%d rows, %d dropped", len(got), m.dropped.Load())
		}
		if got[0].Model != "ab" || got[1].Model != "\uFFFD" || got[2].Model != "'; DROP TABLE usage_rows; --" || got[5].Model != "?$1" {
			t.Errorf("%+v", got)
		}
	})
}

// A row that a database refuses for what it says takes no other along.
func TestRefusedRow(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		err := db.Write(ctx, func(tx *database.Tx) error {
			_, err := tx.Exec(ctx, "CREATE UNIQUE INDEX one_poison ON usage_rows (operation) WHERE operation = 'poison'")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		l, m := start(db, nil)
		for i := range 50 {
			r := row(i)
			if i == 20 || i == 30 {
				r.Operation = "poison"
			}
			l.Record(r)
		}
		closeLedger(t, l)
		if m.wrote.Load() != 49 || m.dropped.Load() != 1 || total(t, db).Requests != 49 {
			t.Errorf("wrote %d, dropped %d, sums of %d; want 49, 1, 49", m.wrote.Load(), m.dropped.Load(), total(t, db).Requests)
		}
	})
}

// While another program holds the database, requests go on: rows are held, those
// beyond the buffer are dropped and counted, and the rest is written afterwards
// without a restart.
func TestLockedDatabase(t *testing.T) {
	path := t.TempDir() + "/penstock.db"
	db, other := databasetest.Open(t, path), databasetest.Open(t, path)
	var log strings.Builder
	l, m := start(db, func(c *ledger.Config) {
		c.Buffer = 200
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	release := errors.New("release")
	err := other.Write(ctx, func(*database.Tx) error {
		for i := range 1500 {
			l.Record(row(i))
		}
		// SQLite itself waits 5 s for the lock, and so would who waits for it.
		if m.failed.Load() > 0 {
			t.Error("recording has waited for the database")
		}
		eventually(t, func() bool { return m.failed.Load() > 0 && !l.Healthy() })
		return release
	})
	if !errors.Is(err, release) {
		t.Fatal(err)
	}
	closeLedger(t, l)
	if sum := total(t, db); m.dropped.Load() == 0 || sum.Requests != m.wrote.Load() || m.wrote.Load()+m.dropped.Load() != 1500 {
		t.Errorf("%d in the database, wrote %d, dropped %d", sum.Requests, m.wrote.Load(), m.dropped.Load())
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "written to the database again") {
		t.Errorf("log:\n%s", text)
	}
}

// A stop is bounded even when the database is away, and says what was lost.
func TestCloseIsBounded(t *testing.T) {
	path := t.TempDir() + "/penstock.db"
	db, other := databasetest.Open(t, path), databasetest.Open(t, path)
	l, m := start(db, nil)
	_ = other.Write(ctx, func(*database.Tx) error {
		for i := range 30 {
			l.Record(row(i))
		}
		bounded, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := l.Close(bounded); err == nil {
			t.Error("closed without an error")
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("closing took %v", took)
		}
		return nil
	})
	if m.dropped.Load() != 30 {
		t.Errorf("%d counted as lost, want 30", m.dropped.Load())
	}
}

// covers DB-04: a full database holds rows back, and takes them when there is room.
func TestFullDatabase(t *testing.T) {
	db := databasetest.Open(t, t.TempDir()+"/penstock.db")
	pages := func(n int) {
		t.Helper()
		// It is a setting of the one connection that writes.
		err := db.Write(ctx, func(tx *database.Tx) error {
			_, err := tx.Exec(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages(1) // as many as there are
	l, m := start(db, nil)
	for i := range 500 {
		l.Record(row(i))
	}
	eventually(t, func() bool { return m.failed.Load() > 2 })
	pages(1 << 30)
	closeLedger(t, l)
	if sum := total(t, db); sum.Requests != 500 || m.wrote.Load() != 500 || m.dropped.Load() != 0 {
		t.Errorf("%d in the database, wrote %d, dropped %d", sum.Requests, m.wrote.Load(), m.dropped.Load())
	}
}

// covers DB-06: connections that break off at any moment, also while committing,
// neither lose a row nor count one twice.
func TestBrokenConnections(t *testing.T) {
	url := databasetest.Postgres(t)
	db, other := databasetest.Open(t, url), databasetest.Open(t, url)
	l, m := start(db, func(c *ledger.Config) { c.Flush = time.Millisecond })
	const n = 3000
	for i := range n {
		l.Record(row(i))
		if i%60 == 0 {
			var killed int
			if err := other.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&killed); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeLedger(t, l)
	if sum := total(t, db); sum.Requests != n || m.dropped.Load() != 0 || len(rows(t, db, n+1)) != n {
		t.Errorf("%d in the database, dropped %d", sum.Requests, m.dropped.Load())
	}
	if m.failed.Load() == 0 {
		t.Error("nothing broke off")
	}
}
