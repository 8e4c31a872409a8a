package proxy

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"penstock/auth"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

// streamUploadsFrom is the size from which a body that decides nothing, such as a
// file, is passed on as it comes instead of being held.
const streamUploadsFrom = 1 << 20

// receive reads the request into a Call: what it asks for, and its body once.
func (x *exchange) receive() error {
	r := x.r
	if r.Method == http.MethodTrace || r.Method == http.MethodConnect {
		return errMethod
	}
	op, path, model, ok := openai.Lookup(r.Method, r.URL.EscapedPath())
	if !ok {
		return errPath
	}
	x.call = &provider.Call{
		Op: op, Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header, Credential: auth.Credential(r.Header),
		Model: model, Length: -1, Choices: 1, Reserve: x.answerRoom,
	}
	x.rec.Operation, x.rec.Method = op.Name, r.Method
	x.patience()
	if op.Name == "admin_api" && !x.s.Routes.Default.Forward {
		return errAdminAPI
	}
	// Others are offers that may be ignored, such as that of HTTP/2 by Java's client.
	if headerHas(r.Header, "Upgrade", "websocket") && headerHas(r.Header, "Connection", "upgrade") {
		return x.receiveUpgrade()
	}
	if op.Model != provider.ModelNone {
		for _, enc := range r.Header["Content-Encoding"] {
			if enc != "" && !strings.EqualFold(enc, "identity") {
				return errEncoding
			}
		}
	}
	if err := x.readBody(); err != nil {
		return err
	}
	return x.scan()
}

// patience shortens the time to respond to what the client says that it waits.
func (x *exchange) patience() {
	for _, name := range [...]string{"X-Stainless-Timeout", "X-Stainless-Read-Timeout"} {
		text := x.r.Header.Get(name)
		if text == "" {
			continue
		}
		if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < 1e6 {
			at := x.begin.Add(time.Duration(s * float64(time.Second)))
			if at.Before(x.respond) {
				x.respond, x.hurried = at, true
			}
		}
	}
}

// readBody reads the body, whole where it must be known or may be sent again.
func (x *exchange) readBody() error {
	r, set := x.r, &x.s.Settings
	if !x.unread {
		return nil
	}
	if sent := r.Header.Get("Content-Type"); sent != "application/json" {
		kind, _, _ := mime.ParseMediaType(sent)
		x.call.Multipart = strings.HasPrefix(kind, "multipart/")
	}
	most := set.MaxUpload
	if !x.call.Multipart && x.call.Op.Model != provider.ModelNone {
		most = set.MaxBody
	}
	if r.ContentLength > most {
		return errTooLarge
	}
	hold := min(most, set.MaxReplay)
	if x.call.Op.Model == provider.ModelNone {
		hold = min(hold, streamUploadsFrom)
		if r.ContentLength > hold {
			hold = 0
		}
	} else if !x.call.Multipart {
		hold = most
	}
	src := &clientBody{r: http.MaxBytesReader(x.out.w, r.Body, most), control: x.out.control, pause: set.ReadTimeout, end: x.end()}
	body, whole, err := x.hold(src, r.ContentLength, hold)
	if err != nil {
		return x.bodyError(err)
	}
	x.call.Body = body
	if !whole {
		x.call.Rest, x.call.Length = src, r.ContentLength
		return nil
	}
	x.unread = false
	return src.finish()
}

// lingerFor is how long the rest of a body that nobody wants may take to come, so
// that its connection can be used again.
const lingerFor = time.Second

// leaveUnread bounds the time for which the server reads on, by itself, what is left
// of a body before and after the answer.
func (x *exchange) leaveUnread() {
	if x.unread {
		_ = x.out.control.SetReadDeadline(time.Now().Add(lingerFor))
	}
}

// firstHold is how much room a body gets before anything of it has arrived, in
// bytes, whatever length it declares.
const firstHold = 64 << 10

// hold reads up to limit bytes, all of them counted as memory before they are
// held, and not before they are likely to come.
func (x *exchange) hold(src io.Reader, length, limit int64) (body []byte, whole bool, err error) {
	if limit == 0 {
		return nil, false, nil
	}
	size, most := int64(8<<10), limit
	if length >= 0 {
		size, most = min(length, limit, firstHold), min(length, limit)
	}
	if err := x.reserve(size + 1); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 0, size+1)
	for {
		if len(buf) == cap(buf) {
			grown := min(int64(4*cap(buf)), most+1) // each step leaves garbage behind
			if err := x.reserve(grown - int64(cap(buf))); err != nil {
				return nil, false, err
			}
			buf = append(make([]byte, 0, grown), buf...)
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		if int64(len(buf)) > limit {
			return buf, false, nil
		}
	}
}

