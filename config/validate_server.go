package config

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// An address is a listen address: host:port.
type address struct {
	host string // empty for all interfaces
	port int
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252})$`)

func parseAddress(text string) (address, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isDigits(port) {
		return address{}, false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return address{}, false
	}
	ip, _, _ := strings.Cut(host, "%") // without the zone of an IPv6 address
	ok := host == "" || net.ParseIP(ip) != nil || hostPattern.MatchString(host) && !isDigits(strings.ReplaceAll(host, ".", ""))
	return address{host, int(number)}, ok
}

func (a address) loopback() bool {
	ip := net.ParseIP(a.host)
	return a.host == "localhost" || ip != nil && ip.IsLoopback()
}

// Loopback reports whether only this machine reaches the data listener.
func (c *Config) Loopback() bool {
	a, ok := parseAddress(c.Listen)
	return ok && a.loopback()
}

func (a address) all() bool {
	ip := net.ParseIP(a.host)
	return a.host == "" || ip != nil && ip.IsUnspecified()
}

// overlaps says whether both cannot listen at once. Port 0 takes any free port.
func (a address) overlaps(b address) bool {
	return a.port == b.port && a.port != 0 &&
		(a.host == b.host || a.all() || b.all() || a.loopback() && b.loopback())
}

const expectedAddress = "expected host:port, such as 127.0.0.1:8080 or :8080"

func (v *validator) listeners() {
	listen, admin := path{"listen"}, path{"admin", "listen"}
	data, ok := parseAddress(v.c.Listen)
	if !ok {
		v.bad(listen, expectedAddress)
	} else if !data.loopback() && !v.c.InsecureNoAuth && !v.hasKeys() && v.c.Database.URL == "" && v.whole("teams", "insecure_no_auth", "database") {
		hint := "a database to keep keys in, or insecure_no_auth: true"
		if v.d.fromEnvironment() {
			hint = "or PENSTOCK_INSECURE_NO_AUTH=true"
		}
		v.say(listen, "this address is open to other machines, so it needs teams with keys, "+hint)
	}
	v.adminTokens()
	if v.c.Admin.Listen == "off" {
		return
	}
	own, ownOK := parseAddress(v.c.Admin.Listen)
	switch {
	case !ownOK:
		v.bad(admin, expectedAddress+", or off")
	case !own.loopback() && v.c.Admin.Token == "" && len(v.c.Admin.Tokens) == 0 && v.whole("admin"):
		hint := "admin.token"
		if v.d.fromEnvironment() {
			hint = "PENSTOCK_ADMIN_TOKEN"
		}
		v.say(admin, "this address is open to other machines, so it needs "+hint)
	case ok && own.overlaps(data):
		v.say(v.present(admin, listen), fmt.Sprintf("listen and admin.listen both take port %d; choose another for one of them", own.port))
	}
}

// minTokenLength is the least number of bytes of an admin token. The token that
// stands alone may be shorter, as it always might.
const minTokenLength = 16

// adminTokens checks the named tokens.
func (v *validator) adminTokens() {
	names, tokens := map[string]bool{"admin": v.c.Admin.Token != ""}, map[Secret]bool{}
	for i, t := range v.c.Admin.Tokens {
		p := path{"admin", "tokens"}.index(i)
		if text := checkName(t.Name); text != "" {
			v.bad(p.key("name"), text)
		} else if names[t.Name] {
			v.bad(p.key("name"), "another admin token has this name")
		}
		switch {
		case len(t.Token) < minTokenLength:
			v.say(p.key("token"), fmt.Sprintf("an admin token needs at least %d characters", minTokenLength))
		case tokens[t.Token]:
			v.say(p.key("token"), "this is the same token as another one")
		}
		names[t.Name], tokens[t.Token] = true, true
	}
}

// present returns the first of some paths that stands in the file, or the first.
func (v *validator) present(paths ...path) path {
	for _, p := range paths {
		if v.stands(p) {
			return p
		}
	}
	return paths[0]
}

func (v *validator) hasKeys() bool {
	for _, t := range v.c.Teams {
		if len(t.Keys) > 0 {
			return true
		}
	}
	return false
}

// settings checks the sections on the whole process against themselves.
func (v *validator) settings() {
	g, q, r, b := v.c.Gateway, v.c.Queue, v.c.Retry, v.c.Breaker
	notAbove(v, path{"gateway", "max_body"}, g.MaxBody, path{"gateway", "max_memory"}, g.MaxMemory)
	notAbove(v, path{"gateway", "max_replay_bytes"}, g.MaxReplayBytes, path{"gateway", "max_memory"}, g.MaxMemory)
	notAbove(v, path{"queue", "ceiling", "default"}, number(q.Ceiling.Default), path{"queue", "ceiling", "interactive"}, number(q.Ceiling.Interactive))
	notAbove(v, path{"queue", "ceiling", "batch"}, number(q.Ceiling.Batch), path{"queue", "ceiling", "default"}, number(q.Ceiling.Default))
	notAbove(v, path{"retry", "base_delay"}, r.BaseDelay, path{"retry", "max_delay"}, r.MaxDelay)
	notAbove(v, path{"breaker", "open"}, b.Open, path{"breaker", "max_open"}, b.MaxOpen)
	if n := v.c.Tokens.BytesPerToken; n < 0.5 || n > 20 {
		v.bad(path{"tokens", "bytes_per_token"}, "expected a number from 0.5 to 20")
	}
}

// A number is a plain number among the values that notAbove compares.
type number int64

func (n number) String() string { return strconv.FormatInt(int64(n), 10) }

// notAbove notes a problem when low is above high. It lies with the one of them
// that stands in the file.
func notAbove[T interface {
	~int64
	fmt.Stringer
}](v *validator, lowPath path, low T, highPath path, high T) {
	if low <= high {
		return
	}
	if v.stands(lowPath) {
		v.say(lowPath, fmt.Sprintf("%v is more than %s, which is %v", low, highPath[len(highPath)-1], high))
		return
	}
	v.say(highPath, fmt.Sprintf("%v is less than %s, which is %v", high, lowPath[len(lowPath)-1], low))
}
