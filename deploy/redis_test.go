package deploy

import (
	"strings"
	"testing"
)

// A Redis that evicts keys forgets levels, so each example states that it does not.
func TestRedisEvictsNothing(t *testing.T) {
	for _, name := range []string{"compose/compose.yaml", "kubernetes/fleet.yaml"} {
		for line := range strings.Lines(string(read(t, name))) {
			if strings.Contains(line, "[redis-server") && !strings.Contains(line, "--maxmemory-policy, noeviction") {
				t.Errorf("%s: %s has no noeviction", name, strings.TrimSpace(line))
			}
		}
	}
}
