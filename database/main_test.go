package database_test

import (
	"testing"

	"penstock/database/databasetest"
)

func TestMain(m *testing.M) { databasetest.Main(m) }
