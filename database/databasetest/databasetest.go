// Package databasetest gives tests a database of each kind: an SQLite file, and a
// real PostgreSQL server, which it starts and stops.
package databasetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"penstock/database"
	"penstock/leakcheck"
)

// Each runs a test on a new database of each kind, which is open until it ends.
func Each(t *testing.T, test func(t *testing.T, db *database.DB)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return filepath.Join(t.TempDir(), "penstock.db") },
		"postgres": Postgres,
	} {
		t.Run(name, func(t *testing.T) { test(t, Open(t, url(t))) })
	}
}

// Open opens a database until the test ends.
func Open(t testing.TB, url string) *database.DB {
	t.Helper()
	db, err := database.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Main runs the tests of a package over one PostgreSQL server, which is started
// when the first of them asks for it. Call it from TestMain; without it every test
// has a server of its own.
func Main(m *testing.M) {
	shared.on = true
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(leakcheck.Check(code))
}

var shared struct {
	sync.Mutex
	on        bool
	server    *server
	databases int
}

// Postgres returns the URL of an empty database of a PostgreSQL server that runs at
// least until the test ends. It fails the test where there is no server to start:
// install postgresql-15.
func Postgres(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.databases++
		url, err := shared.server.database(fmt.Sprintf("test%d", shared.databases))
		if err != nil {
			t.Fatalf("PostgreSQL: %v", err)
		}
		return url
	}
	s, err := startServer()
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	if shared.on {
		shared.server = s
	} else {
		t.Cleanup(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	return s.url("postgres")
}
