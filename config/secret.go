package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// A Secret is text that is never printed: every verb of fmt, and the encoders of
// JSON and YAML, show *** in its place. string(s) is the text itself. Keep secrets
// out of unexported struct fields, where fmt cannot see this type's methods.
//
// In the file it is literal text with ${VAR} and ${VAR:-default} expanded, or
// file:/path for the content of a file.
type Secret string

const masked = "***"

// String hides the secret; an empty one stays empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString hides the secret.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// Format hides the secret from every verb, also from those that do not suit text.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		fmt.Fprint(f, s.GoString())
		return
	}
	fmt.Fprint(f, s.String())
}

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML hides the secret.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalYAML reads any scalar but null.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return faults{{node: n, text: "expected text", got: gotKind}}
	}
	*s = Secret(n.Value)
	return nil
}
