package keys

import (
	"net/url"
	"testing"

	"penstock/database/databasetest"
	"penstock/e2e/harness"
)

// stoppable returns the URL of a PostgreSQL server through a wire that can be cut:
// stop breaks its connections and takes no new ones.
func stoppable(t testing.TB) (address string, stop, again func()) {
	t.Helper()
	u, err := url.Parse(databasetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	w := harness.NewWire(t, u.Host)
	u.Host = w.Addr
	return u.String(), func() { w.Set(t, harness.Fault{Cut: true}) }, func() { w.Set(t, harness.Fault{}) }
}
