package limits

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// covers LIM-05: limits, queue, breakers and time limits live on the monotonic
// clock, which a step of the wall clock does not move and a suspend does not run.
// Differences of time.Now are monotonic unless somebody takes the reading off, so
// none of the ways to do that occurs in their code. Budgets follow the calendar,
// and a provider's Retry-After may be a date: both are bounded elsewhere.
func TestNobodyReadsTheWallClock(t *testing.T) {
	wall := []string{"Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "In", "Date", "Parse", "ParseTime", "MarshalText", "Format"}
	exempt := []string{"../limits/budget.go"}
	files := 0
	for _, dir := range []string{"../limits", "../breaker", "../proxy"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && name != dir {
				return fs.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || slices.Contains(exempt, name) {
				return nil
			}
			files++
			tokens := token.NewFileSet()
			file, err := parser.ParseFile(tokens, name, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if f, ok := n.(*ast.FuncDecl); ok && f.Name.Name == "wall" {
					return false // for budgets
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if ok && !isURL(sel.X) && (slices.Contains(wall, sel.Sel.Name) || sel.Sel.Name == "Round" && isZero(call.Args)) {
					t.Errorf("%s: %s takes the monotonic reading off a time", tokens.Position(n.Pos()), sel.Sel.Name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func isZero(args []ast.Expr) bool {
	lit, ok := args[0].(*ast.BasicLit)
	return ok && lit.Value == "0"
}

func isURL(x ast.Expr) bool {
	name, ok := x.(*ast.Ident)
	return ok && name.Name == "url"
}
