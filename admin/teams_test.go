package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/teams"
	"penstock/teams/teamstest"
)

type checks struct{}

func (checks) Team(_ string, settings []byte) error {
	if bytes.Contains(settings, []byte(`"unknown"`)) {
		return &teams.Invalid{Field: "unknown", Message: "unknown key"}
	}
	return nil
}
func (checks) Key(name string, settings []byte) error { return checks{}.Team(name, settings) }

// An apiWorld is an admin API over a store in memory.
type apiWorld struct {
	t     *testing.T
	h     http.Handler
	store *teamstest.Memory
	reg   *teams.Registry
	audit *bytes.Buffer
}

func newAPI(t *testing.T) *apiWorld {
	w := &apiWorld{t: t, store: &teamstest.Memory{}, audit: &bytes.Buffer{}}
	w.reg = teams.New(teams.Parts{Store: w.store, Check: checks{}, Log: slog.New(slog.DiscardHandler), Apply: func(*teams.Set) {}}, teams.File{
		"search": {Settings: []byte(`{"weight":3}`), Keys: map[string][]byte{"prod": []byte(`{}`)}},
	})
	if err := w.reg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	api := &TeamsAPI{Registry: w.reg, Log: slog.New(slog.DiscardHandler), Audit: slog.New(slog.NewJSONHandler(w.audit, nil))}
	w.h = Handler(Config{Tokens: []Token{{"alice", "token-of-alice-12345"}}, Ready: func() bool { return true }, Gatherer: prometheus.NewRegistry(), API: api.Routes()})
	return w
}

// call sends a request of alice's and returns the answer.
func (w *apiWorld) call(want int, method, path, body string) map[string]any {
	w.t.Helper()
	rec := send(w.h, method, path, body, "Authorization", "Bearer token-of-alice-12345")
	if rec.Code != want {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, rec.Code, rec.Body, want)
	}
	return decoded(w.t, rec)
}

func decoded(t *testing.T, rec *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || rec.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	return out
}

// covers SEC-02: a key is shown once, and kept as its hash.
func TestLifeOfAKey(t *testing.T) {
	w := newAPI(t)
	w.call(201, "POST", "/admin/teams", `{"name":"reports","weight":2,"limits":{"requests":"5/s"}}`)
	made := w.call(201, "POST", "/admin/keys", `{"team":"reports","name":"prod","limits":{"requests":"1/s"},"expires":"2030-01-01"}`)
	secret, id := made["key"].(string), made["id"].(string)
	if len(secret) != len("psk_")+43 || !strings.HasPrefix(secret, "psk_") || w.reg.Set().Keys[0].Secrets[0].Hash != sha256.Sum256([]byte(secret)) {
		t.Errorf("key %q is not what is kept", secret)
	}
	shown := w.call(200, "GET", "/admin/keys/"+id, "")
	if shown["key"] != nil || shown["name"] != "prod" || shown["expires"] != "2030-01-01" || shown["source"] != "database" || shown["created"] == nil {
		t.Errorf("shown: %v", shown)
	}
	second := w.call(200, "POST", "/admin/keys/"+id+"/rotate", `{"grace":"1h"}`)["key"].(string)
	if shown = w.call(200, "GET", "/admin/keys/"+id, ""); second == secret || shown["former_valid_until"] == nil {
		t.Errorf("rotated: %v", shown)
	}
	if got := w.call(200, "PATCH", "/admin/keys/"+id, `{"disabled":true,"limits":null}`); got["disabled"] != true || got["limits"] != nil {
		t.Errorf("changed: %v", got)
	}
	if got := w.call(200, "POST", "/admin/keys/"+id+"/revoke", ""); got["revoked"] == nil {
		t.Errorf("revoked: %v", got)
	}
	w.call(404, "GET", "/admin/keys/"+id, "")
	if all := w.call(200, "GET", "/admin/keys?team=reports", "")["keys"].([]any); len(all) != 0 {
		t.Errorf("listed: %v", all)
	}
	for _, query := range []string{"revoked=yes", "teem=reports", "team=a&team=b"} {
		w.call(400, "GET", "/admin/keys?"+query, "")
	}
	if all := w.call(200, "GET", "/admin/keys?team=reports&revoked=true", "")["keys"].([]any); len(all) != 1 {
		t.Errorf("listed with revoked ones: %v", all)
	}
	if got := w.call(200, "POST", "/admin/keys/"+id+"/revoke", ""); got["revoked"] == nil || got["id"] != id {
		t.Errorf("revoked again: %v", got)
	}
	for _, text := range []string{secret, second, secret[4:], "psk_", fmt.Sprintf("%x", sha256.Sum256([]byte(secret)))} {
		if strings.Contains(w.audit.String(), text) {
			t.Errorf("the audit log holds %.12s…", text)
		}
	}
	want := []string{"teams.create", "keys.create", "keys.rotate", "keys.update", "keys.revoke", "keys.revoke"}
	for i, line := range strings.Split(strings.TrimSpace(w.audit.String()), "\n") {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || i >= len(want) || entry["action"] != want[i] || entry["actor"] != "alice" || entry["result"] != "ok" || entry["remote"] == "" {
			t.Errorf("line %d of the audit log: %s", i, line)
		}
	}
}

