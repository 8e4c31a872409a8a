package database_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
)

var ctx = context.Background()

func insertDay(db *database.DB, day int, team string) error {
	return db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO usage_days VALUES (?, ?, '', '', '', 1, 0, 0, 0, 0, 0, 0, 0, 0)`, day, team)
		return err
	})
}

func count(t *testing.T, db *database.DB) (n int) {
	t.Helper()
	if err := db.QueryRow(ctx, "SELECT count(*) FROM usage_days WHERE day > ?", -1).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWritesAreAllOrNothing(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		if err := insertDay(db, 1, "a"); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		err := db.Write(ctx, func(tx *database.Tx) error {
			if _, err := tx.Exec(ctx, "DELETE FROM usage_days"); err != nil {
				return err
			}
			return broken
		})
		if !errors.Is(err, broken) || count(t, db) != 1 {
			t.Errorf("err %v, %d rows; want the transaction undone", err, count(t, db))
		}
		if err := insertDay(db, 1, "a"); !database.Refused(err) {
			t.Errorf("the same key again: %v, want it refused", err)
		}
		if database.Refused(broken) || database.Refused(nil) {
			t.Error("an error of another kind counts as refused")
		}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if err := insertDay(db, 2+i, "a"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := count(t, db); n != 51 {
			t.Errorf("%d rows, want 51", n)
		}
	})
}

// What one gateway wrote is there for the next; several may migrate at once.
func TestOpenAgain(t *testing.T) {
	for name, url := range map[string]string{"sqlite": filepath.Join(t.TempDir(), "a b?#%.db"), "postgres": databasetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			first := databasetest.Open(t, url)
			if err := insertDay(first, 1, "a"); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					db, err := database.Open(ctx, url)
					if err != nil {
						t.Error(err)
						return
					}
					if n := count(t, db); n != 1 {
						t.Errorf("%d rows, want 1", n)
					}
					if err := db.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			db, err := database.OpenExisting(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
		})
	}
}

// A file that is moved, deleted or replaced under a running gateway is
// noticed, and nothing is written where it would be lost.
func TestFileThatIsMovedAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	db := databasetest.Open(t, path)
	check := func(day int, want string) {
		t.Helper()
		for _, err := range []error{db.InPlace(), insertDay(db, day, "a")} {
			if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	check(1, "")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	check(2, "moved or deleted")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check(2, "another one")
	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	check(2, "")
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// covers DB-05
func TestUnusableFilesAreRefused(t *testing.T) {
	whole := func(t *testing.T, path string) {
		db, err := database.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		for day := range 400 {
			if err := insertDay(db, day, strings.Repeat("team", 40)); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	execute := func(t *testing.T, path, query string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"empty":   {write(""), "is empty"},
		"text":    {write(strings.Repeat("this is no database\n", 1000)), "cannot be read"},
		"foreign": {func(t *testing.T, path string) { execute(t, path, "CREATE TABLE notes (text TEXT)") }, "belongs to another program"},
		"newer": {func(t *testing.T, path string) {
			whole(t, path)
			execute(t, path, "INSERT INTO penstock_schema VALUES (9999, 'future', 0)")
		}, "its schema has version 9999"},
		"overwritten": {func(t *testing.T, path string) {
			whole(t, path)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := len(data) / 3; i < len(data)/3+20_000; i++ {
				data[i] = 0xa5
			}
			write(string(data))(t, path)
		}, "restore a backup"},
		"cut short": {func(t *testing.T, path string) {
			whole(t, path)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		}, "malformed"},
		"directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "penstock.db")
			test.make(t, path)
			db, err := database.Open(ctx, path)
			if err == nil {
				t.Fatalf("opened; want an error with %q", test.want)
			}
			if db != nil {
				t.Error("a database comes with the error")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v\nwant the file and %q", err, test.want)
			}
		})
	}
}

func TestNewerPostgresIsRefused(t *testing.T) {
	url := databasetest.Postgres(t)
	db := databasetest.Open(t, url)
	if err := db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO penstock_schema VALUES (9999, 'future', 0)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := database.Open(ctx, url); err == nil || !strings.Contains(err.Error(), "its schema has version 9999") {
		t.Errorf("opened a newer schema: %v", err)
	}
}

func TestNothingIsMadeForATool(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	if _, err := database.OpenExisting(ctx, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err %v, want that the file does not exist", err)
	}
	if _, err := database.OpenExisting(ctx, databasetest.Postgres(t)); err == nil || !strings.Contains(err.Error(), "start the gateway once") {
		t.Errorf("err %v, want that the schema is missing", err)
	}
}

// covers SEC-03: passwords stay out of errors.
func TestErrorsHideThePassword(t *testing.T) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, url := range []string{"postgres://user:hunter2@127.0.0.1:1/db", "postgres://user:hunter2@[::1:1/db", "postgres://user:hunter2@h:5432/db?sslmode=wrong"} {
		_, err := database.Open(short, url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}

// covers DB-03: what Write has acknowledged is synced, and the file is its owner's
// alone.
func TestWritesAreSynced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	db := databasetest.Open(t, path)
	err := db.Write(ctx, func(tx *database.Tx) error {
		var synchronous int
		var journal string
		if err := tx.QueryRow(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
			return err
		}
		if synchronous != 2 || journal != "wal" { // 2 is FULL
			t.Errorf("synchronous %d, journal %s", synchronous, journal)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := insertDay(db, 1, "a"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}
