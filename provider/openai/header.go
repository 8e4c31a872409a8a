package openai

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"penstock/provider"
)

// hopByHop are the headers that concern one connection (RFC 9110, section 7.6.1),
// and what the transport sets itself.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Content-Length": true, "Host": true, "Expect": true,
}

// credentials are what identifies a client, or its account, to its provider.
var credentials = map[string]bool{
	"Authorization": true, "X-Api-Key": true, "Api-Key": true, "X-Goog-Api-Key": true, "Cookie": true,
	"Openai-Organization": true, "Openai-Project": true,
}

// accounts are answer headers that name our account at the provider.
var accounts = map[string]bool{"Set-Cookie": true, "Openai-Organization": true, "Openai-Project": true}

const (
	ownPrefix      = "X-Penstock-"
	upstreamPrefix = "X-Upstream-"
)

// connectionOptions are the headers that a Connection header declares hop-by-hop.
func connectionOptions(h http.Header) map[string]bool {
	var out map[string]bool
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
			if name == "" || strings.EqualFold(name, "close") || strings.EqualFold(name, "keep-alive") {
				continue
			}
			if out == nil {
				out = make(map[string]bool)
			}
			out[name] = true
		}
	}
	return out
}

// requestHeader is what an upstream gets of a client's header.
func requestHeader(t *provider.Target, c *provider.Call) http.Header {
	options := connectionOptions(c.Header)
	out := make(http.Header, len(c.Header)+2)
	for name, values := range c.Header {
		switch {
		case hopByHop[name], options[name], strings.HasPrefix(name, ownPrefix):
		case !t.Forward && credentials[name]:
		case name == "Accept-Encoding" && c.Op.Metered: // its answer has to be read
		case name == "Idempotency-Key", name == "X-Idempotency-Key":
			// Under its canonical name it makes net/http replay requests by
			// itself; header names are case-insensitive for everybody else.
			out[strings.ToLower(name)] = values
		default:
			out[name] = values
		}
	}
	for name, values := range t.Headers {
		out[name] = values
	}
	if t.Credential != "" {
		out["Authorization"] = []string{"Bearer " + t.Credential}
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = nil // keep net/http from adding its own
	}
	return out
}

// replyHeader is what a client gets of an upstream's header. The upstream's rate
// limits are renamed, because they are not the caller's, except where the caller's
// own credential was used.
func replyHeader(t *provider.Target, h http.Header) http.Header {
	options := connectionOptions(h)
	out := make(http.Header, len(h)+8)
	for name, values := range h {
		switch {
		case hopByHop[name], options[name], strings.HasPrefix(name, ownPrefix), strings.HasPrefix(name, upstreamPrefix):
		case !t.Forward && accounts[name]:
		case leaks(values, t.Credential):
		case isRateLimit(name):
			out[upstreamPrefix+strings.TrimPrefix(name, "X-")] = values
			if t.Forward {
				out[name] = values
			}
		default:
			out[name] = values
		}
	}
	return out
}

func isRateLimit(name string) bool {
	return strings.HasPrefix(name, "X-Ratelimit-") || strings.HasPrefix(name, "Anthropic-Ratelimit-")
}

func leaks(values []string, secret string) bool {
	if len(secret) < minSecret {
		return false
	}
	for _, v := range values {
		if strings.Contains(v, secret) {
			return true
		}
	}
	return false
}

// secretParams are query parameters that carry a credential.
var secretParams = []string{"key", "api_key", "api-key", "access_token"}

// cleanQuery drops credentials from a raw query and leaves the rest as it is.
func cleanQuery(raw string) string {
	if raw == "" {
		return ""
	}
	kept := make([]string, 0, 4)
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !isSecretParam(plain) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

func isSecretParam(name string) bool {
	for _, p := range secretParams {
		if strings.EqualFold(name, p) {
			return true
		}
	}
	return false
}
