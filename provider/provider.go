// Package provider holds what the gateway and the wire formats agree on: what a
// client asks for (Call), where it is sent (Target), what comes back (Reply,
// Usage) and how an upstream can fail (Error).
package provider

import (
	"context"
	"io"
	"net/http"
	"net/url"
)

// A Target is one upstream together with the model name it is asked for.
// It is immutable and safe to share.
type Target struct {
	Upstream string // configured name of the upstream
	Model    string // model name sent to the upstream; empty leaves the client's
	State    string // bounded key of upstream × model, under which limits, breaker and metrics are kept
	Label    string // bounded model name for metrics
	Breaker  string // key of its circuit breaker, which clients may have named; empty for State
	Weight   int    // share under the weighted strategy, at least 1

	BaseURL     *url.URL    // the upstream's API root, such as https://api.openai.com/v1
	Credential  string      // the upstream's own key; empty forwards nothing of ours
	Forward     bool        // forward the client's own credential (sidecar mode)
	Headers     http.Header // extra headers that the configuration adds
	Secrets     [][]byte    // what of these no client may see; looked for in each answer when nil
	StreamUsage bool        // ask for usage in chat and completion streams
	MaxAnswer   int         // largest answer held back until it is whole, in bytes
}

// BreakerKey is the key of the target's circuit breaker.
func (t *Target) BreakerKey() string {
	if t.Breaker != "" {
		return t.Breaker
	}
	return t.State
}

// An Operation is one kind of API request, such as a chat completion.
type Operation struct {
	Name  string    // bounded label: "chat", "completions", "responses", "embeddings", …, "passthrough"
	Model ModelRule // where the model name stands, and whether it must
	// Metered says that the operation uses tokens, so that its body and its
	// answer are read for them. Others are admitted by requests and concurrency.
	Metered bool
	Stream  bool // can answer with server-sent events on "stream": true
	// Unchecked says that it may set a model to work that is named where it is not
	// looked for, such as in the lines of a batch. Whoever may use certain models
	// only may not use it.
	Unchecked bool
	// Stored says that it is about an answer that the upstream which gave it keeps.
	Stored bool
}

// ModelRule says whether a request of an operation names its model.
type ModelRule int

const (
	ModelNone     ModelRule = iota // files, batches, unknown paths
	ModelOptional                  // responses, moderations, images
	ModelRequired                  // chat, completions, embeddings, speech, transcriptions
)

// A Call is a client's request, read once and never changed. Body bytes are
// shared by all attempts.
type Call struct {
	Op     Operation
	Method string
	Path   string      // path under the API root, escaped, without a /v1 prefix: "/chat/completions"
	Query  string      // raw query without credentials
	Header http.Header // the client's header; read only
	// Credential is the key that the client came with. It never goes anywhere, in
	// whatever header or parameter it stands, unless the target forwards it.
	Credential string

	Body   []byte    // whole body, or its beginning when Rest is set
	Rest   io.Reader // what follows Body in an upload too large to hold; such a call is tried once
	Length int64     // the body's declared length with Rest, or -1

	Model     string // as the client spelled it; empty when it named none
	ModelSpan Span   // the model's value within Body: the JSON string with its quotes, or the bare form value
	// MoreModels says that the body names further models that may answer in its place.
	MoreModels bool
	Multipart  bool
	Upgrade    bool // the client asks for a WebSocket

	Stream        bool // the client asked for server-sent events
	IncludeUsage  bool // the client asked for the usage chunk itself
	Base64        bool // the client asked for embeddings in base64
	StreamOptions Span // value of "stream_options" within Body, when present and an object
	ObjectEnd     int  // offset of the closing brace of the JSON body, 0 when it is not an object

	InputText  int64 // bytes of text that count as input
	InputParts int64 // tokens of typed parts (images, audio, files), by their own rule
	MaxOutput  int64 // largest output limit that the client set, 0 when none
	Choices    int64 // n or best_of, whichever is larger; at least 1

	// Reserve counts n more bytes of the answer as held memory, or reports that
	// there is no room for them; nil allows all. Same goroutine as the call.
	Reserve func(n int64) bool
}

// A Span is a half-open range of bytes. The zero Span is absent.
type Span struct{ Start, End int }

// Usage is what an answer used, in tokens. Input includes cached and cache-write
// tokens, Output includes reasoning, as OpenAI counts them.
type Usage struct {
	Input      int64
	Output     int64
	Cached     int64 // part of Input that was read from a cache
	CacheWrite int64 // part of Input that was written to a cache
	Reasoning  int64 // part of Output
	Reported   bool  // the provider said so; otherwise it was counted in passing
	Pending    bool  // the provider goes on working when it has answered, and does not say how much
}

// A Reply is an upstream's answer in the client's dialect, its first bytes
// already seen to be no failure.
type Reply struct {
	Status int
	Header http.Header // already cleaned for the client
	// Body's Read returns whole chunks to be flushed one by one; *Error when it is
	// cut. With the status 101 it is the connection, an io.ReadWriteCloser.
	Body   io.ReadCloser
	Length int64 // Content-Length, or -1
	Stream bool  // server-sent events
	// Usage is the best knowledge so far, final once Body is drained. Safe to
	// call only from the goroutine that reads Body.
	Usage func() Usage
	// Ended reports whether all there is to say has been said, so that only the end of
	// Body is missing. Nil unless Stream. Same goroutine as Usage.
	Ended func() bool
	// Cut returns what tells the client, in its dialect and in band, that the
	// stream has failed. Nil unless Stream. Same goroutine as Usage.
	Cut func(code, message string) []byte
}

// An Adapter speaks one provider's wire format. It is safe for concurrent use.
type Adapter interface {
	// Request builds what is sent to the target.
	Request(ctx context.Context, t *Target, c *Call) (*http.Request, error)
	// Reply reads an answer up to its first meaningful event, or reports *Error.
	// It closes the body of resp unless it returns it in the Reply.
	Reply(t *Target, c *Call, resp *http.Response) (*Reply, error)
}
