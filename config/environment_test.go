package config

import (
	"errors"
	"strings"
	"testing"
)

func TestFromEnvironment(t *testing.T) {
	tests := []struct {
		name      string
		env       map[string]string
		upstreams map[string]string // name to base URL and key
		first     string            // default upstream
	}{
		{"nothing", nil, map[string]string{"openai": "https://api.openai.com/v1 "}, "openai"},
		{"empty", map[string]string{"OPENAI_API_KEY": "", "GROQ_API_KEY": ""}, map[string]string{"openai": "https://api.openai.com/v1 "}, "openai"},
		{
			"openai", map[string]string{"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"},
			map[string]string{"openai": "https://api.openai.com/v1 sk-1"}, "openai",
		},
		{
			"other address", map[string]string{"OPENAI_UPSTREAM_URL": "http://127.0.0.1:8000/v1/"},
			map[string]string{"openai": "http://127.0.0.1:8000/v1 "}, "openai",
		},
		{
			"all", map[string]string{
				"OPENAI_API_KEY": "1", "GROQ_API_KEY": "2", "MISTRAL_API_KEY": "3", "DEEPSEEK_API_KEY": "4", "OPENROUTER_API_KEY": "5",
				"XAI_API_KEY": "6", "TOGETHER_API_KEY": "7", "GEMINI_API_KEY": "8", "ANTHROPIC_API_KEY": "9",
			},
			map[string]string{
				"openai": "https://api.openai.com/v1 1", "groq": "https://api.groq.com/openai/v1 2",
				"mistral": "https://api.mistral.ai/v1 3", "deepseek": "https://api.deepseek.com 4",
				"openrouter": "https://openrouter.ai/api/v1 5", "xai": "https://api.x.ai/v1 6",
				"together": "https://api.together.xyz/v1 7", "gemini": "https://generativelanguage.googleapis.com/v1beta/openai 8",
			}, "openai",
		},
		{
			"without openai", map[string]string{"XAI_API_KEY": "a", "GROQ_API_KEY": "b"},
			map[string]string{"xai": "https://api.x.ai/v1 a", "groq": "https://api.groq.com/openai/v1 b"}, "groq",
		},
		{"dialect not supported", map[string]string{"ANTHROPIC_API_KEY": "a"}, map[string]string{"openai": "https://api.openai.com/v1 "}, "openai"},
		{"a literal dollar", map[string]string{"GROQ_API_KEY": "a${b}file:c"}, map[string]string{"groq": "https://api.groq.com/openai/v1 a${b}file:c"}, "groq"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := FromEnvironment(lookupIn(test.env))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range test.upstreams {
				u := c.Upstreams[name]
				if got := u.BaseURL + " " + string(u.APIKey); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
				if u.Type != "openai" || u.Timeouts.Total == nil {
					t.Errorf("%s is not complete: %+v", name, u)
				}
			}
			if len(c.Upstreams) != len(test.upstreams) || c.DefaultUpstream != test.first {
				t.Errorf("%d upstreams, default %s", len(c.Upstreams), c.DefaultUpstream)
			}
			if c.Listen != "127.0.0.1:8080" || c.Admin.Listen != "127.0.0.1:9090" {
				t.Errorf("listens on %s and %s", c.Listen, c.Admin.Listen)
			}
		})
	}
}

func TestEnvironmentHint(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want string // how the hint begins
	}{
		{nil, ""},
		{map[string]string{"ANTHROPIC_API_KEY": ""}, ""},
		{map[string]string{"ANTHROPIC_API_KEY": "sk-live"}, "ANTHROPIC_API_KEY is set but not used: "},
		{map[string]string{"COHERE_API_KEY": "sk-live", "GROQ_API_KEY": ""}, "COHERE_API_KEY is set but not used: "},
		{map[string]string{"ANTHROPIC_API_KEY": "sk-live", "GROQ_API_KEY": "a"}, ""},
		{map[string]string{"ANTHROPIC_API_KEY": "sk-live", "OPENAI_UPSTREAM_URL": "http://127.0.0.1:8000/v1"}, ""},
	} {
		got := EnvironmentHint(lookupIn(test.env))
		if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) || strings.Contains(got, "sk-live") {
			t.Errorf("%v: %q, want %q", test.env, got, test.want)
		}
		if got != "" && (!strings.Contains(got, "OPENAI_API_KEY, ") || !strings.Contains(got, "GEMINI_API_KEY")) {
			t.Errorf("%q does not name the variables that are taken", got)
		}
	}
	if EnvironmentHint(nil) != "" {
		t.Error("a hint without an environment")
	}
}

