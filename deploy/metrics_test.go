package deploy

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"penstock/limits"
	"penstock/provider"
)

// metricLabels returns the label names of every series that Penstock has, by the
// name of the series, from docs/metrics.md, which a test of cmd/penstock keeps true.
func metricLabels(t *testing.T) map[string][]string {
	t.Helper()
	rows := regexp.MustCompile("(?m)^\\| `(penstock_[a-z_]+)` \\| ([a-z]+) \\| ([a-z_` ]*)\\|").FindAllStringSubmatch(string(read(t, "../docs/metrics.md")), -1)
	if len(rows) == 0 {
		t.Fatal("docs/metrics.md has no table of metrics")
	}
	labels := map[string][]string{"up": nil}
	for _, row := range rows {
		name, names := row[1], strings.Fields(strings.ReplaceAll(row[3], "`", ""))
		if row[2] != "histogram" {
			labels[name] = names
			continue
		}
		labels[name+"_sum"], labels[name+"_count"] = names, names
		labels[name+"_bucket"] = append(slices.Clone(names), "le")
	}
	return labels
}

// closedSets are the labels whose values are known in advance.
func closedSets() map[string][]string {
	sets := map[string][]string{
		"outcome": {"ok", "client_error", "refused", "upstream_error", "upstream_limited", "timeout", "truncated", "unavailable", "client_closed", "internal"},
		"result":  {"ok", "breaker", "broken"},
		"class":   {"interactive", "default", "batch"},
	}
	for k := provider.KindHealth; k <= provider.KindCancelled; k++ {
		sets["result"] = append(sets["result"], k.String())
	}
	for s := limits.ScopeKey; s <= limits.ScopeGateway; s++ {
		sets["scope"] = append(sets["scope"], s.String())
	}
	return sets
}

