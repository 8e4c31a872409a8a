package config

import (
	"regexp"
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

var hoursPattern = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`)

// prices checks the prices of models.
func (v *validator) prices() {
	for _, name := range sortedKeys(v.c.Prices) {
		p := path{"prices", name}
		stem := strings.TrimSuffix(name, "*")
		if name == "" || strings.Contains(stem, "*") || stem != "" && checkModelName(stem) != "" {
			v.name(p, "expected the name of a model, or of an upstream and a model, which may end in *")
		}
		for i, price := range v.c.Prices[name] {
			at := p.index(i)
			if _, err := time.Parse(time.DateOnly, price.From); price.From != "" && err != nil {
				v.bad(at.key("from"), "expected a date such as 2027-01-01")
			}
			for j, h := range price.Hours {
				if start, end, _ := strings.Cut(h, "-"); !hoursPattern.MatchString(h) || start >= end {
					v.bad(at.key("hours").index(j), "expected hours such as 01:00-04:00")
				}
			}
		}
	}
}
