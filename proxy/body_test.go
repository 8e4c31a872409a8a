package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	formHead  = "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"
	formModel = formHead + "m\r\n"
	formFile  = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
	formEnd   = "--XX--\r\n"
)

// slowly sends text and then nothing, until it is closed.
type slowly struct {
	io.Reader
	closed chan struct{}
}

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		select {
		case <-s.closed:
		case <-time.After(time.Minute):
		}
	}
	return n, err
}

func (s slowly) Close() error { close(s.closed); return nil }

// covers CL-04, CL-06, SEC-07, UP-04: an upload that is sent on while it comes, and
// turns out to be none, is refused for what it is. It never reaches the upstream as a
// whole, and is no fault of the upstream.
func TestUploadsThatFail(t *testing.T) {
	audio := strings.Repeat("x", 2<<20) + "\r\n"
	for _, c := range []struct {
		name, path string
		body       io.Reader
		status     int
		code       string
	}{
		{"whole", "/v1/audio/transcriptions", strings.NewReader(formModel + formFile + audio + formEnd), 200, ""},
		{"another model behind", "/v1/audio/transcriptions", strings.NewReader(formModel + formFile + audio + formHead + "dear\r\n" + formEnd), 400, "duplicate_key"},
		{"almost a model behind", "/v1/audio/transcriptions", strings.NewReader(formModel + formFile + audio + strings.Replace(formHead, "model", "Model", 1) + "dear\r\n" + formEnd), 400, "ambiguous_key"},
		{"its model behind", "/v1/audio/transcriptions", strings.NewReader(formFile + audio + formModel + formEnd), 400, "missing_model"},
		{"no end", "/v1/audio/transcriptions", strings.NewReader(formModel + formFile + audio), 400, "invalid_multipart"},
		{"too large", "/v1/files", strings.NewReader(strings.Repeat("x", 9<<20)), 413, "request_too_large"},
		{"too slow", "/v1/files", slowly{Reader: strings.NewReader(strings.Repeat("x", 2<<20))}, 408, "request_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole := 0
				w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						whole++
					}
					rw.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(rw, answerJSON)
				}, nil)
				req := w.request("POST", c.path, "x")
				req.Body, req.ContentLength = io.NopCloser(c.body), -1
				if s, ok := c.body.(slowly); ok {
					s.closed = make(chan struct{})
					req.Body = s
				}
				req.Header.Set("Content-Type", "multipart/form-data; boundary=XX")
				o := w.do(req)
				if o.err == nil && (o.status != c.status || o.code() != c.code) || c.status == 200 && o.err != nil {
					t.Errorf("%d %s, %v; want %d %s", o.status, o.body, o.err, c.status, c.code)
				}
				synctest.Wait()
				if want := map[bool]int{true: 1}[c.status == 200]; whole != want {
					t.Errorf("%d reached the upstream as a whole", whole)
				}
				if got := w.metric("attempts_total", "result", "health"); got != 0 {
					t.Error("it was counted against the upstream")
				}
				time.Sleep(time.Minute)
				w.settled()
			})
		})
	}
}

// covers UP-04, UP-07: the time limit of the answer begins when the upload has been
// sent, however slowly the client did; one that the upstream does not take passes.
func TestSlowUploadIsNoFaultOfTheUpstream(t *testing.T) {
	for _, c := range []struct {
		name   string
		up     http.HandlerFunc
		status int
	}{
		{"taken", sends(200, answerJSON), 200},
		{"not taken", func(http.ResponseWriter, *http.Request) { time.Sleep(45 * time.Second) }, 504},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.up, nil, func(s *Snapshot) { s.Upstreams["a"].Timeouts.Headers = 5 * time.Second })
				r, send := io.Pipe()
				go func() {
					for range 20 {
						if _, err := send.Write(make([]byte, 100<<10)); err != nil {
							return
						}
						time.Sleep(2 * time.Second)
					}
					_ = send.Close()
				}()
				req := w.request("POST", "/v1/files", "x")
				req.Body, req.ContentLength = r, -1
				o := w.do(req)
				if o.err == nil && o.status != c.status || c.status == 200 && o.err != nil {
					t.Errorf("%d %s, %v after %v; want %d", o.status, o.body, o.err, o.took, c.status)
				}
				if got := w.metric("attempts_total", "code", "header_timeout"); (got > 0) != (c.status == 504) {
					t.Errorf("%v attempts ran into the time limit", got)
				}
				_ = r.Close()
				time.Sleep(time.Minute)
				w.settled()
			})
		})
	}
}

// A deadlines counts the deadlines that are set on a connection.
type deadlines struct {
	http.ResponseWriter
	at []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error { d.at = append(d.at, at); return nil }

// A transport may read the rest of an upload when its request has ended, and the
// connection is already another's.
func TestUploadLeavesTheConnectionAlone(t *testing.T) {
	d := &deadlines{}
	b := &clientBody{r: strings.NewReader("ab"), control: http.NewResponseController(d), pause: time.Nanosecond, end: time.Now().Add(time.Hour)}
	if _, err := b.Read(make([]byte, 1)); err != nil || len(d.at) != 1 {
		t.Errorf("%v, %d deadlines", err, len(d.at))
	}
	b.leave()
	if rest, err := io.ReadAll(b); string(rest) != "b" || err != nil || len(d.at) != 1 {
		t.Errorf("%q, %v, %d deadlines", rest, err, len(d.at))
	}
}

// covers UP-07: a pause of any length is allowed by a limit of 0, until all time is up.
func TestNoLimitOnPauses(t *testing.T) {
	for _, pause := range []time.Duration{time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, sends(200, answerJSON), nil, func(s *Snapshot) {
				s.Settings.ReadTimeout, s.Settings.Timeouts.Attempts = 0, 0
			})
			r, send := io.Pipe()
			go func() {
				_, _ = io.WriteString(send, hello[:10])
				time.Sleep(pause)
				_, _ = io.WriteString(send, hello[10:])
				_ = send.Close()
			}()
			req := w.request("POST", "/v1/chat/completions", "x")
			req.Body, req.ContentLength = r, -1
			o := w.do(req)
			if whole := o.status == 200; whole != (pause == time.Minute) || !whole && (o.status != 408 && o.status != 504 || o.took > 2*time.Minute) {
				t.Errorf("%v: %d %s, %v after %v", pause, o.status, o.body, o.err, o.took)
			}
			_ = r.Close()
			time.Sleep(time.Hour)
			w.settled()
		})
	}
}
