package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const jsonTeam = `{
  "weight": 3, "class": "batch", "models": ["gpt-4o", "mini*"], "output": "strict",
  "limits": {"concurrency": 5, "requests": ["10/s", {"limit": 500, "per": "1m", "on_limit": "wait"}], "tokens": "1M/day"}
}`

// A team from JSON is the team that the file would make of the same settings, and
// what is written of it is read again.
func TestTeamFromJSON(t *testing.T) {
	c := load(t, `
upstreams: {a: {base_url: "https://a.example.com"}}
models: {gpt-4o: a}
teams:
  search: `+strings.ReplaceAll(jsonTeam, "\n", " "))
	want := c.Teams["search"]
	got, err := c.TeamFromJSON("search", []byte(jsonTeam))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	want.Keys = []Key{{Name: "prod"}}
	text, err := want.SettingsJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.TeamFromJSON("search", text)
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("%v from %s\ngot  %+v", err, text, again)
	}
	if empty, err := c.TeamFromJSON("search", []byte("{}")); err != nil || empty.Weight != 1 || empty.Class != "default" {
		t.Errorf("without settings: %+v, %v", empty, err)
	}
}

func TestKeyFromJSON(t *testing.T) {
	c := load(t, `upstreams: {a: {base_url: "https://a.example.com"}}`)
	k, err := c.KeyFromJSON("prod", []byte(`{"limits": {"requests": "5/s"}, "expires": "2027-01-01", "disabled": true}`))
	if err != nil {
		t.Fatal(err)
	}
	at, _ := k.ExpiresAt()
	if k.Name != "prod" || k.Hash != "" || !k.Disabled || k.Limits.Requests[0].Burst != 5 || !at.Equal(time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", k)
	}
	text, err := k.SettingsJSON()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.KeyFromJSON("prod", text); err != nil || !reflect.DeepEqual(again, k) {
		t.Errorf("%v from %s: %+v", err, text, again)
	}
}

// covers SEC-05: what does not belong into a team or key is refused, and so are
// limits that would be none.
func TestSettingsFromJSONAreStrict(t *testing.T) {
	c := load(t, `{upstreams: {a: {base_url: "https://a.example.com"}}, models: {gpt-4o: a}}`)
	for _, test := range []struct{ name, team, key, message string }{
		{`{"wieght": 3}`, "wieght", "", "unknown key, did you mean weight?"},
		{`{"keys": []}`, "keys", "", "made apart"},
		{`{"weight": "3"}`, "weight", "", "without quotes"},
		{`{"weight": -1}`, "weight", "", "from 1 to 10000"},
		{`{"weight": 1.5}`, "weight", "", "whole number"},
		{`{"class": "urgent"}`, "class", "", "interactive, default or batch"},
		{`{"limits": {"requests": ["10/s", "-5/min"]}}`, "limits.requests[1]", "", "a rate such as"},
		{`{"limits": {"tokens": {"limit": 5, "per": "1ms"}}}`, "limits.tokens.per", "", "a window from 1s to 31d"},
		{`{"models": ["gpt-5"]}`, "models[0]", "", "a name under models"},
		{`{"weight": 1, "weight": 2}`, "", "", "one JSON object"},
		{`{"weight": 1} {}`, "", "", "one JSON object"},
		{`[]`, "", "", "one JSON object"},
		{strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), "", "", "one JSON object"},
		{`{"expires": ""}`, "", "expires", "leave it out"},
		{`{"expires": "tomorrow"}`, "", "expires", "a date such as"},
		{`{"hash": "x"}`, "", "hash", "not one of the settings"},
		{`{"key": "psk_x"}`, "", "key", "not one of the settings"},
		{`{"weight": 5}`, "", "weight", "unknown key"},
	} {
		if test.team != "" || test.key == "" {
			_, err := c.TeamFromJSON("search", []byte(test.name))
			checkProblem(t, test.name, err, test.team, test.message)
		}
		if test.key != "" {
			_, err := c.KeyFromJSON("prod", []byte(test.name))
			checkProblem(t, test.name, err, test.key, test.message)
		}
	}
	_, err := c.TeamFromJSON("a b", []byte(`{}`))
	checkProblem(t, "team a b", err, "", "letters, digits")
	_, err = c.KeyFromJSON("a/b", []byte(`{}`))
	checkProblem(t, "key a/b", err, "name", "letters, digits")
}

func checkProblem(t *testing.T, what string, err error, key, message string) {
	t.Helper()
	var all Errors
	errors.As(err, &all)
	if len(all) != 1 || all[0].Key != key || !strings.Contains(all[0].Message, message) {
		t.Errorf("%.60s: got %v, want %s: %s", what, err, key, message)
	}
}

func TestParseFlow(t *testing.T) {
	for text, want := range map[string]string{
		"[$5/day, $50/30d]": "[$5/day $50/30d]", "{limit: 2M, per: 1m}": "map[limit:2M per:1m]", "[]": "[]",
		"$5/day": "", "": "", "[a": "", "- a": "", "[a]]": "", "*": "",
	} {
		v, ok := ParseFlow(text)
		if ok != (want != "") || ok && fmt.Sprint(v) != want {
			t.Errorf("%s: got %v, %v", text, v, ok)
		}
	}
}
