package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDefault(t *testing.T) {
	c := Default()
	seconds := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	for _, check := range []struct {
		name      string
		got, want any
	}{
		{"listen", c.Listen, "127.0.0.1:8080"},
		{"admin.listen", c.Admin.Listen, "127.0.0.1:9090"},
		{"log.access", *c.Log.Access, true},
		{"gateway.max_body", c.Gateway.MaxBody, Size(64 << 20)},
		{"gateway.max_output", c.Gateway.MaxOutput, Amount(10e6)},
		{"gateway.max_connections", c.Gateway.MaxConnections, int64(0)},
		{"queue.max_wait", c.Queue.MaxWait, ClassDurations{seconds(10), seconds(60), seconds(6 * 3600)}},
		{"queue.ceiling", c.Queue.Ceiling, ClassPercents{100, 90, 70}},
		{"queue.keepalive", *c.Queue.Keepalive, seconds(10)},
		{"retry", c.Retry, Retry{3, seconds(1) / 4, seconds(8), seconds(20), 20, 10}},
		{"timeouts.connect", *c.Timeouts.Connect, seconds(5)},
		{"timeouts.attempts", *c.Timeouts.Attempts, seconds(600)},
		{"tokens.bytes_per_token", c.Tokens.BytesPerToken, 4.0},
		{"drain", c.Drain, Drain{0, seconds(60)}},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s is %v, want %v", check.name, check.got, check.want)
		}
	}
}

func TestNamedPartsAreComplete(t *testing.T) {
	c := load(t, `
timeouts: {idle: 1m, total: 20m}
upstreams:
  b: {base_url: "https://b.example.com/", timeouts: {idle: 0}, limits: {tokens: 2400/day}}
  a: {base_url: "https://a.example.com"}
models: {m: a}
teams:
  t: {limits: {concurrency: 3, requests: 10/s}, keys: [{name: k, key: 0123456789abcdef, limits: {tokens: {limit: 5, per: 1m, on_limit: wait, burst: 9}}}]}
`)
	a, b, team := c.Upstreams["a"], c.Upstreams["b"], c.Teams["t"]
	if a.Type != "openai" || !*a.StreamUsage || !*a.Learn || a.Accounting != (Accounting{"auto", "counted"}) {
		t.Errorf("upstream a is %+v", a)
	}
	if *a.Timeouts.Idle != Duration(time.Minute) || *a.Timeouts.Total != Duration(20*time.Minute) || *a.Timeouts.Connect != Duration(5*time.Second) {
		t.Errorf("timeouts of a: idle %v, total %v, connect %v", a.Timeouts.Idle, a.Timeouts.Total, a.Timeouts.Connect)
	}
	if *b.Timeouts.Idle != 0 || *b.Timeouts.Total != Duration(20*time.Minute) || b.BaseURL != "https://b.example.com" {
		t.Errorf("upstream b is %+v", b)
	}
	if want := (Rate{2400, Duration(day), 100, "wait", "enforce", ""}); b.Limits.Tokens[0] != want {
		t.Errorf("rate of b is %+v", b.Limits.Tokens[0])
	}
	if want := (Rate{10, Duration(time.Second), 10, "refuse", "enforce", ""}); team.Limits.Requests[0] != want {
		t.Errorf("rate of the team is %+v", team.Limits.Requests[0])
	}
	if want := (Slots{3, "wait", "enforce", ""}); *team.Limits.Concurrency != want {
		t.Errorf("concurrency of the team is %+v", *team.Limits.Concurrency)
	}
	if want := (Rate{5, Duration(time.Minute), 9, "wait", "enforce", ""}); team.Keys[0].Limits.Tokens[0] != want {
		t.Errorf("rate of the key is %+v", team.Keys[0].Limits.Tokens[0])
	}
	if team.Weight != 1 || team.Class != "default" || team.Output != "predicted" {
		t.Errorf("team is %+v", team)
	}
	if r := c.Models["m"]; r.Strategy != "ordered" || r.Targets[0].Weight != 1 {
		t.Errorf("route is %+v", r)
	}
	if c.DefaultUpstream != "a" {
		t.Errorf("default upstream %q", c.DefaultUpstream)
	}
}

// A 0 that stands in the file is not taken for nothing.
func TestExplicitZero(t *testing.T) {
	c := load(t, "retry: {budget: 0, budget_floor: 0}\ntokens: {image: 0}\nqueue: {keepalive: 0}\ntimeouts: {idle: 0}\nlog: {access: false}\n")
	if c.Retry.Budget != 0 || c.Retry.BudgetFloor != 0 || c.Tokens.Image != 0 || *c.Queue.Keepalive != 0 || *c.Timeouts.Idle != 0 || *c.Log.Access {
		t.Errorf("got %+v", c)
	}
}

// Every default in the tags passes the checks of its own tags, and every key has a
// description.
func TestTags(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			check(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] {
			return
		}
		seen[typ] = true
		for _, f := range fieldsOf(typ) {
			if !strings.HasSuffix(f.description, ".") {
				t.Errorf("%v.%s: description %q", typ, f.key, f.description)
			}
			if f.def != "" {
				v := reflect.New(typ)
				var d decoder
				n := textNode(f.def)
				item := v.Elem().Field(f.index)
				n.Style, n.Tag = 0, "!!str"
				d.value(n, item)
				d.bounds(n, item, f)
				if len(d.found) > 0 {
					t.Errorf("%v.%s: default %q: %v", typ, f.key, f.def, d.found)
				}
			}
			check(f.typ)
		}
	}
	check(reflect.TypeFor[Config]())
	if len(seen) < 20 {
		t.Errorf("saw %d types", len(seen))
	}
}

func TestTimeoutsOr(t *testing.T) {
	one, two := Duration(1), Duration(2)
	got := Timeouts{Idle: &one}.Or(Timeouts{Idle: &two, Total: &two})
	if *got.Idle != 1 || *got.Total != 2 || got.Connect != nil {
		t.Errorf("got %+v", got)
	}
}

func TestKeyMoments(t *testing.T) {
	for text, want := range map[string]string{
		"2027-01-01":                "2027-01-02T00:00:00Z",
		"2027-01-01T12:00:00+02:00": "2027-01-01T10:00:00Z",
	} {
		at, ok := Key{Expires: text}.ExpiresAt()
		if got := at.UTC().Format(time.RFC3339); !ok || got != want {
			t.Errorf("%s expires at %s, %v; want %s", text, got, ok, want)
		}
	}
	if _, ok := (Key{}).ExpiresAt(); ok {
		t.Error("a key without a date expires")
	}
}

func TestKeyDigest(t *testing.T) {
	// The hash is that of the text "test".
	hash := "sha256:9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	a, okA := Key{Hash: hash}.Digest()
	b, okB := Key{Key: "test"}.Digest()
	if !okA || !okB || a != b {
		t.Errorf("%x, %v and %x, %v", a, okA, b, okB)
	}
	if _, ok := (Key{Hash: "sha256:abc"}).Digest(); ok {
		t.Error("a malformed hash has a digest")
	}
}

// load writes text to a file and loads it.
func load(t *testing.T, text string) *Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
