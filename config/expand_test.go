package config

import (
	"strings"
	"testing"
)

func TestExpandText(t *testing.T) {
	env := lookupIn(map[string]string{"A": "one", "_b2": "two", "EMPTY": "", "DOLLAR": "${A}"})
	good := map[string]string{
		"${A}": "one", "x${A}y${_b2}z": "xoneytwoz", "$A $$ $": "$A $$ $", "$${A}": "${A}", "$$${A}": "$${A}",
		"${NONE:-d}": "d", "${EMPTY:-d}": "d", "${A:-d}": "one", "${NONE:-}": "", "${NONE:-a:-b}": "a:-b",
		"${DOLLAR}": "${A}", "": "", "$${": "${", "a$${b}${A}": "a${b}one",
	}
	for text, want := range good {
		if got, err := expandText(text, env); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	bad := map[string]string{
		"${NONE}": "NONE is not set", "${EMPTY}": "EMPTY is empty", "${": "not closed", "x${A": "not closed",
		"${}": "expected ${NAME}", "${1A}": "expected ${NAME}", "${A B}": "expected ${NAME}", "${A:?x}": "expected ${NAME}",
		"${NONE:-${A}}": "another variable",
	}
	for text, want := range bad {
		if got, err := expandText(text, env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

// Variables cannot change the shape of the file, and count with its size.
func TestExpandedValues(t *testing.T) {
	env := map[string]string{"LIST": "[a, b]", "NULL": "null", "BIG": strings.Repeat("x", 1<<20)}
	for text, want := range map[string]string{
		"upstreams: ${LIST}":                                  "expected a mapping",
		"retry: {max_attempts: '${NULL}'}":                    "expected a whole number",
		"default_upstream: ${NULL}":                           `expected the name of an upstream, got "${NULL}"`,
		"log: {level: '" + strings.Repeat("${BIG}", 5) + "'}": "more than 4 MiB",
	} {
		_, err := parse([]byte(text), "penstock.yaml", lookupIn(env))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %.200v, want %q", text, err, want)
		}
	}
}
