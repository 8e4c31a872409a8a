package config

import (
	"regexp"
	"strings"
	"unicode"
)

// A validator checks a decoded and completed configuration, and collects what is
// wrong with it.
type validator struct {
	c      *Config
	d      *document
	broken []path // where decoding found faults
	found  faults
}

func newValidator(c *Config, d *document, known faults) *validator {
	v := &validator{c: c, d: d}
	for _, f := range known[:min(len(known), maxProblems)] {
		p, _ := d.find(f.node)
		v.broken = append(v.broken, append(p, f.rest...))
	}
	return v
}

func (v *validator) validate() {
	v.listeners()
	v.settings()
	v.upstreams()
	v.routes()
	v.teams()
	v.usage()
	v.redis()
	v.prices()
}

// bad notes that the value at p is wrong; the message ends with what stands there.
func (v *validator) bad(p path, text string) { v.add(p, fault{text: text, got: gotValue}) }

// unknown notes that the value at p is none of the known names.
func (v *validator) unknown(p path, expected, name string, known []string) {
	if v.full() {
		return
	}
	f := fault{text: "expected " + expected, got: gotValue}
	if near := nearest(name, known); near != "" {
		f.hint = "; did you mean " + near + "?"
	} else if len(known) > 0 && len(known) <= 8 {
		f.hint = "; known: " + strings.Join(known, ", ")
	}
	v.add(p, f)
}

// say notes a problem at p without what stands there, since that says nothing, or
// may be a secret.
func (v *validator) say(p path, text string) { v.add(p, fault{text: text}) }

// name notes that the key at the end of p is wrong.
func (v *validator) name(p path, text string) { v.add(p, fault{text: text, onKey: true}) }

// full says whether more problems would not be shown.
func (v *validator) full() bool { return len(v.found) > maxProblems }

func (v *validator) add(p path, f fault) {
	if v.full() {
		return
	}
	n, inFile, rest := v.d.locate(p)
	whole := append(inFile, rest...)
	for _, q := range v.broken {
		if whole.under(q) || q.under(whole) {
			return // probably a consequence of the fault that is known already
		}
	}
	f.node, f.rest = n, rest
	if len(rest) > 0 {
		f.got = gotSilent
	}
	v.found = append(v.found, f)
}

// stands says whether the file has a value at p.
func (v *validator) stands(p path) bool {
	_, _, rest := v.d.locate(p)
	return len(rest) == 0
}

// whole says whether sections of the file were read without any fault, so that
// other sections can be checked against them.
func (v *validator) whole(sections ...string) bool {
	for _, q := range v.broken {
		if len(q) == 0 {
			return false
		}
		known := false
		for _, f := range rootFields {
			known = known || f.key == q[0]
		}
		if !known {
			return false // a misspelt section may be any
		}
		for _, s := range sections {
			if q[0] == s {
				return false
			}
		}
	}
	return true
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkName returns what is wrong with the name of an upstream, team or key, or "".
func checkName(name string) string {
	switch {
	case name == "other":
		return "the name other is reserved; choose another one"
	case !namePattern.MatchString(name):
		return "expected a name of at most 63 letters, digits, dots, dashes and underscores that begins with a letter or digit"
	}
	return ""
}

// checkModelName returns what is wrong with the name of a model, or "".
func checkModelName(name string) string {
	switch {
	case name == "":
		return "expected the name of a model"
	case len(name) > 256:
		return "expected a model name of at most 256 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "expected a model name without spaces and control characters"
	}
	return ""
}