func TestTeams(t *testing.T) {
	w := newAPI(t)
	w.call(201, "POST", "/admin/teams", `{"name":"reports","weight":2,"limits":{"requests":"5/s","tokens":"1M/min"}}`)
	got := w.call(200, "PATCH", "/admin/teams/reports", `{"limits":{"tokens":null},"class":"batch"}`)
	if limits := got["limits"].(map[string]any); got["class"] != "batch" || got["weight"] != 2.0 || len(limits) != 1 {
		t.Errorf("changed: %v", got)
	}
	w.call(201, "POST", "/admin/keys", `{"team":"reports","name":"prod"}`)
	if all := w.call(200, "GET", "/admin/teams", "")["teams"].([]any); len(all) != 2 || all[0].(map[string]any)["name"] != "reports" || fmt.Sprint(all[0].(map[string]any)["keys"]) != "[prod]" {
		t.Errorf("listed: %v", all)
	}
	if got := w.call(200, "GET", "/admin/teams/search", ""); got["source"] != "file" || got["weight"] != 3.0 {
		t.Errorf("shown: %v", got)
	}
	if e := w.call(409, "DELETE", "/admin/teams/reports", "")["error"].(map[string]any); e["code"] != "conflict" || e["param"] != "keys" || !strings.Contains(e["message"].(string), "the team has 1 key; revoke it first") {
		t.Errorf("refused: %v", e)
	}
	w.call(200, "DELETE", "/admin/teams/reports?keys=revoke", "")
	w.call(404, "GET", "/admin/teams/reports", "")
	w.call(404, "GET", "/admin/keys?team=reports", "")
	if all := w.call(200, "GET", "/admin/keys?team=reports&revoked=true", "")["keys"].([]any); len(all) != 1 {
		t.Errorf("of a team that is gone: %v", all)
	}
}

