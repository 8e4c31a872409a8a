package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// covers LIFE-05: no input makes Load panic; its errors say where, and hold no
// value of a variable; what it accepts, it can write and read again.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds: ", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	const secret = "value-of-a-variable"
	env := func(string) (string, bool) { return secret, true }
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data, "testdata/fuzz.yaml", env)
		if err == nil {
			checkRoundTrip(t, c)
			return
		}
		var all Errors
		if !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("got %v", err)
		}
		checkProblems(t, all, "testdata/fuzz.yaml")
		if strings.Contains(err.Error(), secret) && !strings.Contains(string(data), secret) {
			t.Errorf("leaks: %v", err)
		}
	})
}

// checkRoundTrip checks that the effective configuration loads to the same one.
// Keys of teams are left out, since masking makes them all the same.
func checkRoundTrip(t *testing.T, c *Config) {
	t.Helper()
	c.secretFiles = nil
	for _, team := range c.Teams {
		for i := range team.Keys {
			if team.Keys[i].Key != "" {
				return
			}
		}
	}
	c.eachSecret(func(p path, s Secret) Secret { return Secret(s.String()) })
	text, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse(text, "effective.yaml", nil)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("loads as another configuration:\n%s", text)
	}
}
