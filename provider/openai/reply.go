package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"penstock/provider"
)

// maxPeek bounds what is held of a stream while its first event is awaited.
const maxPeek = 64 << 10

// Reply implements provider.Adapter.
func (Adapter) Reply(t *provider.Target, c *provider.Call, resp *http.Response) (*provider.Reply, error) {
	if c.Op.Metered || resp.StatusCode >= 400 {
		unzip(resp)
	}
	if resp.StatusCode >= 400 && resp.StatusCode < 600 {
		return nil, failed(t, c, resp)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && c.Upgrade {
		return upgraded(t, resp)
	}
	if meaningless(c, resp.StatusCode) {
		resp.Body.Close()
		return nil, &provider.Error{Kind: provider.KindHealth, Code: "protocol", Err: fmt.Errorf("unexpected status %d", resp.StatusCode)}
	}
	resp.Body = newMasker(resp.Body, SecretsOf(t))
	r := &provider.Reply{Status: resp.StatusCode, Header: replyHeader(t, resp.Header), Length: resp.ContentLength}
	var err error
	switch readingOf(c, resp) {
	case events:
		if mediaType(resp.Header) != "text/event-stream" {
			r.Header.Set("Content-Type", "text/event-stream; charset=utf-8")
		}
		err = streamReply(r, t, c, resp)
	case document:
		err = jsonReply(r, t, c, resp)
	case page:
		err = &provider.Error{Kind: provider.KindHealth, Code: "not_json", Err: errors.New("the answer is not JSON")}
	case other:
		r.Body = &plain{ReadCloser: resp.Body}
		r.Usage = func() provider.Usage { return provider.Usage{} }
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return r, nil
}

// meaningless reports whether a status says nothing to the client of such a call. A
// redirect of a call that carries a prompt would lead it past the gateway, to a host
// that is not its concern.
func meaningless(c *provider.Call, status int) bool {
	return status < 200 || status >= 600 || status >= 300 && status < 400 && answersJSON[c.Op.Name]
}

// A reading is how an answer has to be read.
type reading int

const (
	other    reading = iota // only passed on
	events                  // server-sent events
	document                // JSON
	page                    // something that no client of this operation can read
)

// readingOf tells it by the Content-Type and, since not every server states that
// rightly, by what was asked for.
func readingOf(c *provider.Call, resp *http.Response) reading {
	if resp.Header.Get("Content-Encoding") != "" || c.Method == http.MethodHead {
		return other
	}
	name := mediaType(resp.Header)
	spoken := answersJSON[c.Op.Name] && resp.StatusCode == http.StatusOK
	switch {
	case name == "text/event-stream":
		return events
	case strings.HasSuffix(name, "json"):
		return document
	case spoken && name == "text/html":
		return page
	case spoken && c.Stream && c.Op.Stream:
		return events
	case spoken:
		return document
	}
	return other
}

// answersJSON are the operations whose answer, unless it is streamed, is a JSON
// object whatever was asked for.
var answersJSON = map[string]bool{opChat: true, opCompletions: true, opResponses: true, opEmbeddings: true, opDecisions: true}

func mediaType(h http.Header) string {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// plain is a body that is only passed on.
type plain struct{ io.ReadCloser }

func (p *plain) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	return n, readError(err)
}

// readError makes an error of reading an answer a *provider.Error.
func readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return Broken(err, nil)
}

// jsonReply holds an answer until it is whole, or too large to be held.
func jsonReply(r *provider.Reply, t *provider.Target, c *provider.Call, resp *http.Response) error {
	encodeVectors(c, resp)
	r.Length = resp.ContentLength
	if resp.ContentLength > int64(t.MaxAnswer) {
		largeJSON(r, nil, resp)
		return nil
	}
	body, whole, err := holdBody(resp, t.MaxAnswer, c.Reserve)
	if err != nil {
		return readError(err)
	}
	if !whole {
		largeJSON(r, body, resp)
		return nil
	}
	if c.Op.Metered {
		if err := checkAnswer(t, c, resp, body); err != nil {
			return err
		}
	}
	use, _ := usageIn(body)
	use.Pending = c.Op.Name == opResponses && !use.Reported && unfinished(body)
	r.Body, r.Length = &held{Reader: bytes.NewReader(body), Closer: resp.Body}, int64(len(body))
	r.Usage = func() provider.Usage { return use }
	return nil
}

// firstHold is how much room an answer gets before anything of it has arrived, in
// bytes, whatever length it declares.
const firstHold = 8 << 10

// holdBody reads up to limit bytes of an answer, as far as reserve has room for
// them. What it has read is returned with whole false when there is more.
func holdBody(resp *http.Response, limit int, reserve func(int64) bool) (body []byte, whole bool, err error) {
	most := int64(limit) + 1
	if n := resp.ContentLength; n >= 0 {
		most = min(most, n+1)
	}
	for {
		if len(body) == cap(body) {
			room := min(max(firstHold, 2*int64(cap(body))), most)
			if int64(len(body)) == most || reserve != nil && !reserve(room-int64(cap(body))) {
				return body, false, nil
			}
			body = append(make([]byte, 0, room), body...)
		}
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			return body, true, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// held is an answer that is in memory.
type held struct {
	*bytes.Reader
	io.Closer
}

// checkAnswer finds failures behind a 200: an error in place of the answer, and a
// body that is no JSON, or was cut where the protocol does not show it.
func checkAnswer(t *provider.Target, c *provider.Call, resp *http.Response, body []byte) error {
	if isFailure(body) {
		return errorEvent(t, resp, body)
	}
	body = bytes.TrimPrefix(body, mark) // which clients skip
	delimited := resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0 || resp.ProtoMajor > 1
	switch {
	case validJSON(body) && (!answersJSON[c.Op.Name] || resp.StatusCode != http.StatusOK || isObject(body)):
	case !delimited:
		return &provider.Error{Kind: provider.KindHealth, Code: "truncated", Err: io.ErrUnexpectedEOF}
	case answersJSON[c.Op.Name]:
		return &provider.Error{Kind: provider.KindHealth, Code: "not_json", Err: errors.New("the answer is not JSON")}
	}
	return nil
}

// unfinished reports whether a response was only begun, in the background.
func unfinished(body []byte) bool {
	status := gjson.GetBytes(body, "status").String()
	return status == "queued" || status == "in_progress"
}

func isObject(body []byte) bool {
	text := bytes.TrimLeft(body, " \t\r\n")
	return len(text) > 0 && text[0] == '{'
}

// isFailure reports whether an answer is an error in one of the shapes that stand
// behind a 200: an object or a text under "error", or Mistral's flat one.
func isFailure(body []byte) bool {
	if !bytes.Contains(body, quotedError) {
		return false
	}
	e := gjson.GetBytes(body, "error")
	object := gjson.GetBytes(body, "object")
	if object.String() == nameError && gjson.GetBytes(body, "message").Exists() {
		return true
	}
	if !e.IsObject() && (e.Type != gjson.String || e.Str == "") {
		return false
	}
	return !object.Exists() && !gjson.GetBytes(body, "choices").Exists()
}

func usageIn(body []byte) (provider.Usage, bool) {
	if u, ok := usageObject(body); ok {
		return readUsage(u)
	}
	return provider.Usage{}, false
}

// tailSize is how much of the end of a large answer is kept to find its usage.
const tailSize = 8 << 10

// largeJSON passes an answer on as it comes, and looks for usage at its beginning
// and its end.
func largeJSON(r *provider.Reply, begin []byte, resp *http.Response) {
	b := &tail{ReadCloser: resp.Body, begin: begin, head: bytes.Clone(begin[:min(len(begin), tailSize)])}
	r.Body = b
	r.Usage = func() provider.Usage {
		if use, ok := usageIn(b.last); ok {
			return use
		}
		use, _ := usageIn(b.head)
		return use
	}
}

// tail is a body that keeps its last bytes.
type tail struct {
	io.ReadCloser
	begin []byte // read already, not yet passed on
	head  []byte
	last  []byte
}

func (t *tail) Read(p []byte) (int, error) {
	if len(t.begin) > 0 {
		n := copy(p, t.begin)
		t.begin = t.begin[n:]
		if len(t.begin) == 0 {
			t.begin = nil
		}
		t.keep(p[:n])
		return n, nil
	}
	n, err := t.ReadCloser.Read(p)
	t.keep(p[:n])
	return n, readError(err)
}

func (t *tail) keep(b []byte) {
	if len(b) >= tailSize {
		t.last = append(t.last[:0], b[len(b)-tailSize:]...)
		return
	}
	if over := len(t.last) + len(b) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	t.last = append(t.last, b...)
}
