package openai

import (
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"penstock/provider"
)

// A role is what a header is for, where it does not simply pass.
type role uint8

const (
	// hopByHop headers concern one connection (RFC 9110, section 7.6.1), or are set by
	// the transport itself.
	hopByHop role = 1 << iota
	// ofHost are answer headers that speak of the upstream's host, and would be taken
	// for the gateway's.
	ofHost
	// credential headers identify a client, or its account, to its provider. Browsers
	// send keys in Sec-WebSocket-Protocol.
	credential
	// override headers are those by which some servers take a request for another one
	// than its first line says, and so for another one than was admitted.
	override
	// account headers of an answer name our account at the provider.
	account
)

// roles are looked up once for each header of a request and of an answer.
var roles = map[string]role{
	"Connection": hopByHop, "Keep-Alive": hopByHop, "Proxy-Authenticate": hopByHop, "Proxy-Authorization": hopByHop,
	"Proxy-Connection": hopByHop, "Te": hopByHop, "Trailer": hopByHop, "Transfer-Encoding": hopByHop, "Upgrade": hopByHop,
	"Content-Length": hopByHop, "Host": hopByHop, "Expect": hopByHop,

	"Alt-Svc": ofHost, "Strict-Transport-Security": ofHost,

	"Authorization": credential, "X-Api-Key": credential, "Api-Key": credential, "X-Goog-Api-Key": credential, "Cookie": credential,
	"Openai-Organization": credential | account, "Openai-Project": credential | account, "Sec-Websocket-Protocol": credential,
	"Set-Cookie": account,

	"X-Http-Method-Override": override, "X-Http-Method": override, "X-Method-Override": override,
	"X-Original-Url": override, "X-Rewrite-Url": override,
}

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
	out := make(http.Header, len(c.Header))
	for name, values := range c.Header {
		switch is := roles[name]; {
		case is&(hopByHop|override) != 0, options[name], strings.HasPrefix(name, ownPrefix):
		case !t.Forward && (is&credential != 0 || leaks(values, c.Credential)):
		case name == "Accept-Encoding" && (c.Op.Metered || t.Credential != ""): // its answer has to be read
		case name == "Content-Type":
			out[name] = contentType(c, values)
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
	if c.ObjectEnd > 0 && out["Content-Type"] == nil {
		out["Content-Type"] = []string{"application/json"}
	}
	if t.Credential != "" {
		out["Authorization"] = []string{"Bearer " + t.Credential}
	}
	if c.Upgrade {
		upgradeHeader(out, t, c)
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = nil // keep net/http from adding its own
	}
	return out
}

// contentType is the type of what is sent. A body that was read as JSON says so:
// there are servers that read it as a form, or in another character set, and find
// another model in it.
func contentType(c *provider.Call, values []string) []string {
	if c.ObjectEnd == 0 || values[0] == "application/json" {
		return values[:1]
	}
	kind, params, err := mime.ParseMediaType(values[0])
	charset := strings.ToLower(params["charset"])
	if err == nil && strings.HasSuffix(kind, "json") && (charset == "" || charset == "utf-8" || charset == "us-ascii") {
		return values[:1]
	}
	return []string{"application/json"}
}

// replyHeader is what a client gets of an upstream's header. The upstream's rate
// limits are renamed, because they are not the caller's, except where the caller's
// own credential was used.
func replyHeader(t *provider.Target, h http.Header) http.Header {
	options, secrets := connectionOptions(h), SecretsOf(t)
	out := make(http.Header, len(h))
	for name, values := range h {
		switch is := roles[name]; {
		case is&hopByHop != 0, options[name], strings.HasPrefix(name, ownPrefix), strings.HasPrefix(name, upstreamPrefix):
		case !t.Forward && is&account != 0:
		case is&ofHost != 0, strings.HasPrefix(name, "Access-Control-"): // which pages may read it is the gateway's to say
		case leaksAny(values, secrets):
		case name == "Location":
			if at := location(t, values[0]); at != "" {
				out[name] = []string{at}
			}
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

// location is where a redirect leads from the gateway: to the same path there, where
// it leads to the upstream's API; nowhere, where it leads elsewhere on that host.
func location(t *provider.Target, value string) string {
	u, err := url.Parse(value)
	if err != nil || t.BaseURL == nil {
		return ""
	}
	if u.Host != "" && !strings.EqualFold(u.Hostname(), t.BaseURL.Hostname()) {
		return value // such as the storage that keeps a file
	}
	if u.Host == "" && !strings.HasPrefix(u.Path, "/") {
		return value
	}
	rest, ok := strings.CutPrefix(u.EscapedPath(), t.BaseURL.EscapedPath())
	if !ok || !strings.HasPrefix(rest, "/") {
		return ""
	}
	if u.RawQuery != "" {
		rest += "?" + u.RawQuery
	}
	return "/v1" + rest
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

func leaksAny(values []string, secrets [][]byte) bool {
	for _, s := range secrets {
		for _, v := range values {
			if len(v) >= len(s) && strings.Contains(v, string(s)) {
				return true
			}
		}
	}
	return false
}

// secretParams are query parameters that carry a credential.
var secretParams = []string{"key", "api_key", "api-key", "access_token"}

// cleanQuery drops credentials from a raw query and leaves the rest as it is.
func cleanQuery(raw, credential string) string {
	if raw == "" {
		return ""
	}
	kept := make([]string, 0, 4)
	for part := range strings.SplitSeq(raw, "&") {
		secret := false
		for sub := range strings.SplitSeq(part, ";") { // a separator too, for some servers
			secret = secret || isSecretParam(sub, credential)
		}
		if !secret {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// isSecretParam reports whether name=value is a credential, or cannot be told from
// one because its escapes are broken.
func isSecretParam(param, credential string) bool {
	name, value, _ := strings.Cut(param, "=")
	name, err := url.QueryUnescape(name)
	if err != nil {
		return true
	}
	if plain, err := url.QueryUnescape(value); err == nil {
		value = plain
	}
	if leaks([]string{name, value}, credential) {
		return true
	}
	for _, p := range secretParams {
		if strings.EqualFold(name, p) {
			return true
		}
	}
	return false
}
