package sqlstore

import (
	"testing"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/teams"
	"penstock/teams/teamstest"
)

func TestMain(m *testing.M) { databasetest.Main(m) }

func TestSQLite(t *testing.T) {
	teamstest.Run(t, func(t *testing.T) teams.Store { return New(databasetest.Open(t, t.TempDir()+"/penstock.db")) })
}

func TestPostgres(t *testing.T) {
	teamstest.Run(t, func(t *testing.T) teams.Store { return New(databasetest.Open(t, databasetest.Postgres(t))) })
}

// covers DB-05: rows that cannot be what was written are an error, not a set without
// them.
func TestDamagedRowsAreRefused(t *testing.T) {
	for what, damage := range map[string]string{
		"a short hash":  "UPDATE client_key_hashes SET hash = 'ab'",
		"a long hash":   "UPDATE client_key_hashes SET hash = hash || 'ab'",
		"no hash":       "UPDATE client_key_hashes SET hash = 'no hash'",
		"no version":    "DELETE FROM teams_version",
		"a wrong time":  "UPDATE client_keys SET created_at = 'yesterday'",
		"a lost column": "ALTER TABLE teams DROP COLUMN settings",
	} {
		db := databasetest.Open(t, t.TempDir()+"/penstock.db")
		s := New(db)
		key := teams.Key{ID: "key_1", Team: "search", Name: "prod", Settings: []byte(`{}`), Secrets: []teams.Secret{{Hash: [32]byte{1}}}}
		if err := s.PutKey(t.Context(), 0, key); err != nil {
			t.Fatal(err)
		}
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			_, err := tx.Exec(t.Context(), damage)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if set, err := s.Load(t.Context()); err == nil {
			t.Errorf("%s: loaded %+v", what, set)
		}
	}
}
