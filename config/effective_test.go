package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The effective configuration loads again to the same one, apart from secrets.
func TestEffectiveLoadsAgain(t *testing.T) {
	t.Chdir("testdata")
	files, err := filepath.Glob("good-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			first, err := Load(name, lookupIn(testEnv))
			if err != nil {
				t.Fatal(err)
			}
			const stand = "the-same-secret-everywhere"
			hide := func(c *Config) {
				c.secretFiles = nil
				c.eachSecret(func(p path, s Secret) Secret {
					if s == "" {
						return ""
					}
					return stand
				})
			}
			hide(first)
			text, err := first.Effective()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), stand) {
				t.Error("a secret is not masked")
			}
			again := strings.ReplaceAll(string(text), masked, stand)
			second, err := parse([]byte(again), "effective.yaml", nil)
			if err != nil {
				t.Fatalf("%v in:\n%s", err, again)
			}
			if !reflect.DeepEqual(first, second) {
				t.Errorf("loads as another configuration:\n%s", again)
			}
		})
	}
}

func TestEffectiveKeepsText(t *testing.T) {
	c := load(t, `{upstreams: {a: {base_url: "https://example.com/$${x}"}}, models: {"on": a, "1": a, "null": {targets: {upstream: a, model: "~"}}}}`)
	text, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again := load(t, string(text))
	if !reflect.DeepEqual(c, again) {
		t.Errorf("got\n%s", text)
	}
	if got := again.Upstreams["a"].BaseURL; got != "https://example.com/${x}" {
		t.Errorf("base URL %q", got)
	}
}
