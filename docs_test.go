package penstock

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"penstock/config"
)

// pages are the documents that people read.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md", "bench/*.md", "e2e/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
	}
	if len(all) < 8 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			}
		}
	}
}

// Keys of the configuration that a page names exist.
func TestNamedKeysExist(t *testing.T) {
	all := pages(t)
	where := regexp.MustCompile("(?m)^Where: (.*)$|^\\| `([a-z_]+)` \\|")
	keys, roots, sections := map[string]bool{}, map[string]bool{}, []string(nil)
	_, reference, _ := strings.Cut(all["docs/configuration.md"], "\n## Keys\n")
	for _, m := range where.FindAllStringSubmatch(reference, -1) {
		if m[1] != "" {
			sections = regexp.MustCompile("`([^`]+)`").FindAllString(m[1], -1)
			if strings.HasPrefix(m[1], "top level") {
				sections = []string{""}
			}
			continue
		}
		for _, s := range sections {
			s = strings.Trim(s, "`")
			if s == "" {
				roots[m[2]] = true
				continue
			}
			keys[s+"."+m[2]] = true
		}
	}
	if len(keys) < 40 || len(roots) < 10 {
		t.Fatalf("the reference has %d keys and %d sections: it is not understood", len(keys), len(roots))
	}
	named := regexp.MustCompile("`([a-z_]+)\\.([a-z_.]+)(?:: [^`]+)?`")
	for name, text := range all {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if key := m[1] + "." + m[2]; roots[m[1]] && !keys[key] && !strings.HasSuffix(key, ".go") {
				t.Errorf("%s names %s, which is no key of the configuration", name, key)
			}
		}
	}
}

// The README shows the example file as it is, and it loads.
func TestExampleOfTheReadme(t *testing.T) {
	text, err := os.ReadFile("docs/examples/two-teams.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(pages(t)["README.md"], "```yaml\n"+string(text)+"```\n") {
		t.Error("README.md does not show docs/examples/two-teams.yaml as it is")
	}
	c, err := config.Load("docs/examples/two-teams.yaml", func(name string) (string, bool) { return "a-key-for-" + name, strings.HasSuffix(name, "_KEY") })
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Upstreams) != 2 || len(c.Teams) != 2 {
		t.Errorf("%d upstreams, %d teams", len(c.Upstreams), len(c.Teams))
	}
}

// The example of docs/shared-quotas.md loads, and has what the page says.
func TestExampleOfAFleet(t *testing.T) {
	c, err := config.Load("docs/examples/fleet.yaml", func(name string) (string, bool) {
		if strings.HasPrefix(name, "REDIS") {
			return "", false
		}
		return "a-key-for-" + name, true
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Redis == nil || c.Redis.Replicas != 3 || len(c.Upstreams) != 2 || len(c.Teams) != 3 {
		t.Errorf("redis %v, %d upstreams, %d teams", c.Redis, len(c.Upstreams), len(c.Teams))
	}
}
