package keys

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/database/databasetest"
	"penstock/e2e/harness"
	"penstock/limits/redisstore/redistest"
	"penstock/simulate"
)

// A replica is a gateway whose admin API a test speaks to.
type replica struct {
	*harness.Gateway
	t testing.TB
}

func start(t testing.TB, upstream, database string, more ...string) *replica {
	t.Helper()
	return &replica{t: t, Gateway: harness.Start(t, fmt.Sprintf(`
log: {access: false}
upstreams: {up: {base_url: %q, api_key: sk-of-the-gateway}}
models: {m: up}
database: {url: %q}
teams: {ops: {keys: [{name: file, key: psk_of-the-file-0123456789}]}}
%s
`, upstream, database, strings.Join(more, "\n")))}
}

// api calls the admin API; want is the status that is expected.
func (r *replica) api(want int, method, path string, in any) map[string]any {
	r.t.Helper()
	status, out, err := r.ask(method, path, in)
	if err != nil || status != want {
		r.t.Fatalf("%s %s: %d, %v %v, want %d", method, path, status, out, err, want)
	}
	return out
}

func (r *replica) ask(method, path string, in any) (status int, out map[string]any, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, r.Admin+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, out, json.Unmarshal(answer, &out)
}

// use sends a request with a key in a header, and returns the status.
func (r *replica) use(header, value string) int {
	r.t.Helper()
	req, err := http.NewRequest("POST", r.URL+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(header, value)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func (r *replica) key(key string) int {
	r.t.Helper()
	return r.use("Authorization", "Bearer "+key)
}

// soon waits until the key gets that status, which is to be within a second.
func (r *replica) soon(t *harness.Round, what, key string, want int) {
	t.Helper()
	begin := time.Now()
	what = fmt.Sprintf("%s answers %d", what, want)
	harness.Eventually(t, 30*time.Second, what, func() bool { return r.key(key) == want })
	took := time.Since(begin)
	t.Logf("%s after %v", what, took.Round(time.Millisecond))
	t.AtMost(time.Second, took, "that "+what)
}

func provider(t testing.TB) string {
	return harness.Serve(t, simulate.New(simulate.Config{TTFT: simulate.NoWait, TokenTime: simulate.NoWait, OutputTokens: 4, APIKey: "sk-of-the-gateway"})) + "/v1"
}

// covers SEC-08: two gateways on one database, each of its kinds.
func TestChangesReachTheOtherGateway(t *testing.T) {
	for kind, url := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return filepath.Join(t.TempDir(), "penstock.db") },
		"postgres": databasetest.Postgres,
	} {
		t.Run(kind, func(t *testing.T) {
			harness.Rounds(t, func(t *harness.Round) { changesReachTheOther(t, url(t)) })
		})
	}
}

func changesReachTheOther(t *harness.Round, db string) {
	up := provider(t)
	a, b := start(t, up, db), start(t, up, db)
	a.api(201, "POST", "/admin/teams", map[string]any{"name": "search", "weight": 2})
	made := a.api(201, "POST", "/admin/keys", map[string]any{"team": "search", "name": "prod"})
	key, id := made["key"].(string), made["id"].(string)
	if code := a.key(key); code != 200 {
		t.Errorf("where it was made: %d", code)
	}
	b.soon(t, "a new key at the other gateway", key, 200)
	for _, header := range []string{"X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		if code := b.use(header, key); code != 200 {
			t.Errorf("in %s: %d", header, code)
		}
	}
	b.api(200, "PATCH", "/admin/keys/"+id, map[string]any{"disabled": true})
	a.soon(t, "a disabled key", key, 401)
	b.api(200, "PATCH", "/admin/keys/"+id, map[string]any{"disabled": false})
	a.soon(t, "an enabled key", key, 200)
	fresh := a.api(200, "POST", "/admin/keys/"+id+"/rotate", map[string]any{"grace": "0s"})["key"].(string)
	b.soon(t, "a rotated key", fresh, 200)
	b.soon(t, "its former secret", key, 401)
	a.api(200, "PATCH", "/admin/teams/search", map[string]any{"models": []string{"other*"}})
	b.soon(t, "a model that is not allowed any more", fresh, 403)
	a.api(200, "PATCH", "/admin/teams/search", map[string]any{"models": nil})
	b.soon(t, "a model that is allowed again", fresh, 200)
	expires := time.Now().Add(2 * time.Second).Truncate(time.Second)
	a.api(200, "PATCH", "/admin/keys/"+id, map[string]any{"expires": expires.UTC().Format(time.RFC3339)})
	harness.Eventually(t, 30*time.Second, "an expired key is refused", func() bool { return b.key(fresh) == 401 })
	t.AtMost(time.Second, time.Since(expires), "the refusal of an expired key")
	a.api(200, "POST", "/admin/keys/"+id+"/revoke", nil)
	for _, g := range []*replica{a, b} {
		if code := g.key("psk_of-the-file-0123456789"); code != 200 {
			t.Errorf("the file's key: %d", code)
		}
		if strings.Contains(g.Logs(), key) || strings.Contains(g.Logs(), fresh) {
			t.Error("a key is in the log")
		}
	}
}

