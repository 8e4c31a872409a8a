package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/*.want, schema.json and ../docs/configuration.md anew")

// testSecrets must never stand in an error text. They are the values of variables
// and the literal secrets of the files in testdata.
var testSecrets = []string{"sk-from-env", "team-key-from-env", "sk-live-secret", "short-secret", "spaced value", "no/such/place"}

var testEnv = map[string]string{
	"OPENAI_API_KEY":  "sk-from-env-0123456789",
	"SEARCH_TEAM_KEY": "team-key-from-env-0123456789",
	"EMPTY":           "",
	"SPACED":          "spaced value",
	"SPACED_END":      "spaced value ",
	"MULTILINE":       "sk-from-env-0\nsk-from-env-1",
	"FILE_REFERENCE":  "file:no/such/place",
	"DIRECTORY":       "no/such/place",
	"SCHEME":          "https",
	"ATTEMPTS":        "2",
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

// covers LIFE-05: what is wrong in the file is an error with line, key and what was
// expected, all of it at once, and without a secret.
func TestInvalidFiles(t *testing.T) {
	t.Chdir("testdata")
	files, err := filepath.Glob("invalid-*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			env := testEnv
			if name == "invalid-no-upstream.yaml" {
				env = map[string]string{"SEARCH_TEAM_KEY": testEnv["SEARCH_TEAM_KEY"]}
			}
			c, err := Load(name, lookupIn(env))
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 || c != nil {
				t.Fatalf("got %v, %v; want Errors", c, err)
			}
			checkProblems(t, all, name)
			got := err.Error() + "\n"
			for _, secret := range testSecrets {
				if strings.Contains(got, secret) {
					t.Errorf("the error holds %q: %s", secret, got)
				}
			}
			want := strings.TrimSuffix(name, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil || got != string(expected) {
				t.Errorf("got:\n%swant (%v):\n%s", got, err, expected)
			}
		})
	}
}

// checkProblems checks what holds for every list of problems of a file.
func checkProblems(t *testing.T, all Errors, file string) {
	t.Helper()
	for _, p := range all {
		if p.Message == "" || p.File != "environment" && (p.File != file || p.Line < 1 || p.Column < 1) {
			t.Errorf("incomplete problem %#v", p)
		}
		if strings.ContainsAny(p.String(), "\n\r\x00") {
			t.Errorf("problem on several lines: %q", p)
		}
	}
	sorted := slices.IsSortedFunc(all, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if !sorted {
		t.Errorf("problems out of order: %v", all)
	}
}

func TestGoodFiles(t *testing.T) {
	t.Chdir("testdata")
	files, err := filepath.Glob("good-*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(name, lookupIn(testEnv)); err != nil {
				t.Error(err)
			}
		})
	}
}

// covers LIFE-05: a file that cannot be read is an error that names it.
func TestUnreadableFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "nothing.yaml")
	_, err := Load(name, nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v", err)
	}
}

// covers LIFE-04, LIFE-05: a file that is emptied while the process runs is about to
// be written, and no wish to do without keys.
func TestReloadOfAnEmptyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	for text, ok := range map[string]bool{"": false, "\n": false, "# teams below\n": false, "{}": false, "---\n": false, "listen: 127.0.0.1:1\n": true} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name, nil); err != nil {
			t.Errorf("%q at the start: %v", text, err)
		}
		_, err := Reload(name, nil)
		if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), name+":1:1: the file is empty") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Reload(name+"x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestLargeFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large.yaml")
	for size, ok := range map[int]bool{maxFile: true, maxFile + 1: false} {
		if err := os.WriteFile(name, []byte(strings.Repeat("#", size)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name, nil); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// A file that is wrong throughout takes bounded work and gives a bounded text.
func TestManyProblems(t *testing.T) {
	text := "teams:\n" + strings.Repeat(" ? [x]\n : y\n", 50_000)
	_, err := parse([]byte(text), "many.yaml", nil)
	var all Errors
	if !errors.As(err, &all) || len(all) != maxProblems+1 {
		t.Fatalf("%d problems", len(all))
	}
	if last := all[maxProblems].Message; !strings.Contains(last, "more problems") {
		t.Errorf("last message %q", last)
	}
}

// The file that uses every key sets none of them to its default, or to nothing.
func TestEveryKeyIsRead(t *testing.T) {
	c, err := Load("testdata/good-every-key.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	base := Default()
	var check func(at string, got, def reflect.Value)
	check = func(at string, got, def reflect.Value) {
		for _, f := range fieldsOf(got.Type()) {
			a, b := got.Field(f.index), def.Field(f.index)
			if a.Kind() == reflect.Struct {
				check(at+"."+f.key, a, b)
			} else if reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Errorf("%s.%s is %v, its default", at, f.key, a)
			}
		}
	}
	check("", reflect.ValueOf(*c), reflect.ValueOf(base))
}