func TestRefusalsOfTheAPI(t *testing.T) {
	w := newAPI(t)
	w.call(201, "POST", "/admin/teams", `{"name":"reports"}`)
	for _, c := range []struct {
		status                         int
		method, path, body, code, text string
	}{
		{409, "POST", "/admin/teams", `{"name":"search"}`, "exists", "stands in the configuration file"},
		{409, "POST", "/admin/teams", `{"name":"reports"}`, "exists", "has this name"},
		{409, "PATCH", "/admin/teams/search", `{"weight":9}`, "in_configuration_file", "change it there and reload"},
		{409, "DELETE", "/admin/teams/search", ``, "in_configuration_file", "team search"},
		{409, "POST", "/admin/keys/file:search:prod/revoke", ``, "in_configuration_file", "key prod of team search"},
		{409, "POST", "/admin/keys", `{"team":"search","name":"prod"}`, "exists", "stands in the configuration file"},
		{400, "POST", "/admin/keys", `{"team":"nobody","name":"prod"}`, "invalid_value", "there is no team"},
		{400, "POST", "/admin/keys", `{"name":"prod"}`, "invalid_value", "team: expected text"},
		{400, "POST", "/admin/teams", `{"name":7}`, "invalid_value", "name: expected text"},
		{400, "POST", "/admin/teams", `{"name":"x","unknown":1}`, "invalid_value", "unknown key"},
		{400, "POST", "/admin/teams", `{"name":"x","weight":1,"weight":2}`, "invalid_body", "no name stands twice"},
		{400, "PATCH", "/admin/teams/reports", `{"unknown":1}`, "invalid_value", "unknown key"},
		{400, "DELETE", "/admin/teams/reports?keys=all", ``, "invalid_value", "expected revoke"},
		{400, "DELETE", "/admin/teams/reports?key=revoke", ``, "invalid_value", "expected each of keys"},
		{400, "GET", "/admin/teams?name=reports", ``, "invalid_value", "no parameters"},
		{404, "GET", "/admin/keys?team=nobody", ``, "not_found", "no team of that name"},
		{404, "GET", "/admin/keys?team=nobody&revoked=true", ``, "not_found", "no team of that name"},
		{404, "PATCH", "/admin/teams/nobody", `{}`, "not_found", "none of that name"},
		{404, "POST", "/admin/keys/key_0/rotate", ``, "not_found", "none of that name or id"},
		{405, "PUT", "/admin/keys/key_0", `{}`, "method_not_allowed", "takes GET, PATCH"},
	} {
		e := w.call(c.status, c.method, c.path, c.body)["error"].(map[string]any)
		if e["code"] != c.code || !strings.Contains(e["message"].(string), c.text) || e["type"] != "invalid_request_error" {
			t.Errorf("%s %s %s: %v", c.method, c.path, c.body, e)
		}
	}
	made := w.call(201, "POST", "/admin/keys", `{"team":"search","name":"dev"}`)
	for _, status := range []int{200, 200, 200, 409} { // three former secrets are good at once
		if e := w.call(status, "POST", "/admin/keys/"+made["id"].(string)+"/rotate", `{"grace":"1h"}`); status == 409 && e["error"].(map[string]any)["param"] != "grace" {
			t.Errorf("a fourth: %v", e)
		}
	}
	for _, body := range []string{`{"grace":"-1h"}`, `{"grace":"721h"}`, `{"grace":5}`, `{"grave":"1h"}`} {
		w.call(400, "POST", "/admin/keys/"+made["id"].(string)+"/rotate", body)
	}
	w.store.Break(errors.New("password of the database: hunter2"))
	e := w.call(503, "POST", "/admin/teams", `{"name":"late"}`)["error"].(map[string]any)
	if e["code"] != "database_unavailable" || e["type"] != "server_error" || strings.Contains(fmt.Sprint(e), "hunter2") {
		t.Errorf("without the database: %v", e)
	}
	if strings.Count(w.audit.String(), "admin change refused") < 18 {
		t.Errorf("refusals are not in the audit log:\n%s", w.audit)
	}
}

// A key that somebody puts in the wrong place is not logged.
func TestMisplacedKeysAreNotLogged(t *testing.T) {
	w := newAPI(t)
	const secret = "psk_misplaced-0123456789-0123456789-01234567"
	w.call(404, "POST", "/admin/keys/"+secret+"/revoke", "")
	w.call(400, "POST", "/admin/keys", `{"team":"search","name":"x","unknown":"`+secret+`"}`)
	w.call(400, "POST", "/admin/keys/key_0/rotate", `{"`+secret+`":1}`)
	if strings.Contains(w.audit.String(), secret) {
		t.Error(w.audit)
	}
}

// covers SEC-04, SEC-05, SEC-06: every route of the API needs an admin token; no
// client key opens any, so whatever is made or changed, an admin did it.
func TestEveryRouteOfTheAPIIsForAdmins(t *testing.T) {
	w := newAPI(t)
	made := w.call(201, "POST", "/admin/keys", `{"team":"search","name":"dev"}`)
	key := made["key"].(string)
	admin := map[string]bool{
		"GET /admin/teams": true, "POST /admin/teams": true, "GET /admin/teams/{name}": true, "PATCH /admin/teams/{name}": true, "DELETE /admin/teams/{name}": true,
		"GET /admin/keys": true, "POST /admin/keys": true, "GET /admin/keys/{id}": true, "PATCH /admin/keys/{id}": true,
		"POST /admin/keys/{id}/rotate": true, "POST /admin/keys/{id}/revoke": true,
	}
	before := w.reg.Set().Version
	for _, r := range (&TeamsAPI{}).Routes() {
		if !admin[r.Pattern] || r.Open {
			t.Errorf("%s has no row in this table", r.Pattern)
		}
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.NewReplacer("{name}", "search", "{id}", made["id"].(string)).Replace(path)
		for role, headers := range map[string][]string{
			"none": nil, "key": {"Authorization", "Bearer " + key}, "key elsewhere": {"X-Api-Key", key},
			"token elsewhere": {"X-Api-Key", "token-of-alice-12345"}, "longer token": {"Authorization", "Bearer token-of-alice-123456"},
		} {
			if rec := send(w.h, method, path, "{}", headers...); rec.Code != http.StatusUnauthorized || decoded(t, rec)["error"] == nil {
				t.Errorf("%s as %s: %d", r.Pattern, role, rec.Code)
			}
		}
	}
	if w.reg.Set().Version != before {
		t.Error("something was changed")
	}
}
