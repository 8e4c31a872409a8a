package config

import "testing"

// covers LIM-02: what providers are known to count is the default.
func TestOutputCounted(t *testing.T) {
	for url, want := range map[string]string{
		"https://api.openai.com/v1":                                 "max_tokens",
		"https://EU.API.OpenAI.com/v1":                              "max_tokens",
		"https://mine.openai.azure.com/openai/v1":                   "max_tokens",
		"https://api.groq.com/openai/v1":                            "max_tokens",
		"https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1": "reserved",
		"http://ec2-1-2-3-4.compute.amazonaws.com:8000/v1":          "auto",
		"https://notapi.openai.com.example/v1":                      "auto",
		"https://fakeapi.openai.com/v1":                             "auto",
		"http://127.0.0.1:8000/v1":                                  "auto",
		"http://ollama:11434/v1":                                    "auto",
		"://":                                                       "auto",
	} {
		if got := outputCounted(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
	c := load(t, `{upstreams: {a: {base_url: "https://api.openai.com/v1"}, b: {base_url: "https://api.openai.com/v1", accounting: {output: actual}}}}`)
	if a, b := c.Upstreams["a"].Accounting.Output, c.Upstreams["b"].Accounting.Output; a != "max_tokens" || b != "actual" {
		t.Errorf("a counts %s, b %s", a, b)
	}
}
