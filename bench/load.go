//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// exchangeTime bounds one exchange on a connection.
const exchangeTime = 15 * time.Second

// A conn is one keep-alive connection that sends the same request again and
// again. It is plain TCP, so that the generator takes little of the machine.
type conn struct {
	addr    string
	c       net.Conn
	r       *bufio.Reader
	request []byte
	scratch []byte
}

func dial(ctx context.Context, addr string, request []byte) (*conn, error) {
	c := &conn{addr: addr, request: request, scratch: make([]byte, 32<<10)}
	return c, c.dial(ctx)
}

// dial connects, again after an exchange has broken.
func (c *conn) dial(ctx context.Context) error {
	if c.c != nil {
		_ = c.c.Close()
	}
	var d net.Dialer
	var err error
	if c.c, err = d.DialContext(ctx, "tcp", c.addr); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.r = bufio.NewReaderSize(c.c, 8<<10)
	return nil
}

// send sends the request and reads the head of the answer.
func (c *conn) send() (*http.Response, error) {
	if err := c.c.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(c.request); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, said)
	}
	return resp, nil
}

// answer makes one exchange and checks that the answer is whole.
func (c *conn) answer() error {
	resp, err := c.send()
	if err != nil {
		return err
	}
	n := 0
	for err == nil {
		var m int
		m, err = resp.Body.Read(c.scratch)
		n += m
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if n != answerSize {
		return fmt.Errorf("answer of %d bytes instead of %d", n, answerSize)
	}
	return nil
}

// burst reads one stream and checks that it is whole.
func (c *conn) burst() error {
	resp, err := c.send()
	if err != nil {
		return err
	}
	lines := 0
	done := false
	for err == nil {
		var n int
		n, err = resp.Body.Read(c.scratch)
		lines += bytes.Count(c.scratch[:n], []byte("\n"))
		done = done || bytes.Contains(c.scratch[:n], []byte("[DONE]"))
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if want := 2 * (burstChunks + 2); lines != want || !done { // two lines an event
		return fmt.Errorf("stream of %d lines instead of %d", lines, want)
	}
	return nil
}

// first opens a stream and reads its first chunk.
func (c *conn) first() error {
	resp, err := c.send()
	if err == nil {
		_, err = resp.Body.Read(c.scratch)
	}
	return err
}

var createdKey = []byte(`"created":`)

// delays reads a stream of timed chunks until ctx ends or the stream breaks, and
// calls each with the time that a chunk took from the upstream.
func (c *conn) delays(ctx context.Context, each func(time.Duration)) error {
	resp, err := c.send()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.c.SetReadDeadline(time.Now()) })
	defer stop()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadSlice('\n')
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		at := bytes.Index(line, createdKey)
		if at < 0 {
			continue
		}
		digits, _, _ := bytes.Cut(line[at+len(createdKey):], []byte(","))
		sent, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil {
			return fmt.Errorf("chunk without a time: %w", err)
		}
		each(time.Duration(time.Now().UnixNano() - sent))
	}
}

// request is a chat completion of the given size in bytes for a kind of answer.
func request(addr, kind string, size int) []byte {
	stream := kind == kindBurst || kind == kindPaced || kind == kindIdle
	head := fmt.Sprintf(`{"model":"bench-model","stream":%t,"messages":[{"role":"user","content":"`, stream)
	const tail = `"}],"temperature":0.7}`
	text := strings.Repeat("Say something about rivers. ", size/28+1)[:max(0, size-len(head)-len(tail))]
	body := head + text + tail
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		addr, key, kindHeader, kind, len(body), body)
}

// A fleet is a number of connections that all do the same.
type fleet []*conn

// A tally is what a fleet has done.
type tally struct {
	n      int // exchanges that were whole
	broken int // exchanges that were not
	last   error
	took   time.Duration
}

// broke notes an exchange that was not whole, and connects again. httputil's
// reverse proxy breaks some (golang/go#40747), which is a result and not a failure
// of the benchmark.
func (t *tally) broke(ctx context.Context, c *conn, err error) error {
	t.broken++
	t.last = err
	if t.broken > maxBroken {
		return fmt.Errorf("%d exchanges broke, the last by: %w", t.broken, err)
	}
	return c.dial(ctx)
}

// maxBroken is how many exchanges of one connection may break.
const maxBroken = 20

func connect(ctx context.Context, addr, kind string, n, size int) (fleet, error) {
	f := make(fleet, 0, n)
	for range n {
		c, err := dial(ctx, addr, request(addr, kind, size))
		if err != nil {
			f.close()
			return nil, err
		}
		f = append(f, c)
	}
	return f, nil
}

func (f fleet) close() {
	for _, c := range f {
		_ = c.c.Close()
	}
}

// repeat lets every connection make exchanges for a while.
func (f fleet) repeat(ctx context.Context, d time.Duration, exchange func(*conn) error) (tally, error) {
	begin := time.Now()
	all, err := f.each(func(c *conn, t *tally) error {
		for time.Since(begin) < d && ctx.Err() == nil {
			if err := exchange(c); err != nil {
				if err = t.broke(ctx, c, err); err != nil {
					return err
				}
				continue
			}
			t.n++
		}
		return ctx.Err()
	})
	all.took = time.Since(begin)
	return all, err
}

// each runs a function for every connection at the same time, and adds up what
// they have done.
func (f fleet) each(run func(*conn, *tally) error) (all tally, err error) {
	var wg sync.WaitGroup
	tallies, errs := make([]tally, len(f)), make([]error, len(f))
	for i, c := range f {
		wg.Go(func() { errs[i] = run(c, &tallies[i]) })
	}
	wg.Wait()
	for i, t := range tallies {
		all.n += t.n
		all.broken += t.broken
		if err == nil {
			err = errs[i]
		}
	}
	return all, err
}

// atRate starts perSecond exchanges a second for a while, each on a connection
// that is free, and returns how long each took from the time at which it was due.
func (f fleet) atRate(ctx context.Context, d time.Duration, perSecond int, exchange func(*conn) error) ([]time.Duration, tally, error) {
	total := int(d.Seconds() * float64(perSecond))
	starts := make(chan time.Time, total) // never blocks
	var clock sync.WaitGroup
	defer clock.Wait()
	clock.Go(func() {
		defer close(starts)
		every := time.NewTicker(time.Second / time.Duration(perSecond))
		defer every.Stop()
		for n := 0; n < total && ctx.Err() == nil; n++ {
			<-every.C
			starts <- time.Now()
		}
	})
	var mu sync.Mutex
	times := make([]time.Duration, 0, total)
	all, err := f.each(func(c *conn, t *tally) error {
		for due := range starts {
			if err := exchange(c); err != nil {
				if err = t.broke(ctx, c, err); err != nil {
					return err
				}
				continue
			}
			took := time.Since(due)
			mu.Lock()
			times = append(times, took)
			mu.Unlock()
		}
		return ctx.Err()
	})
	return times, all, err
}
