package config

import (
	"strings"
	"time"
)

// usage checks the database and the ledger.
func (v *validator) usage() {
	scheme, _, isURL := strings.Cut(string(v.c.Database.URL), "://")
	if isURL && scheme != "postgres" && scheme != "postgresql" && scheme != "sqlite" {
		// Not shown: it may hold a password.
		v.say(path{"database", "url"}, "expected the path of an SQLite file, or postgres://user:password@host:5432/name")
	}
	if v.c.Usage.Flush > Duration(time.Second) {
		v.bad(path{"usage", "flush"}, "expected at most 1s")
	}
	if v.c.Usage.Retention < Duration(day) {
		v.bad(path{"usage", "retention"}, "expected at least 1d")
	}
}
