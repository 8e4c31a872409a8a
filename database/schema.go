package database

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// migrations are the steps of the schema, in the order of the number that begins
// the name. Each is SQL that both databases understand, and never changes once it
// has been released.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrateFor bounds all migrations together.
const migrateFor = 10 * time.Minute

// lockID is the advisory lock that gateways on one PostgreSQL migrate under.
const lockID = applicationID

// A step is one migration.
type step struct {
	version int64
	name    string
	sql     string
}

func steps(files fs.FS) ([]step, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []step
	for i, name := range names {
		number, _, _ := strings.Cut(path.Base(name), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil || version != int64(i+1) {
			return nil, fmt.Errorf("migration %s: expected the number %04d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		all = append(all, step{version, path.Base(name), string(text)})
	}
	return all, nil
}

// schema brings the schema up to date, or, without change, only checks it. All
// steps run in one transaction: an interrupted migration has not happened.
func (db *DB) schema(ctx context.Context, change bool) error {
	all, err := steps(migrations)
	if err != nil {
		return err
	}
	return db.migrate(ctx, all, change)
}

func (db *DB) migrate(ctx context.Context, all []step, change bool) error {
	ctx, cancel := context.WithTimeout(ctx, migrateFor)
	defer cancel()
	return db.Write(ctx, func(tx *Tx) error {
		if db.numbered {
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(?)", lockID); err != nil {
				return err
			}
		}
		version, err := tx.version(ctx)
		if err != nil {
			return fmt.Errorf("read the version of its schema: %w", err)
		}
		if newest := int64(len(all)); version > newest {
			return fmt.Errorf("its schema has version %d, this program knows %d; run the newer program, or restore a backup", version, newest)
		}
		if !change && version < int64(len(all)) {
			return errors.New("its schema is not that of this program; start the gateway once to bring it up to date")
		}
		for _, s := range all[version:] {
			if err := tx.run(ctx, s); err != nil {
				return fmt.Errorf("migration %s: %w", s.name, err)
			}
		}
		return nil
	})
}

// version is the number of the last migration that ran, 0 for a new database.
func (t *Tx) version(ctx context.Context) (int64, error) {
	query := "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'penstock_schema'"
	if t.db.numbered {
		query = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'penstock_schema'"
	}
	var tables, version int64
	if err := t.QueryRow(ctx, query).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	err := t.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM penstock_schema").Scan(&version)
	return version, err
}

func (t *Tx) run(ctx context.Context, s step) error {
	if s.version == 1 {
		if _, err := t.Exec(ctx, "CREATE TABLE penstock_schema (version BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL, applied_at BIGINT NOT NULL)"); err != nil {
			return err
		}
	}
	if _, err := t.tx.ExecContext(ctx, s.sql); err != nil { // several statements, no arguments
		return err
	}
	_, err := t.Exec(ctx, "INSERT INTO penstock_schema (version, name, applied_at) VALUES (?, ?, ?)", s.version, s.name, time.Now().UnixMicro())
	return err
}
