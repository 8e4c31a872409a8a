// Package deploy checks the examples in this directory against the code: that
// configurations load, and that dashboards and alerts ask for metrics that exist.
package deploy

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"penstock/config"
)

// object is a mapping of a YAML or JSON document.
type object = map[string]any

// at follows keys and list indices into a document; nil when something is missing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch key := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[key]
		case int:
			list, _ := v.([]any)
			if key >= len(list) {
				return nil
			}
			v = list[key]
		}
	}
	return v
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// documents parses all documents of a YAML file. Duplicate keys are errors.
func documents(t *testing.T, name string) []any {
	t.Helper()
	loader, err := yaml.NewLoader(bytes.NewReader(read(t, name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var docs []any
	for {
		var doc any
		err := loader.Load(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
}

func TestAllYAMLParses(t *testing.T) {
	var names []string
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if ext := filepath.Ext(name); err == nil && (ext == ".yaml" || ext == ".yml") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		docs := documents(t, name)
		if len(docs) == 0 {
			t.Errorf("%s is empty", name)
		}
		for i, doc := range docs {
			if _, ok := doc.(object); !ok {
				t.Errorf("%s: document %d is not a mapping", name, i+1)
			}
		}
	}
	if len(names) < 9 {
		t.Errorf("found only %d YAML files: %v", len(names), names)
	}
}

// load loads a configuration with the given environment and no other.
func load(t *testing.T, name string, env map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(name, func(key string) (string, bool) { v, ok := env[key]; return v, ok })
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

// dotEnv reads lines of the form NAME=value.
func dotEnv(t *testing.T, name string) map[string]string {
	t.Helper()
	env := map[string]string{}
	for line := range strings.Lines(string(read(t, name))) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || value == "" {
			t.Errorf("%s: unexpected line %q", name, line)
		}
		env[key] = value
	}
	return env
}

func TestCompose(t *testing.T) {
	c := load(t, "compose/penstock.yaml", dotEnv(t, "compose/.env.example"))
	compose := documents(t, "compose/compose.yaml")[0]
	if !c.Admin.OpenMetrics {
		t.Error("Prometheus has no token, so admin.open_metrics must be on")
	}

	t.Run("variables", func(t *testing.T) {
		env := dotEnv(t, "compose/.env.example")
		whole := string(read(t, "compose/compose.yaml"))
		given, _ := at(compose, "services", "penstock", "environment").(object)
		for name := range env {
			if !strings.Contains(whole, "${"+name+":?") {
				t.Errorf("compose.yaml does not ask for %s of .env.example", name)
			}
			if _, ok := given[name]; !ok && name != "GRAFANA_ADMIN_PASSWORD" {
				t.Errorf("the penstock service does not get %s", name)
			}
		}
	})
	t.Run("the simulator has the limits that the configuration says", func(t *testing.T) {
		var args []string
		for _, a := range list(at(compose, "services", "simulator", "command")) {
			args = append(args, text(a))
		}
		l := c.Upstreams["simulator"].Limits
		for flag, want := range map[string]int64{
			"--rpm": int64(l.Requests[0].Limit), "--tpm": int64(l.Tokens[0].Limit), "--concurrency": l.Concurrency.Limit,
		} {
			i := slices.Index(args, flag)
			if i < 0 || args[i+1] != number(want) {
				t.Errorf("%s in %v, want %d", flag, args, want)
			}
		}
		if c.Upstreams["simulator"].BaseURL != "http://simulator"+args[slices.Index(args, "--listen")+1]+"/v1" {
			t.Errorf("base_url is %s, simulator: %v", c.Upstreams["simulator"].BaseURL, args)
		}
	})
	t.Run("mounted files exist", func(t *testing.T) {
		services, _ := at(compose, "services").(object)
		for name, s := range services {
			for _, v := range list(at(s, "volumes")) {
				source, _, _ := strings.Cut(text(v), ":")
				if !strings.HasPrefix(source, ".") {
					continue // a named volume
				}
				if _, err := os.Stat(filepath.Join("compose", source)); err != nil {
					t.Errorf("service %s: %v", name, err)
				}
			}
		}
	})
	t.Run("Prometheus asks the admin listener", func(t *testing.T) {
		target := text(at(documents(t, "prometheus/prometheus.yml")[0], "scrape_configs", 0, "static_configs", 0, "targets", 0))
		if want := "penstock" + c.Admin.Listen; target != want {
			t.Errorf("target is %s, want %s", target, want)
		}
	})
	t.Run("only this machine reaches the ports", func(t *testing.T) {
		services, _ := at(compose, "services").(object)
		for name, s := range services {
			for _, p := range list(at(s, "ports")) {
				if !strings.HasPrefix(text(p), "127.0.0.1:") {
					t.Errorf("service %s opens %s", name, p)
				}
			}
		}
	})
}
