package sqlstore

import (
	"testing"

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
