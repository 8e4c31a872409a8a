package stack

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"penstock/simulate"
)

// RecordHeader names a request whose copy is to be kept. Being a header that the
// gateway does not know, it also shows that such headers arrive.
const RecordHeader = "X-Record"

// ReplyHeader is one that the provider adds to every answer.
const ReplyHeader = "X-Custom-Reply"

// maxRecords bounds what a Recorder keeps.
const maxRecords = 1000

// A Record is a request as it arrived at a provider.
type Record struct {
	Method string      `json:"method"`
	Path   string      `json:"path"`
	Query  string      `json:"query"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"` // base64 in JSON
}

// A Recorder is a simulated provider that keeps the requests which carry
// RecordHeader, the last one of each name. GET /recorded/{name} shows them to
// suites in other languages. It is safe for concurrent use.
type Recorder struct {
	*simulate.Provider

	mu      sync.Mutex
	records map[string]Record
}

// NewRecorder returns a Recorder in front of a provider.
func NewRecorder(p *simulate.Provider) *Recorder {
	return &Recorder{Provider: p, records: make(map[string]Record)}
}

// ServeHTTP implements http.Handler.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if name, ok := strings.CutPrefix(req.URL.Path, "/recorded/"); ok {
		r.show(w, name)
		return
	}
	if name := req.Header.Get(RecordHeader); name != "" {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.keep(name, Record{Method: req.Method, Path: req.URL.EscapedPath(), Query: req.URL.RawQuery, Header: req.Header.Clone(), Body: body})
	}
	w.Header().Set(ReplyHeader, "from the provider")
	if req.Header.Get("Upgrade") == "websocket" {
		socket(w, req)
		return
	}
	r.Provider.ServeHTTP(w, req)
}

func (r *Recorder) keep(name string, rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.records[name]; known || len(r.records) < maxRecords {
		r.records[name] = rec
	}
}

// Recorded returns the last request of a name, and whether there was one.
func (r *Recorder) Recorded(name string) (Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.records[name]
	return rec, ok
}

func (r *Recorder) show(w http.ResponseWriter, name string) {
	rec, ok := r.Recorded(name)
	if !ok {
		http.Error(w, "no request of that name has arrived", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rec) // the suite that asked reports what it misses
}
