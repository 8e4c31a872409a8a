package deploy

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A dashboard is what the tests read of a Grafana dashboard.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ UID string }
	}
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	names, err := filepath.Glob("grafana/dashboards/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	all := map[string]dashboard{}
	for _, name := range names {
		var d dashboard
		if err := json.Unmarshal(read(t, name), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = d
	}
	return all
}

func TestDashboardLayout(t *testing.T) {
	for name, d := range dashboards(t) {
		if d.UID == "" || d.Title == "" {
			t.Errorf("%s has no uid or title", name)
		}
		ids := map[int]bool{}
		cells := map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s: panel %q has the id %d of another", name, p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.Title == "" || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
				t.Errorf("%s: panel %d %q lacks title, description or queries", name, p.ID, p.Title)
			}
			g := p.GridPos
			if g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
				t.Errorf("%s: panel %q is not within the 24 columns: %+v", name, p.Title, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other, taken := cells[[2]int{x, y}]; taken {
						t.Fatalf("%s: panels %q and %q overlap", name, other, p.Title)
					}
					cells[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

func TestDashboardQueries(t *testing.T) {
	metrics := metricLabels(t)
	variable := regexp.MustCompile(`\$\{?([a-zA-Z_]+)`)
	legend := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	for name, d := range dashboards(t) {
		variables := []string{"__rate_interval"}
		for _, v := range d.Templating.List {
			variables = append(variables, v.Name)
			if v.Type == "query" {
				checkVariable(t, name+": variable "+v.Name, v.Definition, metrics)
			}
		}
		for _, p := range d.Panels {
			var refs []string
			for _, q := range p.Targets {
				where := fmt.Sprintf("%s: panel %q %s", name, p.Title, q.RefID)
				if slices.Contains(refs, q.RefID) {
					t.Errorf("%s: the refId is there twice", where)
				}
				refs = append(refs, q.RefID)
				expr := strings.NewReplacer("$upstream", "u", "$team", "t").Replace(q.Expr)
				labels := checkQuery(t, where, expr, metrics)
				for _, m := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
					if !slices.Contains(labels, m[1]) {
						t.Errorf("%s: the legend uses the label %s; there are %v", where, m[1], labels)
					}
				}
				for _, m := range variable.FindAllStringSubmatch(q.Expr+q.Datasource.UID, -1) {
					if !slices.Contains(variables, m[1]) {
						t.Errorf("%s: there is no variable %s", where, m[1])
					}
				}
				if q.Datasource.UID != "${datasource}" {
					t.Errorf("%s: the data source is %q, not the one chosen", where, q.Datasource.UID)
				}
			}
		}
	}
}

// checkVariable checks label_values(metric, label).
func checkVariable(t *testing.T, where, definition string, metrics map[string][]string) {
	t.Helper()
	m := regexp.MustCompile(`^label_values\(([a-z_]+), ([a-z_]+)\)$`).FindStringSubmatch(definition)
	if m == nil || !slices.Contains(metrics[m[1]], m[2]) {
		t.Errorf("%s: %s finds nothing", where, definition)
	}
}
