// Package stack starts what the client suites run against: the real gateway in
// front of simulated providers, one for each way in which a provider behaves.
package stack

import (
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"penstock/auth"
	"penstock/e2e/harness"
	"penstock/simulate"
)

// Credentials. The clients' keys are what the gateway knows them by; the upstream
// key is the gateway's own, which no client may ever see.
const (
	ClientKey   = "psk_client-key-of-the-end-to-end-tests"
	LimitedKey  = "psk_limited-key-of-the-end-to-end-tests"
	NarrowKey   = "psk_narrow-key-of-the-end-to-end-tests"
	UpstreamKey = "sk-upstream-secret-of-the-end-to-end-tests"
)

// Model names that clients use.
const (
	Model       = "gpt-4o"           // served by main under its own name
	Alias       = "alias"            // served by main as AliasTarget
	AliasTarget = "gpt-4o-mini-2024" // never seen by clients' requests
	Faulty      = "faulty"           // one upstream, which obeys x-simulate; faulty-0 to faulty-9 are further models of it
	Shaky       = "shaky"            // one upstream, whose rules a test sets
	FailStatus  = "fail-status"      // first upstream answers 503, second is main
	FailStream  = "fail-stream"      // first upstream fails behind a 200, second is main
	Unreachable = "unreachable"      // nobody listens there
	Hanging     = "hanging"          // short time limits; the upstream obeys x-simulate
	WrongKey    = "wrong-key"        // the upstream refuses the gateway's key
	Raw         = "raw"              // one upstream, which answers with the bytes of RawHeader
	RawFirst    = "raw-first"        // the same first, second is main
)

// MaxBody is the largest JSON body that the gateway accepts, in bytes.
const MaxBody = 1 << 20

// A Stack is a gateway with teams and upstreams, and a second one in sidecar
// mode. The JSON form is what suites in other languages get.
type Stack struct {
	BaseURL string `json:"base_url"` // of the gateway, /v1 included
	Admin   string `json:"admin"`    // of its admin listener
	Sidecar string `json:"sidecar"`  // of the gateway without keys of its own, /v1 included
	TLSURL  string `json:"tls_url"`  // of a proxy before the gateway that speaks TLS, /v1 included

	MainURL   string `json:"main_url"` // of providers, without /v1
	FaultyURL string `json:"faulty_url"`
	ShakyURL  string `json:"shaky_url"`
	OwnURL    string `json:"own_url"` // behind the sidecar
	RawURL    string `json:"raw_url"`

	ClientKey   string `json:"client_key"`
	LimitedKey  string `json:"limited_key"` // of a team with one request in 3 s; with -0 to -4 behind it, of more such teams
	NarrowKey   string `json:"narrow_key"`
	UpstreamKey string `json:"upstream_key"`
	MaxBody     int    `json:"max_body"`

	Gateway *harness.Gateway `json:"-"`
	Main    *Recorder        `json:"-"`
	Faulty  *Recorder        `json:"-"`
	Shaky   *Recorder        `json:"-"`
	Own     *Recorder        `json:"-"`
	Raw     *Recorder        `json:"-"`
}

// Start runs the gateways and their providers until the test ends.
func Start(t testing.TB) *Stack {
	t.Helper()
	s := &Stack{
		ClientKey: ClientKey, LimitedKey: LimitedKey, NarrowKey: NarrowKey, UpstreamKey: UpstreamKey, MaxBody: MaxBody,
		Main: quick("", UpstreamKey), Faulty: quick("", ""), Shaky: quick("", ""), Own: quick("", ClientKey), Raw: quick("", ""),
	}
	s.MainURL, s.FaultyURL = harness.Serve(t, s.Main), harness.Serve(t, s.Faulty)
	s.ShakyURL, s.OwnURL, s.RawURL = harness.Serve(t, s.Shaky), harness.Serve(t, s.Own), harness.Serve(t, raw(s.Raw))
	s.Gateway = harness.Start(t, s.config(t), "E2E_UPSTREAM_KEY="+UpstreamKey)
	s.BaseURL, s.Admin = s.Gateway.URL+"/v1", s.Gateway.Admin
	s.Sidecar = harness.Start(t, fmt.Sprintf("upstreams: {own: {base_url: %s/v1}}\n", s.OwnURL)).URL + "/v1"
	s.TLSURL = secure(t, s.Gateway.URL) + "/v1"
	return s
}