// covers DB-05: while the database is away, what is known stays in force, changes
// are refused, and a metric says so.
func TestDatabaseGoesAway(t *testing.T) {
	harness.Rounds(t, databaseGoesAway)
}

func databaseGoesAway(t *harness.Round) {
	url, stop, again := stoppable(t)
	a := start(t, provider(t), url)
	a.api(201, "POST", "/admin/teams", map[string]any{"name": "search"})
	key := a.api(201, "POST", "/admin/keys", map[string]any{"team": "search", "name": "prod"})["key"].(string)
	stop()
	cut := time.Now()
	harness.Eventually(t, 30*time.Second, "the metric tells", func() bool { return a.Metric(t, "penstock_teams_store_up") == 0 })
	t.AtMost(5*time.Second, time.Since(cut), "telling by the metric")
	for range 20 {
		if code := a.key(key); code != 200 {
			t.Fatalf("a known key without the database: %d", code)
		}
	}
	begin := time.Now()
	if out := a.api(503, "POST", "/admin/teams", map[string]any{"name": "late"}); !strings.Contains(fmt.Sprint(out), "database_unavailable") {
		t.Errorf("a change without the database: %v", out)
	}
	t.AtMost(6*time.Second, time.Since(begin), "refusing a change without the database")
	harness.Eventually(t, 30*time.Second, "the log tells", func() bool { return strings.Contains(a.Logs(), "the last known ones stay in force") })
	again()
	back := time.Now()
	harness.Eventually(t, 60*time.Second, "the database is used again", func() bool { return a.Metric(t, "penstock_teams_store_up") == 1 })
	t.AtMost(10*time.Second, time.Since(back), "using the database again")
	a.api(201, "POST", "/admin/teams", map[string]any{"name": "late"})
}

// covers SEC-08: with Redis, the other gateway is told of a change; it would look a little later
// anyway.
func TestChangesAreAnnouncedByRedis(t *testing.T) {
	harness.Rounds(t, changesAreAnnounced)
}

func changesAreAnnounced(t *harness.Round) {
	server := redistest.Start(t)
	up, db := provider(t), databasetest.Postgres(t)
	redis := fmt.Sprintf("redis: {url: %q}", "redis://"+server.Addr)
	a, b := start(t, up, db, redis), start(t, up, db, redis)
	a.api(201, "POST", "/admin/teams", map[string]any{"name": "search"})
	for i := range 5 {
		made := a.api(201, "POST", "/admin/keys", map[string]any{"team": "search", "name": fmt.Sprint("k", i)})
		b.soon(t, "an announced key", made["key"].(string), 200)
		a.api(200, "POST", "/admin/keys/"+made["id"].(string)+"/revoke", nil)
		b.soon(t, "a key whose end was announced", made["key"].(string), 401)
	}
	server.Kill()
	key := a.api(201, "POST", "/admin/keys", map[string]any{"team": "search", "name": "late"})["key"].(string)
	b.soon(t, "a key made without Redis", key, 200)
}
