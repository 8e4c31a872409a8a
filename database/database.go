// Package database opens Penstock's durable state: an embedded SQLite file for one
// gateway, or a PostgreSQL database that several share. Both have the same schema
// (migrations/) and take the same SQL, with ? for arguments.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// openFor bounds how long opening may take, migrations excluded.
const openFor = 10 * time.Second

// A DB is an open database with the current schema. It is safe for concurrent use.
type DB struct {
	write, read *sql.DB // the same for PostgreSQL
	numbered    bool    // arguments are written $1, $2, …
	name        string  // for messages; without a password
	// file is the SQLite file that was opened; nil for PostgreSQL.
	file os.FileInfo
}

// Open opens the database at a URL: postgres://…, or the path of an SQLite file,
// which sqlite: may precede. A missing file is created; the schema is brought up to
// date. It refuses a file that is damaged or not Penstock's, and a schema that is
// newer than this program. Errors name the database, never its password.
func Open(ctx context.Context, url string) (*DB, error) { return open(ctx, url, true) }

// OpenExisting is Open for a tool beside the gateway: it creates and migrates
// nothing.
func OpenExisting(ctx context.Context, url string) (*DB, error) { return open(ctx, url, false) }

func open(ctx context.Context, url string, change bool) (*DB, error) {
	ctx, cancel := context.WithTimeout(ctx, openFor)
	defer cancel()
	connect := openSQLite
	if IsPostgres(url) {
		connect = openPostgres
	}
	db, err := connect(ctx, url, change)
	if err != nil {
		return nil, err
	}
	if err := db.schema(context.WithoutCancel(ctx), change); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", db.name, err), db.Close())
	}
	return db, nil
}

// IsPostgres reports whether a URL means PostgreSQL.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// Name tells which database it is, for messages.
func (db *DB) Name() string { return db.name }

// Shared reports whether other gateways may write to the database.
func (db *DB) Shared() bool { return db.numbered }

// Close closes the database. No method may be in use.
func (db *DB) Close() error {
	if db.read == db.write {
		return db.write.Close()
	}
	return errors.Join(db.read.Close(), db.write.Close())
}

// Query reads rows. It does not wait for writers.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return db.read.QueryContext(ctx, db.rebind(query), args...)
}

// QueryRow reads one row.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return db.read.QueryRowContext(ctx, db.rebind(query), args...)
}

// A Tx is a transaction that may write.
type Tx struct {
	tx *sql.Tx
	db *DB
}

// Exec runs a statement.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.tx.ExecContext(ctx, t.db.rebind(query), args...)
}

// Query reads rows within the transaction.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, t.db.rebind(query), args...)
}

// QueryRow reads one row within the transaction.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, t.db.rebind(query), args...)
}

// Write runs do in a transaction. When it returns nil, what do wrote is on disk;
// when it returns an error, nothing is, unless the connection broke off while
// committing. Writers take turns. It fails while the file is not InPlace.
func (db *DB) Write(ctx context.Context, do func(*Tx) error) error {
	if err := db.InPlace(); err != nil {
		return err
	}
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if err := do(&Tx{tx, db}); err != nil {
		return err
	}
	return tx.Commit()
}

// rebind writes the arguments of a query as the database expects them. Queries hold
// no literal question marks.
func (db *DB) rebind(query string) string {
	if !db.numbered {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}
