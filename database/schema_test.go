package database

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMigrationsAreNumbered(t *testing.T) {
	all, err := steps(migrations)
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	_, err = steps(fstest.MapFS{"migrations/0001_a.sql": {}, "migrations/0003_b.sql": {}})
	if err == nil || !strings.Contains(err.Error(), "0003_b.sql: expected the number 0002") {
		t.Errorf("a gap: %v", err)
	}
}

// covers DB-05: a migration that fails leaves the schema as it was, and is run
// again at the next start.
func TestInterruptedMigration(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "penstock.db")
	db, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := steps(migrations)
	if err != nil {
		t.Fatal(err)
	}
	next := int64(len(all) + 1)
	broken := append(all, step{next, "next.sql", "CREATE TABLE next (a BIGINT); INSERT INTO nowhere VALUES (1)"})
	if err := db.migrate(ctx, broken, true); err == nil || !strings.Contains(err.Error(), "next.sql") {
		t.Fatalf("err %v, want the name of the migration", err)
	}
	var tables int
	if err := db.QueryRow(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'next'").Scan(&tables); err != nil || tables != 0 {
		t.Fatalf("%d tables of half a migration, %v", tables, err)
	}
	if err := db.migrate(ctx, broken, false); err == nil {
		t.Error("an old schema passes for the current one")
	}
	mended := append(all, step{next, "next.sql", "CREATE TABLE next (a BIGINT)"})
	for range 2 {
		if err := db.migrate(ctx, mended, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.migrate(ctx, all, true); err == nil {
		t.Error("a newer schema is not refused")
	}
}
