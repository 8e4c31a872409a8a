package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

func openPostgres(ctx context.Context, url string, _ bool) (*DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The error could repeat a password.
		return nil, errors.New("database.url is not a PostgreSQL URL; expected postgres://user:password@host:5432/name")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	pool := stdlib.OpenDB(*cfg)
	// The ledger writes over one connection; the others read for budgets, keys and
	// reports.
	pool.SetMaxOpenConns(8)
	pool.SetMaxIdleConns(2)
	pool.SetConnMaxLifetime(30 * time.Minute)
	db := &DB{write: pool, read: pool, numbered: true, name: fmt.Sprintf("postgres %s/%s", cfg.Host, cfg.Database)}
	if err := reach(ctx, pool); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w; check database.url and that the server runs", db.name, err), pool.Close())
	}
	return db, nil
}

// reach waits for a server that is away for a moment, as in a restart.
func reach(ctx context.Context, pool *sql.DB) error {
	for {
		err := pool.PingContext(ctx)
		var e *pgconn.PgError
		if err == nil || errors.As(err, &e) && e.Code != "57P03" { // cannot_connect_now
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func postgresRefused(err error) bool {
	var e *pgconn.PgError
	// Classes 22 (data exception) and 23 (constraint violation).
	return errors.As(err, &e) && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23"))
}

// Refused reports whether a write failed because of what was to be written, so that
// trying again cannot help.
func Refused(err error) bool { return sqliteRefused(err) || postgresRefused(err) }