var (
	selector = regexp.MustCompile(`\b((?:penstock_|up\b)[a-z_]*)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
)

// checkQuery checks names of metrics and labels, and the values of labels whose
// values are known. It returns the labels that results of the query can have.
func checkQuery(t *testing.T, where, query string, metrics map[string][]string) (result []string) {
	t.Helper()
	scraped := []string{"job", "instance"}
	known := slices.Clone(scraped)
	found := selector.FindAllStringSubmatch(query, -1)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %s", where, query)
	}
	for _, s := range found {
		labels, ok := metrics[s[1]]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, s[1])
			continue
		}
		known = append(known, labels...)
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(labels, m[1]) && !slices.Contains(scraped, m[1]) {
				t.Errorf("%s: %s has no label %s", where, s[1], m[1])
			}
			set, ok := closedSets()[m[1]]
			for value := range strings.SplitSeq(m[2], "|") {
				if ok && !slices.Contains(set, value) {
					t.Errorf("%s: %s is never %q", where, m[1], value)
				}
			}
		}
	}
	grouped := false
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		names := strings.FieldsFunc(g[2], func(r rune) bool { return r == ',' || r == ' ' })
		for _, name := range names {
			if !slices.Contains(known, name) {
				t.Errorf("%s: no metric in the query has the label %s", where, name)
			}
		}
		if g[1] == "by" {
			grouped, result = true, append(result, names...)
		}
	}
	if !grouped {
		return known
	}
	return result
}

func TestQueryCheckFindsMistakes(t *testing.T) {
	// The patterns must see through the syntax, or the check would pass anything.
	for query, want := range map[string]string{
		`rate(penstock_a_total{x="1",y!~"b|c"}[5m]) > 1`: "penstock_a_total x y",
		`up{job="penstock"} == 0`:                        "up job",
		`penstock_b`:                                     "penstock_b",
	} {
		s := selector.FindStringSubmatch(query)
		got := s[1]
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			got += " " + m[1]
		}
		if got != want {
			t.Errorf("%s: found %q, want %q", query, got, want)
		}
	}
	if g := grouping.FindStringSubmatch(`sum by (le, class) (x)`); g[2] != "le, class" {
		t.Errorf("found %q", g)
	}
}

func TestAlerts(t *testing.T) {
	metrics := metricLabels(t)
	fires, rests, given := alertTests(t)
	used := regexp.MustCompile(`\$labels\.([a-z_]+)`)
	names := map[string]bool{}
	for _, rule := range list(at(documents(t, "prometheus/alerts.yml")[0], "groups", 0, "rules")) {
		name := text(at(rule, "alert"))
		if names[name] {
			t.Errorf("there are two alerts %s", name)
		}
		names[name] = true
		checkQuery(t, name, text(at(rule, "expr")), metrics)
		if s := text(at(rule, "labels", "severity")); s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s: severity is %q", name, s)
		}
		for _, key := range []string{"summary", "description"} {
			annotation := text(at(rule, "annotations", key))
			if annotation == "" {
				t.Errorf("%s has no %s", name, key)
			}
			for _, m := range used.FindAllStringSubmatch(annotation, -1) {
				if !slices.Contains(given[name], m[1]) {
					t.Errorf("%s: the %s uses the label %s, which a firing alert does not have: %v", name, key, m[1], given[name])
				}
			}
		}
		if !fires[name] || !rests[name] {
			t.Errorf("%s: alerts_test.yml must show that it fires and that it does not: %v, %v", name, fires[name], rests[name])
		}
	}
	for name := range fires {
		if !names[name] {
			t.Errorf("alerts_test.yml tests %s, which does not exist", name)
		}
	}
}

// alertTests reads which alerts alerts_test.yml shows to fire and not to fire, and
// the labels of those that fire. It checks the names of the input series.
func alertTests(t *testing.T) (fires, rests map[string]bool, labels map[string][]string) {
	t.Helper()
	fires, rests, labels = map[string]bool{}, map[string]bool{}, map[string][]string{}
	metrics := metricLabels(t)
	alert := regexp.MustCompile(`alertname="([A-Za-z]+)"`)
	for _, group := range list(at(documents(t, "prometheus/alerts_test.yml")[0], "tests")) {
		for _, s := range list(at(group, "input_series")) {
			checkQuery(t, text(at(group, "name")), text(at(s, "series")), metrics)
		}
		for _, c := range list(at(group, "promql_expr_test")) {
			name := alert.FindStringSubmatch(text(at(c, "expr")))[1]
			samples := list(at(c, "exp_samples"))
			if len(samples) == 0 {
				rests[name] = true
				continue
			}
			fires[name] = true
			for _, m := range matcher.FindAllStringSubmatch(text(at(samples[0], "labels")), -1) {
				labels[name] = append(labels[name], m[1])
			}
		}
	}
	return fires, rests, labels
}

func TestEveryMetricHasAUse(t *testing.T) {
	shown := string(read(t, "grafana/dashboards/traffic-control.json")) + string(read(t, "prometheus/alerts.yml"))
	// Shown better by others: states rather than transitions, the reload's gauge.
	other := []string{"penstock_breaker_transitions_total", "penstock_config_reloads_total"}
	for _, name := range slices.Sorted(maps.Keys(metricLabels(t))) {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		if !strings.Contains(shown, base) && !slices.Contains(other, name) {
			t.Errorf("%s is in no dashboard and no alert", name)
		}
	}
}

// An alert without a first step, and a step that asks for what does not exist, fail
// the one who is called at night.
func TestDocumentsNameWhatExists(t *testing.T) {
	steps, alerts := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(Penstock[A-Za-z]+)` \\| ").FindAllStringSubmatch(string(read(t, "../docs/operations.md")), -1) {
		steps[m[1]] = true
	}
	for _, rule := range list(at(documents(t, "prometheus/alerts.yml")[0], "groups", 0, "rules")) {
		alerts[text(at(rule, "alert"))] = true
	}
	if !maps.Equal(steps, alerts) {
		t.Errorf("docs/operations.md has a first step for %v, alerts.yml has %v", slices.Sorted(maps.Keys(steps)), slices.Sorted(maps.Keys(alerts)))
	}
	known := metricLabels(t)
	names, err := filepath.Glob("../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatal("no documents", err)
	}
	for _, file := range append(names, "README.md", "../README.md", "prometheus/alerts.yml") {
		for _, m := range regexp.MustCompile(`\bpenstock_[a-z_]+[a-z](?:\{|\b)`).FindAllString(string(read(t, file)), -1) {
			name := strings.TrimSuffix(m, "{")
			_, plain := known[name]
			_, histogram := known[name+"_count"]
			if !plain && !histogram {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}
