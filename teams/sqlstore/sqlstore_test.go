package sqlstore

import (
	"testing"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/teams"
	"penstock/teams/teamstest"
)

func TestSQLite(t *testing.T) {
	teamstest.Run(t, func(t *testing.T) teams.Store { return New(databasetest.Open(t, t.TempDir()+"/penstock.db")) })
}

func TestPostgres(t *testing.T) {
	db := databasetest.Open(t, databasetest.Postgres(t))
	teamstest.Run(t, func(t *testing.T) teams.Store {
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			for _, q := range []string{"DELETE FROM client_key_hashes", "DELETE FROM client_keys", "DELETE FROM teams", "UPDATE teams_version SET version = 0"} {
				if _, err := tx.Exec(t.Context(), q); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return New(db)
	})
}
