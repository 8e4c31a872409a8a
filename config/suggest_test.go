package config

import (
	"testing"

	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	keys := []string{"base_url", "api_key", "limits", "models", "timeouts", "learn", "type"}
	for name, want := range map[string]string{
		"limit": "limits", "apikey": "api_key", "apiKey": "api_key", "API-KEY": "api_key", "baseurl": "base_url", "modles": "models",
		"timeout": "timeouts", "url": "", "x": "", "frobnicate": "", "": "",
	} {
		if got := nearest(name, keys); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	word := rapid.StringMatching(`[abc]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		if d != distance(b, a) {
			t.Fatalf("%q and %q: %d one way, %d the other", a, b, d, distance(b, a))
		}
		if (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
			t.Fatalf("%q and %q: %d", a, b, d)
		}
	})
	if got := distance("hsah", "hash"); got != 1 {
		t.Errorf("a swap costs %d", got)
	}
}
