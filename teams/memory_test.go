package teams_test

import (
	"testing"

	"penstock/teams"
	"penstock/teams/teamstest"
)

func TestMemory(t *testing.T) {
	teamstest.Run(t, func(*testing.T) teams.Store { return &teamstest.Memory{} })
}
