package main

import (
	"strings"
	"testing"
)

// What people type first on a program they do not know works, or says what would.
func TestFirstWords(t *testing.T) {
	file := write(t, "upstreams: {up: {base_url: \"https://api.example.com/v1\"}}\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"help", 0, "Usage: penstock <command>"},
		{"--help", 0, "Usage: penstock <command>"},
		{"help demo", 0, "Usage: penstock demo [flags]"},
		{"version", 0, "penstock dev"},
		{"--version", 0, "penstock dev"},
		{"check " + file, 0, "https://api.example.com/v1"},
		{"check --config " + file, 0, "https://api.example.com/v1"},
		{file, 2, "penstock --config " + file},
		{"serve " + file, 2, "penstock --config " + file},
		{"start", 2, "unexpected argument start; see penstock --help"},
		{"keys", 2, "see penstock keys --help"},
		{"keys create", 2, "see penstock keys create --help"},
		{"demo --bad", 2, "see penstock demo --help"},
	} {
		code, printed := command(t, nil, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(printed, c.want) {
			t.Errorf("penstock %s: %d %.300s", c.args, code, printed)
		}
	}
}
