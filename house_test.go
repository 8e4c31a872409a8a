// Package penstock holds the tests of the house itself: which package may import
// which, and what no file may contain.
package penstock

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors are the packages from the ground up. A package imports packages of the
// floors below its own, never of its own floor or above.
var floors = [][]string{
	// Parts that know nothing of each other.
	{"auth", "breaker", "config", "database", "freeport", "leakcheck", "limits", "plainhttp", "provider", "simulate", "sse", "teams", "telemetry", "tokens", "usage"},
	// Translators, stores and the suites that judge stores.
	{"database/databasetest", "limits/limitstest", "limits/redisstore", "limits/redisstore/redistest", "provider/openai", "route", "teams/sqlstore", "teams/teamstest", "usage/ledger"},
	// The life of a request, and what the operator sees.
	{"proxy", "admin"},
	// The program.
	{"cmd/penstock"},
	// What stands beside it.
	{"bench"},
}

// suppliers are modules that only the named packages may import: whoever replaces
// one has to look there and nowhere else.
var suppliers = map[string][]string{
	"github.com/alecthomas/kong":          {"cmd/penstock"},
	"github.com/fsnotify/fsnotify":        {"config"},
	"github.com/jackc/pgx":                {"database", "database/databasetest"},
	"github.com/labstack/echo":            {"cmd/penstock"},
	"github.com/prometheus/client_golang": {"admin", "cmd/penstock", "telemetry"},
	"github.com/redis/go-redis":           {"limits/redisstore", "limits/redisstore/redistest"},
	"github.com/sony/gobreaker":           {"breaker"},
	"go.yaml.in/yaml":                     {"config"},
	"go.uber.org/goleak":                  {"leakcheck"},
	"modernc.org/sqlite":                  {"database"},
}

func TestImportsPointDown(t *testing.T) {
	floor := map[string]int{}
	for i, names := range floors {
		for _, name := range names {
			floor[name] = i
		}
	}
	walk(t, func(name string, file *ast.File) {
		from := path.Dir(name)
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(from, "e2e/") {
			return // what tests import is not part of the program
		}
		at, known := floor[from]
		if !known {
			t.Errorf("package %s has no floor; put it into floors, as low as it can stand", from)
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			own, ours := strings.CutPrefix(imported, "penstock/")
			if below, listed := floor[own]; ours && known && (!listed || below >= at) {
				t.Errorf("%s imports %s, which does not stand below it; move what both need further down", name, own)
			}
			for module, users := range suppliers {
				if (imported == module || strings.HasPrefix(imported, module+"/")) && !slices.Contains(users, from) {
					t.Errorf("%s imports %s, which only %v may", name, imported, users)
				}
			}
		}
	})
}

// Tests of time run in a bubble, where time costs nothing and does not flake.
func TestOnlyBubblesSleep(t *testing.T) {
	bubbles := map[string]bool{}
	walk(t, func(name string, file *ast.File) {
		for _, spec := range file.Imports {
			if spec.Path.Value == `"testing/synctest"` {
				bubbles[path.Dir(name)] = true
			}
		}
	})
	walk(t, func(name string, file *ast.File) {
		if bubbles[path.Dir(name)] || !strings.HasSuffix(name, "_test.go") {
			return // elsewhere the linter looks
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s sleeps outside testing/synctest; wait for an event, with a bound", name)
				}
			}
			return true
		})
	})
}

// walk calls visit for every Go file of this module and of e2e.
func walk(t *testing.T, visit func(name string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(name), file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
