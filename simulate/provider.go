// Package simulate is a provider made up for trying things out: an HTTP handler
// that answers like the OpenAI API, in invented words, with a latency, rate
// limits and faults that are configured or asked for by a request.
//
// It enforces its limits by its own code and keeps its own count of what it
// admitted, so that it can bear witness for or against whatever calls it.
package simulate

import (
	"crypto/subtle"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Provider is a simulated provider. It is an http.Handler, safe for
// concurrent use, and starts no goroutines of its own. Make one with New.
type Provider struct {
	models    []string
	strict    bool
	key       string
	live      atomic.Pointer[settings]
	changing  sync.Mutex // held by Configure
	limits    *limiter
	script    *script
	counts    counters
	files     fileStore
	responses responseStore
	prefix    string // of ids, so that those of two providers differ
	serial    atomic.Uint64
}

// New makes a Provider. Values of c that are out of range are brought into it.
func New(c Config) *Provider {
	p := &Provider{
		models: c.Models,
		strict: c.Strict && len(c.Models) > 0,
		key:    c.APIKey,
		limits: newLimiter(c.rates()),
		script: newScript(c.Faults, c.Seed),
		prefix: fmt.Sprintf("%08x", rand.Uint32()),
	}
	if len(p.models) == 0 {
		p.models = []string{"simulated-1"}
	}
	p.files.keep = orDefault(c.KeepFileBytes, DefaultKeepBytes)
	s := c.settings()
	p.live.Store(&s)
	return p
}

// SetFaults replaces the fault rules: the first rule that applies to a request
// is used. Their counts and times start now. Requests under way keep theirs.
func (p *Provider) SetFaults(rules ...Faults) { p.script.set(rules) }

// Reset starts limits, counters and fault rules anew, and forgets files and
// stored responses. Requests in flight stay counted.
func (p *Provider) Reset() {
	p.limits.reset()
	p.script.restart()
	p.counts.reset()
	p.files.reset()
	p.responses.reset()
}

// An endpoint is one operation of the API. Metered ones are admitted by the
// limits, which they ask for themselves once they know their tokens.
type endpoint struct {
	name    string // for Stats
	metered bool
	serve   func(*call)
}

var endpoints = map[string]endpoint{
	"POST /chat/completions":     {"chat/completions", true, (*call).chat},
	"POST /completions":          {"completions", true, (*call).completions},
	"POST /responses":            {"responses", true, (*call).respond},
	"POST /embeddings":           {"embeddings", true, (*call).embeddings},
	"POST /moderations":          {"moderations", true, (*call).moderations},
	"POST /images/generations":   {"images/generations", true, (*call).generateImages},
	"POST /images/edits":         {"images/edits", true, (*call).editImages},
	"POST /audio/speech":         {"audio/speech", true, (*call).speech},
	"POST /audio/transcriptions": {"audio/transcriptions", true, (*call).transcribe},
	"POST /audio/translations":   {"audio/translations", true, (*call).translate},
	"GET /models":                {"models", false, (*call).listModels},
	"POST /files":                {"files", false, (*call).uploadFile},
	"GET /files":                 {"files", false, (*call).listFiles},
}

var endpointsByID = []struct {
	method, prefix, suffix string
	endpoint
}{
	{"GET", "/models/", "", endpoint{"models", false, (*call).getModel}},
	{"GET", "/responses/", "", endpoint{"responses/id", false, (*call).getResponse}},
	{"DELETE", "/responses/", "", endpoint{"responses/id", false, (*call).deleteResponse}},
	{"GET", "/files/", "/content", endpoint{"files/id", false, (*call).fileContent}},
	{"GET", "/files/", "", endpoint{"files/id", false, (*call).getFile}},
	{"DELETE", "/files/", "", endpoint{"files/id", false, (*call).deleteFile}},
}

// ServeHTTP answers API requests, with and without the /v1 prefix, and the
// simulator's own paths under /simulator/.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := apiPath(r)
	if p.control(w, r, path) {
		return
	}
	c := &call{p: p, w: w, r: r, set: p.live.Load(), began: time.Now()}
	c.id = p.prefix + strconv.FormatUint(p.serial.Add(1), 16)
	e, id := find(r.Method, path)
	c.endpoint, c.pathID = e.name, id
	p.counts.open()
	defer c.finish()
	c.run(e)
}

func apiPath(r *http.Request) string {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v1"); ok && strings.HasPrefix(rest, "/") {
		return rest
	}
	return r.URL.Path
}

// find returns the endpoint of a request and the id in its path. Only the ids of
// models may contain slashes.
func find(method, path string) (endpoint, string) {
	if e, ok := endpoints[method+" "+path]; ok {
		return e, ""
	}
	if path == "/simulator/echo" || strings.HasPrefix(path, "/simulator/echo/") {
		return endpoint{"echo", false, (*call).echo}, ""
	}
	for _, e := range endpointsByID {
		id, ok := strings.CutPrefix(path, e.prefix)
		if !ok || method != e.method || !strings.HasSuffix(id, e.suffix) {
			continue
		}
		if id = strings.TrimSuffix(id, e.suffix); id != "" && (e.prefix == "/models/" || !strings.Contains(id, "/")) {
			return e.endpoint, id
		}
	}
	return endpoint{"unknown", false, (*call).unknownPath}, ""
}

// authorize checks the bearer token.
func (p *Provider) authorize(r *http.Request) *apiError {
	if p.key == "" {
		return nil
	}
	got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(got), []byte(p.key)) == 1 {
		return nil
	}
	message := "Incorrect API key provided. The simulated provider expects the one it was started with."
	if got == "" {
		message = "No API key provided. Send it in the Authorization header, after the word Bearer."
	}
	return &apiError{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key", message: message}
}
