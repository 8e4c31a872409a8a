package ledger_test

import (
	"testing"

	"penstock/database/databasetest"
)

func TestMain(m *testing.M) { databasetest.Main(m) }