// secure puts a server that speaks TLS before a URL, under a certificate that nobody
// knows: openai-node opens no realtime session without TLS.
func secure(t testing.TB, to string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(&httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// quick is a provider that answers at once. faults is a rule for every request.
func quick(faults, key string) *Recorder {
	c := simulate.Config{TTFT: simulate.NoWait, TokenTime: simulate.NoWait, OutputTokens: 24, APIKey: key}
	if faults != "" {
		f, err := simulate.ParseFaults(faults)
		if err != nil {
			panic("stack: " + err.Error())
		}
		c.Faults = []simulate.Faults{f}
	}
	return NewRecorder(simulate.New(c))
}

// config is the gateway's configuration. Breakers are off and the retry budget
// is large, so that tests which fail on purpose do not change each other.
func (s *Stack) config(t testing.TB) string {
	t.Helper()
	upstream := func(name, base, more string) string {
		return fmt.Sprintf("  %s: {base_url: %q%s}\n", name, base+"/v1", more)
	}
	down := harness.Serve(t, quick("status=503", ""))
	inBand := harness.Serve(t, quick("error-event-after=0", ""))
	var b strings.Builder
	b.WriteString("upstreams:\n")
	b.WriteString(upstream("main", s.MainURL, ", api_key: \"${E2E_UPSTREAM_KEY}\""))
	b.WriteString(upstream("faulty", s.FaultyURL, ""))
	b.WriteString(upstream("shaky", s.ShakyURL, ""))
	b.WriteString(upstream("raw", s.RawURL, ""))
	b.WriteString(upstream("down", down, ""))
	b.WriteString(upstream("in-band", inBand, ""))
	b.WriteString(upstream("gone", "http://"+harness.FreeAddress(t), ""))
	b.WriteString(upstream("slow", s.FaultyURL, ", timeouts: {headers: 250ms, first_token: 250ms, idle: 250ms}"))
	b.WriteString(upstream("wrong-key", s.MainURL, ", api_key: sk-not-the-key-of-this-upstream"))
	fmt.Fprintf(&b, "default_upstream: main\nmodels:\n  %s: {targets: [{upstream: main, model: %s}]}\n", Alias, AliasTarget)
	for _, m := range [...][2]string{
		{Model, "main"}, {"text-embedding-3-small", "main"}, {"gpt-3.5-turbo-instruct", "main"}, {"tts-1", "main"},
		{"whisper-1", "main"}, {"gpt-image-1", "main"}, {"omni-moderation-latest", "main"},
		{Faulty, "faulty"}, {Shaky, "shaky"}, {FailStatus, "[down, main]"}, {FailStream, "[in-band, main]"},
		{Raw, "raw"}, {RawFirst, "[raw, main]"},
		{Unreachable, "gone"}, {Hanging, "slow"}, {WrongKey, "wrong-key"},
	} {
		fmt.Fprintf(&b, "  %s: {targets: %s}\n", m[0], m[1])
	}
	for i := range 10 { // each is paused and learned of by itself
		fmt.Fprintf(&b, "  %s-%d: {targets: faulty}\n", Faulty, i)
	}
	b.WriteString("teams:\n")
	for i := range 5 {
		fmt.Fprintf(&b, "  limited-%d: {limits: {requests: {limit: 1, per: 3s, burst: 1}}, keys: [{name: limited, hash: %q}]}\n", i, auth.HashOf(fmt.Sprintf("%s-%d", LimitedKey, i)))
	}
	fmt.Fprintf(&b, `  all: {keys: [{name: all, hash: %q}]}
  limited: {limits: {requests: {limit: 1, per: 3s, burst: 1}}, keys: [{name: limited, hash: %q}]}
  narrow: {models: [%s], keys: [{name: narrow, hash: %q}]}
gateway: {max_body: %d}
breaker: {disabled: true}
retry: {base_delay: 1ms, budget_floor: 10000}
`, auth.HashOf(ClientKey), auth.HashOf(LimitedKey), Alias, auth.HashOf(NarrowKey), MaxBody)
	return b.String()
}
