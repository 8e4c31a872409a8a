package proxy

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

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
	src := &clientBody{r: r.Body, control: &x.out.control, pause: set.ReadTimeout, end: x.end()}
	if r.ContentLength < 0 {
		src.r = http.MaxBytesReader(x.out.w, r.Body, most)
	}
	body, whole, err := x.hold(src, r.ContentLength, hold)
	if err != nil {
		return x.bodyError(err)
	}
	x.call.Body = body
	if !whole {
		x.upload = &upload{Reader: src, body: src}
		x.call.Rest, x.call.Length = x.upload, r.ContentLength
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
	if x.upload != nil {
		x.upload.body.leave()
	}
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
		x.p.metrics.Refused("gateway", "memory", string(limits.ReasonLimit), x.team.Name)
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
	pause   time.Duration // 0 for no bound but end
	end     time.Time     // when all of it must have come
	armed   time.Time

	mu   sync.Mutex
	left bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	if now := time.Now(); b.armed.IsZero() || b.pause > 0 && now.Sub(b.armed) > b.pause/8 {
		at := b.end
		if next := now.Add(b.pause); b.pause > 0 && next.Before(at) {
			at = next
		}
		if err := b.deadline(at); err == nil {
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
	if b.armed.IsZero() {
		return nil
	}
	b.armed = time.Time{}
	if err := b.deadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// deadline bounds the connection's reads, until the request has ended: a transport may
// read on for a moment, and by then the connection has other bounds.
func (b *clientBody) deadline(at time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left {
		return nil
	}
	return b.control.SetReadDeadline(at)
}

// leave takes the connection's deadline out of the body's hands.
func (b *clientBody) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
}

// An upload is the rest of a body that is read while it is sent on. It notes why it
// could not be read to its end, which is not the upstream's doing.
type upload struct {
	io.Reader
	body   *clientBody // at the bottom of the reader
	passed func()      // called after every read
	failed atomic.Pointer[error]
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if u.passed != nil {
		u.passed()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		u.failed.Store(&err)
	}
	return n, err
}

// uploadError is why the attempt failed, where that was the upload; nil otherwise.
func (x *exchange) uploadError() *provider.Error {
	if x.upload == nil {
		return nil
	}
	failed := x.upload.failed.Load()
	if failed == nil {
		return nil
	}
	err := x.bodyError(*failed)
	if errors.Is(err, errGone) {
		return &provider.Error{Kind: provider.KindCancelled, Code: "cancelled", Err: err}
	}
	return &provider.Error{Kind: provider.KindClient, Code: "upload", Err: err}
}

// bodyError says why a body could not be read.
func (x *exchange) bodyError(err error) error {
	var large *http.MaxBytesError
	var own *apiError
	var request *openai.RequestError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return errTooLarge
	case errors.As(err, &own):
		return own
	case errors.As(err, &request):
		return request
	case errors.As(err, &network) && network.Timeout():
		return errBodyTimeout
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), x.r.Context().Err() != nil:
		return errGone
	}
	return errFraming
}
