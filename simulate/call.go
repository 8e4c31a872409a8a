package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxBody is the largest JSON body that is read, in bytes.
const maxBody = 64 << 20

// A call is one API request on its way through the provider.
type call struct {
	p        *Provider
	w        http.ResponseWriter
	r        *http.Request
	set      *settings
	faults   Faults
	began    time.Time
	endpoint string
	id       string // part of every id in the answer
	pathID   string // {id} in the path

	admitted bool
	quota    quota
	reason   string // of a 429
	status   int    // sent; 0 while none is
	stream   bool
	ending   ending
	input    int // tokens served
	output   int
	written  int    // bytes of the body
	pending  []byte // held back by the split directive
}

// An ending is how an answer ended.
type ending int

const (
	whole ending = iota
	gone         // the client left before the end
	cut          // a fault ended it
)

// Why an answer cannot be continued.
var (
	errGone = errors.New("the client has gone")
	errCut  = errors.New("a fault ended the answer")
)

func (c *call) ctx() context.Context { return c.r.Context() }

// run takes the request up to its endpoint: key, faults, refusal.
func (c *call) run(e endpoint) {
	if err := c.p.authorize(c.r); err != nil {
		c.drain()
		c.fail(err)
		return
	}
	c.faults = c.p.script.pick()
	if err := c.headerFaults(); err != nil {
		c.drain()
		c.fail(err)
		return
	}
	if refused := refusalFault(&c.faults); refused != nil {
		c.drain()
		if c.faults.TTFT == nil || c.wait(*c.faults.TTFT) {
			c.fail(refused)
		}
		return
	}
	if e.metered {
		e.serve(c)
		return
	}
	if (c.faults.TTFT == nil || c.wait(*c.faults.TTFT)) && c.strike() {
		e.serve(c)
	}
}

// headerFaults adds the directives of x-simulate to those of the rules.
func (c *call) headerFaults() *apiError {
	values := c.r.Header["X-Simulate"]
	if len(values) == 0 {
		return nil
	}
	asked, err := ParseFaults(strings.Join(values, ","))
	if err != nil {
		return invalid("x-simulate", "x-simulate: %v", err)
	}
	if asked.scheduled() {
		return invalid("x-simulate", "x-simulate: p, first, from and until belong to a rule of the provider, not to one request")
	}
	_ = c.faults.apply(asked.String()) // it parsed just now
	return nil
}

// strike applies the faults that leave nothing of an answer, and reports
// whether one is to follow.
func (c *call) strike() bool {
	f := &c.faults
	switch {
	case f.Reset:
		c.drain()
		_ = c.reset()
	case f.Hang:
		c.drain()
		<-c.ctx().Done()
		c.ending = gone
	case f.Garbage != "":
		c.drain()
		c.garbage()
	default:
		return true
	}
	return false
}

func (c *call) garbage() {
	kind, body := "application/json", `{"id":"chatcmpl-`+c.id+`","choices":[{"index":0,"mess`
	switch {
	case c.faults.Garbage == "html":
		kind, body = "text/html", "<!doctype html><title>Bad gateway</title><h1>This is not the API</h1>\n"
	case c.stream:
		kind, body = "text/event-stream; charset=utf-8", "data: {\"id\":\"chatcmpl-"+c.id+"\",\"choi\n\n"
	}
	c.bytes(http.StatusOK, kind, []byte(body))
	c.ended(errCut)
}

// admit asks the limits for a request with so many prompt tokens and at most
// so many output tokens, then applies the faults that leave no answer. If it
// reports false, the request has been dealt with.
func (c *call) admit(model string, prompt int, output int64) bool {
	if err := c.p.checkModel(model); err != nil {
		c.fail(err)
		return false
	}
	q, refused := c.p.limits.admit(int64(prompt), output)
	c.quota = q
	if refused != nil {
		c.fail(limited(model, c.p.limits.current(), refused))
		return false
	}
	c.admitted = true
	c.input = prompt
	return c.strike()
}

// produced counts output tokens against the limits.
func (c *call) produced(tokens int) {
	c.output += tokens
	c.p.limits.charge(int64(tokens))
}

// finish gives back what the call holds and counts it.
func (c *call) finish() {
	if c.admitted {
		c.p.limits.release()
	}
	c.p.counts.done(c)
}

// wait waits, and reports false if the client left meanwhile.
func (c *call) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx().Done():
		c.ending = gone
		return false
	}
}

// think waits for an unstreamed answer of so many output tokens, all produced
// when it returns. It reports false if the client left meanwhile; then the
// tokens produced so far are counted.
func (c *call) think(o *output, choices int) bool {
	each, first := c.tokenTime(), c.ttft()
	start := time.Now()
	if c.wait(first + times(each, o.total()-1)) {
		c.produced(o.total() * choices)
		return true
	}
	if spent := time.Since(start) - first; spent >= 0 && each > 0 {
		c.produced(min(int(spent/each)+1, o.total()) * choices)
	}
	return false
}

// times is d·n, at most 100 years so that it can be added to.
func times(d time.Duration, n int) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	if n <= 0 {
		return 0
	}
	if d > most/time.Duration(n) {
		return most
	}
	return d * time.Duration(n)
}

func (c *call) ttft() time.Duration {
	if c.faults.TTFT != nil {
		return *c.faults.TTFT
	}
	return c.set.ttft + c.p.script.jitter(c.set.jitter)
}

func (c *call) tokenTime() time.Duration {
	if c.faults.TokenTime != nil {
		return *c.faults.TokenTime
	}
	return c.set.tokenTime
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// decode reads the JSON body into v, and answers itself if it cannot.
func (c *call) decode(v any) bool {
	buf := bodies.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= 1<<20 {
			buf.Reset()
			bodies.Put(buf)
		}
	}()
	_, err := buf.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		c.fail(&apiError{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error",
			message: "The body is larger than " + strconv.Itoa(maxBody) + " bytes."})
		return false
	}
	if err != nil {
		c.ending = gone // what did not arrive whole needs no answer
		return false
	}
	if err := json.Unmarshal(buf.Bytes(), v); err != nil {
		c.fail(jsonError(err))
		return false
	}
	return true
}

func jsonError(err error) *apiError {
	if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
		field := strings.ToLower(wrong.Field) // that of a member without a tag is Go's
		return invalid(field, "Invalid type for %q: expected %s, got %s.", field, jsonType(wrong.Type.Kind()), wrong.Value)
	}
	return invalid("", "The body is not valid JSON: %v.", err)
}

// jsonType is what JSON calls values of a kind.
func jsonType(k reflect.Kind) string {
	switch k {
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	}
	return "a number"
}

// drain reads the rest of the body, without which the server neither sends an
// early answer nor notices that the client leaves.
func (c *call) drain() { _, _ = io.Copy(io.Discard, c.r.Body) }
