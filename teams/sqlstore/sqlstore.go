// Package sqlstore keeps teams and keys in the database.
package sqlstore

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"penstock/database"
	"penstock/teams"
)

// A Store is a teams.Store. It is safe for concurrent use, by several gateways on
// one database.
type Store struct{ db *database.DB }

// New returns the store of a database, which must stay open as long as it is used.
func New(db *database.DB) *Store { return &Store{db} }

// Version implements teams.Store.
func (s *Store) Version(ctx context.Context) (version int64, err error) {
	if err := s.db.InPlace(); err != nil {
		return 0, err
	}
	err = s.db.QueryRow(ctx, "SELECT version FROM teams_version").Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		err = errors.New("table teams_version is empty, which it never is: restore a backup")
	}
	return version, err
}

// maxLoads is how often a load begins anew because of changes made meanwhile.
const maxLoads = 10

// Load implements teams.Store. It reads again when a change came between.
func (s *Store) Load(ctx context.Context) (*teams.Set, error) {
	for range maxLoads {
		before, err := s.Version(ctx)
		if err != nil {
			return nil, err
		}
		set, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		after, err := s.Version(ctx)
		if err != nil {
			return nil, err
		}
		if set.Version = after; before == after {
			return set, nil
		}
	}
	return nil, errors.New("they are changed too often to be read as of one moment")
}

func (s *Store) read(ctx context.Context) (*teams.Set, error) {
	set := &teams.Set{}
	err := s.each(ctx, func(scan func(...any) error) error {
		t := teams.Team{Source: teams.FromDatabase}
		var created, updated int64
		err := scan(&t.Name, &t.Settings, &created, &updated)
		t.Created, t.Updated = time.UnixMicro(created), time.UnixMicro(updated)
		set.Teams = append(set.Teams, t)
		return err
	}, "SELECT name, settings, created_at, updated_at FROM teams")
	if err != nil {
		return nil, err
	}
	if set.Keys, err = s.keys(ctx, "revoked_at IS NULL"); err != nil {
		return nil, err
	}
	at := make(map[string]int, len(set.Keys))
	for i, k := range set.Keys {
		at[k.ID] = i
	}
	err = s.each(ctx, func(scan func(...any) error) error {
		var id, text string
		var expires sql.NullInt64
		if err := scan(&text, &id, &expires); err != nil {
			return err
		}
		secret := teams.Secret{Expires: moment(expires)}
		if hash, err := hex.DecodeString(text); err != nil || copy(secret.Hash[:], hash) != len(hash) || len(hash) != len(secret.Hash) {
			return fmt.Errorf("key %s: its hash is not one of 64 hexadecimal digits; restore a backup", id)
		}
		if i, ok := at[id]; ok {
			set.Keys[i].Secrets = append(set.Keys[i].Secrets, secret)
		}
		return nil
	}, "SELECT hash, key_id, expires_at FROM client_key_hashes")
	return set, err
}

// keys reads keys without their secrets.
func (s *Store) keys(ctx context.Context, condition string, args ...any) ([]teams.Key, error) {
	var all []teams.Key
	err := s.each(ctx, func(scan func(...any) error) error {
		k := teams.Key{Source: teams.FromDatabase}
		var created, updated int64
		var revoked sql.NullInt64
		err := scan(&k.ID, &k.Team, &k.Name, &k.Settings, &created, &updated, &revoked)
		k.Created, k.Updated, k.Revoked = time.UnixMicro(created), time.UnixMicro(updated), moment(revoked)
		all = append(all, k)
		return err
	}, "SELECT id, team, name, settings, created_at, updated_at, revoked_at FROM client_keys WHERE "+condition, args...)
	return all, err
}

// each calls do for every row of a query.
func (s *Store) each(ctx context.Context, do func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := s.db.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Revoked implements teams.Store.
func (s *Store) Revoked(ctx context.Context, team string, most int) ([]teams.Key, error) {
	return s.keys(ctx, "revoked_at IS NOT NULL AND (? = '' OR team = ?) ORDER BY revoked_at DESC LIMIT ?", team, team, most)
}

// change runs do if the store still has that version, in one transaction with
// counting it up.
func (s *Store) change(ctx context.Context, version int64, do func(*database.Tx) error) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		done, err := tx.Exec(ctx, "UPDATE teams_version SET version = version + 1 WHERE version = ?", version)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, teams.ErrChanged)
		}
		return do(tx)
	})
}

// PutTeam implements teams.Store.
func (s *Store) PutTeam(ctx context.Context, version int64, t teams.Team) error {
	return s.change(ctx, version, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO teams (name, settings, created_at, updated_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, updated_at = excluded.updated_at`,
			t.Name, string(t.Settings), t.Created.UnixMicro(), t.Updated.UnixMicro())
		return err
	})
}

// DeleteTeam implements teams.Store.
func (s *Store) DeleteTeam(ctx context.Context, version int64, name string) error {
	return s.change(ctx, version, func(tx *database.Tx) error {
		now := time.Now().UnixMicro()
		for _, step := range []struct {
			query string
			args  []any
		}{
			{"DELETE FROM client_key_hashes WHERE key_id IN (SELECT id FROM client_keys WHERE team = ?)", []any{name}},
			{"UPDATE client_keys SET revoked_at = ?, updated_at = ? WHERE team = ? AND revoked_at IS NULL", []any{now, now, name}},
			{"DELETE FROM teams WHERE name = ?", []any{name}},
		} {
			if _, err := tx.Exec(ctx, step.query, step.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutKey implements teams.Store.
func (s *Store) PutKey(ctx context.Context, version int64, k teams.Key) error {
	return s.change(ctx, version, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO client_keys (id, team, name, settings, created_at, updated_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET settings = excluded.settings, updated_at = excluded.updated_at, revoked_at = excluded.revoked_at`,
			k.ID, k.Team, k.Name, string(k.Settings), k.Created.UnixMicro(), k.Updated.UnixMicro(), null(k.Revoked))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM client_key_hashes WHERE key_id = ?", k.ID); err != nil {
			return err
		}
		for _, secret := range k.Secrets {
			if _, err := tx.Exec(ctx, "INSERT INTO client_key_hashes (hash, key_id, expires_at) VALUES (?, ?, ?)",
				hex.EncodeToString(secret.Hash[:]), k.ID, null(secret.Expires)); err != nil {
				return err
			}
		}
		return nil
	})
}

// null and moment turn a time that may be zero into a column and back.
func null(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func moment(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64)
}
