package config

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func (v *validator) upstreams() {
	for _, name := range sortedKeys(v.c.Upstreams) {
		u, p := v.c.Upstreams[name], path{"upstreams", name}
		if text := checkName(name); text != "" {
			v.name(p, text)
		}
		v.baseURL(p.key("base_url"), u.BaseURL)
		v.headers(p, u)
		v.limits(p.key("limits"), u.Limits, true)
		for _, model := range sortedKeys(u.Models) {
			at := p.key("models").key(model)
			if text := checkModelName(model); text != "" {
				v.name(at, text)
			} else if strings.Contains(model, "*") {
				v.name(at, "limits belong to one model; * is no pattern here")
			}
			v.limits(at.key("limits"), u.Models[model].Limits, true)
		}
	}
	if name := v.c.DefaultUpstream; name != "" && v.whole("upstreams") {
		if _, ok := v.c.Upstreams[name]; !ok {
			v.unknown(path{"default_upstream"}, "the name of an upstream", name, sortedKeys(v.c.Upstreams))
		}
	}
}

func (v *validator) baseURL(p path, text string) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"):
		// Never shown: what stands before the @ is most likely a password.
		v.say(p, "expected a URL without user name and password; the key belongs in api_key")
	case strings.ContainsAny(text, "?#"):
		v.say(p, "expected a URL without query (?) and fragment (#)")
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", !isPort(u.Port()),
		strings.ContainsFunc(text, unicode.IsSpace):
		v.bad(p, "expected an http or https URL")
	case v.isOwn(u):
		v.bad(p, "expected the address of a provider, not the one that Penstock itself listens on")
	}
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && n > 0
}

// isOwn says whether a URL leads back to a listener of this process: to that for
// data for ever, and to that for administration with the keys of clients.
func (v *validator) isOwn(u *url.URL) bool {
	port, _ := strconv.Atoi(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
	to := address{host: strings.ToLower(u.Hostname()), port: port}
	for _, listen := range [...]string{v.c.Listen, v.c.Admin.Listen} {
		own, ok := parseAddress(listen) // off is none
		if ok && own.port == port && (to.host == strings.ToLower(own.host) || to.all() || to.loopback() && (own.loopback() || own.all())) {
			return true
		}
	}
	return false
}

// ownHeaders are those that the gateway and its transport set themselves:
// hop-by-hop headers (RFC 9110 section 7.6.1), the framing and the host.
var ownHeaders = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true,
	"proxy-authorization": true, "te": true, "trailer": true, "transfer-encoding": true,
	"upgrade": true, "host": true, "content-length": true,
}

func (v *validator) headers(p path, u Upstream) {
	at := p.key("headers")
	seen := map[string]string{}
	for _, name := range sortedKeys(u.Headers) {
		lower := strings.ToLower(name)
		switch {
		case !isToken(name):
			// The name is not shown: it may be a whole header line, key included.
			v.say(at, "the name of a header here is not valid; expected a mapping of names such as OpenAI-Project to values")
		case ownHeaders[lower]:
			v.name(at.key(name), "this header is set by Penstock itself and cannot be given")
		case lower == "authorization" && u.APIKey != "":
			v.name(at.key(name), "api_key sets this header already; leave one of them out")
		case seen[lower] != "":
			v.name(at.key(name), "is given twice, also as "+seen[lower])
		}
		seen[lower] = name
	}
}

// isToken says whether a text can be the name of a header (RFC 9110 section 5.6.2).
func isToken(text string) bool {
	for _, c := range []byte(text) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return text != ""
}

func (v *validator) routes() {
	names := sortedKeys(v.c.Upstreams)
	for _, model := range sortedKeys(v.c.Models) {
		p := path{"models", model}
		if text := checkModelName(model); text != "" {
			v.name(p, text)
		} else if model != "*" && strings.Contains(model, "*") {
			v.name(p, "only the name * alone stands for other models; list each model by its whole name")
		}
		targets := v.c.Models[model].Targets
		if len(targets) == 0 {
			v.say(p, "a route needs at least one upstream")
		}
		for i, t := range targets {
			at := p.key("targets").index(i)
			if _, ok := v.c.Upstreams[t.Upstream]; !ok && v.whole("upstreams") {
				v.unknown(at.key("upstream"), "the name of an upstream", t.Upstream, names)
			}
			if text := checkModelName(t.Model); t.Model != "" && text != "" {
				v.bad(at.key("model"), text)
			}
			if twin := slices.IndexFunc(targets[:i], func(o RouteTarget) bool {
				return o.Upstream == t.Upstream && cmp.Or(o.Model, model) == cmp.Or(t.Model, model)
			}); twin >= 0 {
				v.say(at, fmt.Sprintf("this is the same target as %s; list it once; retries need no second, and weight gives it a larger share", pathText(p.key("targets").index(twin))))
			}
		}
	}
}
