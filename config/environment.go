package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// providers are the upstreams that are made from environment variables. Their base
// URLs are those of the providers' OpenAI-compatible APIs.
var providers = []struct{ name, keyVariable, baseURL string }{
	{"openai", "OPENAI_API_KEY", "https://api.openai.com/v1"},
	{"groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1"},
	{"mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"},
	{"deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com"},
	{"openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"},
	{"xai", "XAI_API_KEY", "https://api.x.ai/v1"},
	{"together", "TOGETHER_API_KEY", "https://api.together.xyz/v1"},
	{"gemini", "GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai"},
}

// otherKeyVariables are the keys of providers that make no upstream.
var otherKeyVariables = []string{"ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "COHERE_API_KEY", "GOOGLE_API_KEY"}

// settingVariables are the environment variables that stand in for keys of the
// file, where there is no file.
var settingVariables = []struct {
	variable string
	key      path
}{
	{"PENSTOCK_LISTEN", path{"listen"}},
	{"PENSTOCK_INSECURE_NO_AUTH", path{"insecure_no_auth"}},
	{"PENSTOCK_ADMIN_LISTEN", path{"admin", "listen"}},
	{"PENSTOCK_ADMIN_TOKEN", path{"admin", "token"}},
	{"PENSTOCK_LOG_FORMAT", path{"log", "format"}},
	{"PENSTOCK_LOG_LEVEL", path{"log", "level"}},
}

// FromEnvironment returns the configuration of a process without a file: an
// upstream for each provider key in the environment (OPENAI_API_KEY,
// GROQ_API_KEY, …), and the listeners and log as the PENSTOCK_* variables say. The
// base URL of openai is OPENAI_UPSTREAM_URL, since OPENAI_BASE_URL is where clients
// look for Penstock itself. Without any key there is one upstream, openai without a
// key, which gets the credentials of the clients. An empty variable counts as
// unset.
//
// The error is an Errors that names the variables, not their values.
func FromEnvironment(getenv func(string) (string, bool)) (*Config, error) {
	if getenv == nil {
		getenv = emptyEnvironment
	}
	d := newDocument("environment")
	d.root.Line, d.root.Column = 0, 0
	for _, s := range settingVariables {
		if value, _ := getenv(s.variable); value != "" {
			d.put(s.key, value, s.variable)
		}
	}
	found := d.addEnvironment(getenv)
	return d.config(found, "")
}

// EnvironmentHint is what to tell somebody whose environment holds the key of a
// provider, but none that makes an upstream. It is empty when there is nothing to
// tell, and holds names of variables, never their values.
func EnvironmentHint(getenv func(string) (string, bool)) string {
	if getenv == nil {
		return ""
	}
	isSet := func(variable string) bool {
		value, _ := getenv(variable)
		return value != ""
	}
	taken := make([]string, 0, len(providers)+1)
	for _, p := range providers {
		taken = append(taken, p.keyVariable)
	}
	taken = append(taken, "OPENAI_UPSTREAM_URL")
	at := slices.IndexFunc(otherKeyVariables, isSet)
	if at < 0 || slices.ContainsFunc(taken, isSet) {
		return ""
	}
	return otherKeyVariables[at] + " is set but not used: Penstock talks to OpenAI-compatible upstreams only, and takes " +
		strings.Join(taken, ", ") + "; name another such upstream in a file"
}

// fromEnvironment says whether there is no file.
func (d *document) fromEnvironment() bool { return d.root.Line == 0 }

// addEnvironment adds the upstreams of the environment to a tree without any.
func (d *document) addEnvironment(getenv func(string) (string, bool)) faults {
	if d.root.Kind != yaml.MappingNode || d.has("upstreams") {
		return nil
	}
	baseURL, _ := getenv("OPENAI_UPSTREAM_URL")
	any := false
	for i, p := range providers {
		key, _ := getenv(p.keyVariable)
		if key == "" && (i > 0 || baseURL == "") {
			continue
		}
		any = true
		d.put(path{"upstreams", p.name, "base_url"}, p.baseURL, "")
		if i == 0 && baseURL != "" {
			d.put(path{"upstreams", p.name, "base_url"}, baseURL, "OPENAI_UPSTREAM_URL")
		}
		if key != "" {
			d.put(path{"upstreams", p.name, "api_key"}, key, p.keyVariable)
		}
	}
	openai := providers[0]
	switch {
	case !any && d.has("teams"):
		return faults{{node: d.root, rest: path{"upstreams"}, text: "no upstream is given, and the environment has no key of a provider, such as " + openai.keyVariable}}
	case !any:
		d.put(path{"upstreams", openai.name, "base_url"}, openai.baseURL, "")
	}
	if lookup(lookup(d.root, "upstreams"), openai.name) != nil && !d.has("default_upstream") {
		d.put(path{"default_upstream"}, openai.name, "")
	}
	return nil
}

// has says whether a section of the file has any content.
func (d *document) has(section string) bool {
	value := lookup(d.root, section)
	if value == nil {
		return false
	}
	value = resolve(value)
	return value.Kind == yaml.ScalarNode && !isNull(value) || len(value.Content) > 0
}

// put sets the value at a path of keys, and notes the variable it came from.
func (d *document) put(p path, text, variable string) {
	n := d.root
	for _, step := range p[:len(p)-1] {
		next := lookup(n, step)
		if next == nil || next.Kind != yaml.MappingNode {
			next = d.newNode(yaml.MappingNode, "")
			d.set(n, step, next)
		}
		n = next
	}
	value := d.newNode(yaml.ScalarNode, text)
	d.set(n, p[len(p)-1], value)
	if variable != "" {
		d.variables[value] = variable
	}
}

func (d *document) set(mapping *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i+1] = value
			return
		}
	}
	mapping.Content = append(mapping.Content, d.newNode(yaml.ScalarNode, key), value)
}

// newNode returns a node that is said to stand at the beginning of the file.
func (d *document) newNode(kind yaml.Kind, text string) *yaml.Node {
	tag := "!!str"
	if kind == yaml.MappingNode {
		tag = "!!map"
	}
	return &yaml.Node{Kind: kind, Tag: tag, Value: text, Line: d.root.Line, Column: d.root.Column}
}
