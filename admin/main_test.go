package admin

import (
	"testing"

	"penstock/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }
