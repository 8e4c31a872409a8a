package plainhttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// direct is the longest body that is written before the answer is read, in bytes. A
// server may answer early and read no further, so as much has to fit into what the two
// kernels hold between them; for longer ones a goroutine writes meanwhile.
const direct = 64 << 10

// maxPooled bounds the buffers of requests that are kept for others, in bytes.
const maxPooled = direct + 32<<10

// writtenWithin is how long the rest of a request may take to be written once its
// answer has ended, so that the connection can be used again.
const writtenWithin = 50 * time.Millisecond

var (
	requests = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}
	writers  = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 32<<10) }}
	readers  = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readSize) }}
)

var errClosed = errors.New("the answer is read after it was closed")

// An exchange is a request and its answer on a connection. It is the body of the answer.
type exchange struct {
	t    *Transport
	c    *conn
	ctx  context.Context
	stop func() bool // stops the end of the context from closing the connection

	br       *bufio.Reader
	begun    bool  // something of the answer has come
	last     bool  // nothing may follow on the connection
	writeErr error // final once writing is closed
	writing  chan struct{}

	mu      sync.Mutex
	body    io.ReadCloser
	reading int   // calls of Read under way
	err     error // what Read reports from now on
}

// do sends the request and reads the head of the answer. If it fails, the caller calls
// finish.
func (x *exchange) do(req *http.Request) (*http.Response, error) {
	x.c.sent = 0
	if req.ContentLength > direct {
		x.writing = make(chan struct{})
		go x.writeLong(req)
	} else if ready, err := x.write(req); !ready {
		return nil, err
	} else {
		x.writeErr = err
	}
	resp, err := x.head(req)
	if err != nil {
		if x.writing != nil { // it may be why
			x.c.end()
			<-x.writing
		}
		if x.writeErr != nil && !x.begun {
			err = x.writeErr
		}
		return nil, err
	}
	// A status below 200 that ends an answer is that of another protocol.
	x.last = resp.Close || resp.StatusCode < 200
	if x.body = resp.Body; resp.Body == http.NoBody {
		x.err = io.EOF
		x.finish(true)
		return resp, nil
	}
	resp.Body = x
	return resp, nil
}

// write writes a short request at once. An error with which an answer may still come is
// returned with ready: a server that refuses early closes the connection.
func (x *exchange) write(req *http.Request) (ready bool, err error) {
	pooled := requests.Get().(*[]byte)
	buf, err := appendRequest((*pooled)[:0], req)
	defer func() {
		if cap(buf) <= maxPooled {
			*pooled = buf
			requests.Put(pooled)
		}
	}()
	if err != nil {
		return false, fmt.Errorf("write the request: %w", err)
	}
	n, err := x.c.Write(buf)
	return n > 0, err
}

// writeLong writes a long request while the answer is awaited.
func (x *exchange) writeLong(req *http.Request) {
	defer close(x.writing)
	w := writers.Get().(*bufio.Writer)
	w.Reset(x.c)
	defer func() {
		w.Reset(nil)
		writers.Put(w)
	}()
	err := req.Write(w)
	if err == nil {
		err = w.Flush()
	}
	if x.writeErr = err; err != nil && !x.c.cut {
		x.c.end() // no answer comes to half a request
	}
}

// head reads the head of the answer. All heads together, with those of answers that
// only say that there is more to come, are bounded by their bytes. Like net/http, it does
// not count the latter: they are short-lived, and how long they may go on is the caller's.
func (x *exchange) head(req *http.Request) (*http.Response, error) {
	x.c.left = x.t.maxHead
	x.br = readers.Get().(*bufio.Reader)
	x.br.Reset(x.c)
	if _, err := x.br.Peek(1); err != nil {
		return nil, err
	}
	x.begun = true
	for {
		resp, err := http.ReadResponse(x.br, req)
		switch {
		case err != nil && x.c.left <= 0:
			return nil, fmt.Errorf("%w: more than %d bytes", errHead, x.t.maxHead)
		case err != nil:
			return nil, fmt.Errorf("read the head of the answer: %w", err)
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode < 100:
			x.c.left = unlimited
			return resp, nil
		}
	}
}

// Read implements io.Reader.
func (x *exchange) Read(p []byte) (int, error) {
	x.mu.Lock()
	if x.err != nil {
		defer x.mu.Unlock()
		return 0, x.err
	}
	x.reading++
	x.mu.Unlock()
	n, err := x.body.Read(p)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reading--
	switch {
	case x.err != nil: // closed meanwhile
		x.release()
		return n, x.err
	case errors.Is(err, io.EOF):
		x.err = io.EOF
		x.finish(true)
		return n, io.EOF
	case err != nil:
		x.err = because(x.ctx, err)
		x.finish(false)
		return n, x.err
	}
	return n, nil
}

// Close implements io.Closer. Before the end of the answer it closes the connection.
func (x *exchange) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	ended := x.err != nil
	x.err = errClosed
	if !ended {
		x.finish(false)
	}
	return nil
}

// finish gives the connection back if it can be used again, and else closes it. whole
// says that the answer has been read to its end. It is called once, with mu held where
// others may have the exchange.
func (x *exchange) finish(whole bool) {
	alone := x.stop() // or else the connection is being closed
	keep := whole && alone && !x.last && !x.c.eof && x.reading == 0 && x.br.Buffered() == 0 && x.c.ahead == nil && x.written()
	if !keep {
		x.c.end()
		if x.writing != nil {
			<-x.writing
		}
	}
	x.release()
	if keep {
		x.c.used = true
		x.t.idle.put(x.c)
	}
}

// written reports whether the request has been written to its end, as good as at once.
func (x *exchange) written() bool {
	if x.writing != nil {
		timer := time.NewTimer(writtenWithin)
		defer timer.Stop()
		select {
		case <-x.writing:
		case <-timer.C:
			return false
		}
	}
	return x.writeErr == nil
}

// release gives the buffers back, once nobody reads.
func (x *exchange) release() {
	if x.reading > 0 || x.br == nil {
		return
	}
	x.c.drop()
	x.br.Reset(nil)
	readers.Put(x.br)
	x.br, x.body = nil, nil
}
