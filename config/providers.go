package config

import (
	"net/url"
	"strings"
)

// counting is how providers are known to count output against their limits, by the
// end of their host names. They charge a request's own maximum when it arrives; only
// Bedrock gives back what was not written.
var counting = []struct{ host, output string }{
	{"api.openai.com", "max_tokens"}, // regional ones such as eu.api.openai.com too
	{"openai.azure.com", "max_tokens"},
	{"cognitiveservices.azure.com", "max_tokens"},
	{"services.ai.azure.com", "max_tokens"},
	{"api.groq.com", "max_tokens"},
	{"amazonaws.com", "reserved"},
}

// outputCounted is accounting.output of an upstream that does not say it.
func outputCounted(baseURL string) string {
	u, err := url.Parse(baseURL)
	if err != nil {
		return "auto"
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	for _, c := range counting {
		prefix, ok := strings.CutSuffix(host, c.host)
		if !ok || prefix != "" && !strings.HasSuffix(prefix, ".") {
			continue
		}
		if c.host == "amazonaws.com" && !strings.HasPrefix(host, "bedrock-") {
			continue // a server of one's own
		}
		return c.output
	}
	return "auto"
}
