package admin

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/keys.md, docs/explain.md and docs/usage.md name every path of the API and
// every code of its errors.
func TestDocsNameEveryPathAndCode(t *testing.T) {
	var text strings.Builder
	for _, name := range []string{"keys", "explain", "usage"} {
		b, err := os.ReadFile("../docs/" + name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	paths, codes := regexp.MustCompile(`"([A-Z]+ /admin/[^"]+)"`), regexp.MustCompile(`Code: "([a-z_]+)"`)
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(paths.FindAllSubmatch(b, -1), codes.FindAllSubmatch(b, -1)...) {
			found++
			if !strings.Contains(text.String(), "`"+string(m[1])) {
				t.Errorf("%s: the documentation does not name %s", name, m[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d paths and codes were found", found)
	}
}
