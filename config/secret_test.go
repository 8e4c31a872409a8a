package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// covers LIFE-05, SEC-03: no way of printing a configuration shows a secret.
func TestSecretsAreNeverPrinted(t *testing.T) {
	const secret = "sk-live-secret-0123456789"
	holder := Secret(secret)
	c := Default()
	c.Admin.Token = secret
	c.Upstreams = map[string]Upstream{"a": {APIKey: secret, Headers: map[string]Secret{"X": secret}}}
	c.Teams = map[string]Team{"t": {Keys: []Key{{Name: "k", Key: secret}}}}
	values := []any{holder, &holder, []Secret{secret}, c, &c, c.Upstreams, c.Teams["t"].Keys}

	var texts []string
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10s", "%-30v", "%c", "%U", "%e"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		asJSON, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		asYAML, err := yaml.Dump(v)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		texts = append(texts, string(asJSON), string(asYAML), log.String(), fmt.Sprint(v), fmt.Errorf("%v", v).Error())
	}
	effective, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	texts = append(texts, string(effective))
	for _, text := range texts {
		for _, leak := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), secret[3:10]} {
			if strings.Contains(text, leak) {
				t.Errorf("leaks: %s", text)
			}
		}
	}
	if got := fmt.Sprintf("%v|%#v|%s|%q", holder, holder, Secret(""), c.Admin.Token); got != `***|config.Secret("***")||***` {
		t.Errorf("got %s", got)
	}
	if string(holder) != secret {
		t.Error("the secret itself is lost")
	}
}

// eachSecret visits every field of type Secret, so that none can be forgotten.
func TestEachSecretVisitsAll(t *testing.T) {
	c, err := Load("testdata/good-every-key.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	var count func(v reflect.Value)
	count = func(v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[Secret]():
			want++
		case v.Kind() == reflect.Struct:
			for _, f := range fieldsOf(v.Type()) {
				count(v.Field(f.index))
			}
		case v.Kind() == reflect.Pointer && !v.IsNil():
			count(v.Elem())
		case v.Kind() == reflect.Map:
			for _, key := range v.MapKeys() {
				count(v.MapIndex(key))
			}
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				count(v.Index(i))
			}
		}
	}
	count(reflect.ValueOf(*c))
	got := 0
	c.eachSecret(func(p path, s Secret) Secret {
		got++
		return "replaced-" + s
	})
	if got != want || want < 6 {
		t.Errorf("visited %d of %d secrets", got, want)
	}
	c.eachSecret(func(p path, s Secret) Secret {
		if !strings.HasPrefix(string(s), "replaced-") {
			t.Errorf("%s was not replaced", pathText(p))
		}
		return s
	})
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := write("key", "sk-in-a-file\r\n")
	token := write("token", "the token")
	large := write("large", strings.Repeat("x", maxSecretFile+1))
	config := func(apiKey string) string {
		return write("penstock.yaml", `
admin: {token: "file:`+token+`"}
upstreams:
  a: {base_url: "https://a.example.com", api_key: "`+apiKey+`"}
  b: {base_url: "https://b.example.com", headers: {X-Key: "file:./key"}}
`)
	}
	c, err := Load(config("file:key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Upstreams["a"].APIKey); got != "sk-in-a-file" {
		t.Errorf("api_key %q", got)
	}
	if got := string(c.Upstreams["b"].Headers["X-Key"]); got != "sk-in-a-file" {
		t.Errorf("header %q", got)
	}
	if got := string(c.Admin.Token); got != "the token" {
		t.Errorf("token %q", got)
	}
	if got := c.SecretFiles(); !reflect.DeepEqual(got, []string{key, token}) {
		t.Errorf("secret files %v", got)
	}
	_, err = Load(config("file:"+large), nil)
	if err == nil || !strings.Contains(err.Error(), "larger than 64 KiB") {
		t.Errorf("got %v", err)
	}
	// A path that comes out of a variable is read, but not repeated.
	env := lookupIn(map[string]string{"WHOLE": "file:key", "PART": dir})
	for _, text := range []string{"${WHOLE}", "file:${PART}/key"} {
		if c, err := Load(config(text), env); err != nil || string(c.Upstreams["a"].APIKey) != "sk-in-a-file" {
			t.Errorf("%s: %v", text, err)
		}
	}
}