// answerRoom counts bytes of an answer as held memory.
func (x *exchange) answerRoom(n int64) bool {
	if !x.p.memory.take(n, x.s.Settings.MaxMemory) {
		return false
	}
	x.held += n
	return true
}

func (x *exchange) reserve(n int64) error {
	if !x.p.memory.take(n, x.s.Settings.MaxMemory) {
		e := unavailable("memory_full", "the gateway holds as many request bodies as it may; try again", time.Second)
		e.Close = true
		return e
	}
	x.held += n
	return nil
}

// clientBody is the body as the client sends it, with a bound on every pause.
type clientBody struct {
	r       io.Reader
	control *http.ResponseController
	pause   time.Duration
	end     time.Time // when all of it must have come
	armed   time.Time
}

func (b *clientBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.armed) > b.pause/8 {
		at := now.Add(b.pause)
		if at.After(b.end) {
			at = b.end
		}
		if err := b.control.SetReadDeadline(at); err == nil {
			b.armed = now
		}
	}
	n, err := b.r.Read(p)
	if err != nil {
		if e := b.finish(); e != nil && errors.Is(err, io.EOF) {
			return n, e
		}
	}
	return n, err
}

// finish lifts the deadline, which would otherwise be taken for the client's
// leaving while it waits for its answer.
func (b *clientBody) finish() error {
	if err := b.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// bodyError says why a body could not be read.
func (x *exchange) bodyError(err error) error {
	var large *http.MaxBytesError
	var own *apiError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return errTooLarge
	case errors.As(err, &own):
		return own
	case errors.As(err, &network) && network.Timeout():
		return errBodyTimeout
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), x.r.Context().Err() != nil:
		return errGone
	}
	return errFraming
}

// scan finds in the body what decides.
func (x *exchange) scan() error {
	c := x.call
	if c.Op.Model == provider.ModelNone {
		return nil
	}
	var err error
	if c.Multipart {
		err = openai.ScanMultipart(c, x.r.Header.Get("Content-Type"), c.Rest == nil, x.s.Settings.Bounds)
	} else if len(c.Body) > 0 || c.Op.Model == provider.ModelRequired {
		err = openai.Scan(c, x.s.Settings.Bounds)
	}
	if err != nil {
		return err
	}
	if c.Rest != nil && c.Model == "" && c.Op.Model == provider.ModelRequired {
		return invalid(http.StatusBadRequest, "missing_model", "model",
			"the form's model did not come within the part that is held in memory; put it before the file")
	}
	x.rec.Stream = c.Stream
	return nil
}

func headerHas(h http.Header, name, token string) bool {
	for _, line := range h[name] {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// listModels answers GET /models and GET /models/{id} from the configuration. With
// no model configured, or for one that only the upstream knows, it leaves the
// answer to the upstream.
func (x *exchange) listModels() (done bool, err error) {
	if x.call.Op.Name != "models" || x.call.Method != http.MethodGet && x.call.Method != http.MethodHead {
		return false, nil
	}
	names := x.s.Routes.Models(x.team.Models)
	id, one := strings.CutPrefix(x.call.Path, "/models/")
	_, open := x.s.Routes.Routes["*"]
	if one {
		return x.oneModel(id, names, open)
	}
	if len(names) == 0 && open {
		return false, nil
	}
	var b bytes.Buffer
	b.WriteString(`{"object":"list","data":[`)
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(modelObject(name))
	}
	b.WriteString(`]}`)
	x.answer(b.Bytes())
	return true, nil
}

// refused counts a refusal.
func (p *Proxy) refused(err error, team string) {
	var e *limits.Exceeded
	if !errors.As(err, &e) {
		return
	}
	scope, dimension := "queue", ""
	if e.Limit != nil {
		scope, dimension = e.Limit.Scope.String(), e.Limit.Dimension.String()
	}
	p.metrics.Refused(scope, dimension, string(e.Reason), team)
}
