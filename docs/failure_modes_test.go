package docs

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tests that there are into failure-modes.md")

var (
	coversRe = regexp.MustCompile(`covers ([A-Z]+-\d+(?:(?:, | and )[A-Z]+-\d+)*)`)
	idRe     = regexp.MustCompile(`[A-Z]+-\d+`)
	rowRe    = regexp.MustCompile(`(?m)^\| ([A-Z]+-\d+) \| ([^|]+) \| ([^|]*) \| ([^|]*) \|$`)
)

// coverage returns, for each id, the tests whose comments name it, by package.
func coverage(t *testing.T) map[string]map[string][]string {
	t.Helper()
	found := map[string]map[string][]string{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(name)), "../")
		if !strings.HasSuffix(name, ".go") || !strings.HasSuffix(name, "_test.go") && !strings.HasSuffix(dir, "test") || dir == "." {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			for _, m := range coversRe.FindAllStringSubmatch(group.Text(), -1) {
				f := nameAt(file, group)
				if f == "" {
					return fmt.Errorf("%s: %q stands in no test", name, m[0])
				}
				for _, id := range idRe.FindAllString(m[1], -1) {
					if found[id] == nil {
						found[id] = map[string][]string{}
					}
					if !slices.Contains(found[id][dir], f) {
						found[id][dir] = append(found[id][dir], f)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// nameAt is the name of the function that a comment stands in or before.
func nameAt(file *ast.File, c *ast.CommentGroup) string {
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && (f.Doc == c || f.Pos() <= c.Pos() && c.End() <= f.End()) {
			return f.Name.Name
		}
	}
	return ""
}

// cell is the tests of an id as they stand in the table.
func cell(byPackage map[string][]string) string {
	var parts []string
	for _, dir := range slices.Sorted(maps.Keys(byPackage)) {
		tests := slices.Clone(byPackage[dir])
		slices.Sort(tests)
		parts = append(parts, fmt.Sprintf("`%s` %s", dir, strings.Join(tests, ", ")))
	}
	return strings.Join(parts, "; ")
}

// untrue returns the tests that a cell lists and that do not name the id.
func untrue(cell string, byPackage map[string][]string) (names []string) {
	for part := range strings.SplitSeq(cell, "; ") {
		dir, tests, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(part), "`"), "` ")
		for name := range strings.SplitSeq(tests, ", ") {
			if name != "" && !slices.Contains(byPackage[dir], name) {
				names = append(names, dir+" "+name)
			}
		}
	}
	return names
}

// Every behaviour has a test that names it, or a reason why there is none; and what
// the table says of tests is true. Newer tests may be missing there.
func TestFailureModes(t *testing.T) {
	text, err := os.ReadFile("failure-modes.md")
	if err != nil {
		t.Fatal(err)
	}
	found := coverage(t)
	listed := map[string]bool{}
	fresh := rowRe.ReplaceAllFunc(text, func(row []byte) []byte {
		m := rowRe.FindSubmatch(row)
		id := string(m[1])
		if listed[id] {
			t.Errorf("%s stands twice", id)
		}
		listed[id] = true
		if len(found[id]) == 0 && len(bytes.TrimSpace(m[4])) == 0 {
			t.Errorf("%s has no test (// covers %s) and no reason why not", id, id)
		}
		if names := untrue(string(m[3]), found[id]); len(names) > 0 && !*update {
			t.Errorf("%s: %v do not name it; run: go test ./docs -update", id, names)
		}
		return fmt.Appendf(nil, "| %s | %s | %s | %s |", id, m[2], cell(found[id]), m[4])
	})
	for id := range found {
		if !listed[id] {
			t.Errorf("tests name %s, which is not in the table", id)
		}
	}
	if len(listed) != 58 {
		t.Errorf("%d behaviours are listed, want 58", len(listed))
	}
	if !*update || bytes.Equal(fresh, text) {
		return
	}
	if err := os.WriteFile("failure-modes.md", fresh, 0o600); err != nil {
		t.Fatal(err)
	}
}