func TestEnvironmentSettings(t *testing.T) {
	c, err := FromEnvironment(lookupIn(map[string]string{
		"PENSTOCK_LISTEN": ":8181", "PENSTOCK_INSECURE_NO_AUTH": "true", "PENSTOCK_ADMIN_LISTEN": "0.0.0.0:9191",
		"PENSTOCK_ADMIN_TOKEN": "a-token", "PENSTOCK_LOG_FORMAT": "text", "PENSTOCK_LOG_LEVEL": "debug",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":8181" || !c.InsecureNoAuth || c.Admin.Listen != "0.0.0.0:9191" || c.Admin.Token != "a-token" ||
		c.Log.Format != "text" || c.Log.Level != "debug" {
		t.Errorf("got %+v", c)
	}
}

// covers LIFE-05: a variable with a bad value is named, and its value is not shown.
func TestBadEnvironment(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"PENSTOCK_LISTEN": "sk-live"}, "environment: PENSTOCK_LISTEN: expected host:port, such as 127.0.0.1:8080 or :8080"},
		{map[string]string{"PENSTOCK_LISTEN": ":8080"}, "environment: PENSTOCK_LISTEN: this address is open to other machines, so it needs teams with keys, or PENSTOCK_INSECURE_NO_AUTH=true"},
		{map[string]string{"PENSTOCK_ADMIN_LISTEN": ":9090"}, "environment: PENSTOCK_ADMIN_LISTEN: this address is open to other machines, so it needs PENSTOCK_ADMIN_TOKEN"},
		{map[string]string{"PENSTOCK_LISTEN": "127.0.0.1:9090"}, "environment: PENSTOCK_LISTEN: listen and admin.listen both take port 9090; choose another for one of them"},
		{map[string]string{"PENSTOCK_LOG_LEVEL": "sk-live"}, "environment: PENSTOCK_LOG_LEVEL: expected debug, info, warn or error"},
		{map[string]string{"PENSTOCK_LOG_FORMAT": "xml", "PENSTOCK_INSECURE_NO_AUTH": "1"}, "environment: PENSTOCK_INSECURE_NO_AUTH: expected true or false\nenvironment: PENSTOCK_LOG_FORMAT: expected json or text"},
		{map[string]string{"OPENAI_UPSTREAM_URL": "sk-live"}, "environment: OPENAI_UPSTREAM_URL: expected an http or https URL"},
		{map[string]string{"OPENAI_UPSTREAM_URL": "http://127.0.0.1:8080/v1"}, "environment: OPENAI_UPSTREAM_URL: expected the address of a provider, not the one that Penstock itself listens on"},
		{map[string]string{"OPENAI_API_KEY": "sk-live\n"}, "environment: OPENAI_API_KEY: holds a line break or another control character"},
	}
	for _, test := range tests {
		c, err := FromEnvironment(lookupIn(test.env))
		var all Errors
		if !errors.As(err, &all) || c != nil || err.Error() != test.want {
			t.Errorf("%v: got\n%v\nwant\n%s", test.env, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "sk-live") {
			t.Errorf("leaks: %v", err)
		}
	}
}

// A file without upstreams gets those of the environment, but not its settings.
func TestFileWithoutUpstreams(t *testing.T) {
	env := map[string]string{"GROQ_API_KEY": "gsk-1", "OPENAI_API_KEY": "sk-1", "PENSTOCK_LISTEN": ":1"}
	for _, text := range []string{"", "upstreams:\n", "upstreams: {}\n", "# nothing\n", "---\n", "log: {level: warn}\n"} {
		c, err := parse([]byte(text), "penstock.yaml", lookupIn(env))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if len(c.Upstreams) != 2 || string(c.Upstreams["groq"].APIKey) != "gsk-1" || c.DefaultUpstream != "openai" || c.Listen != "127.0.0.1:8080" {
			t.Errorf("%q: got %+v", text, c)
		}
	}
	_, err := parse([]byte("default_upstream: mistral\n"), "penstock.yaml", lookupIn(env))
	if err == nil || !strings.Contains(err.Error(), "known: groq, openai") {
		t.Errorf("got %v", err)
	}
	env["OPENAI_UPSTREAM_URL"] = "nonsense"
	_, err = parse(nil, "penstock.yaml", lookupIn(env))
	if want := "environment: OPENAI_UPSTREAM_URL: expected an http or https URL"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
