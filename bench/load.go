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
	c       net.Conn
	r       *bufio.Reader
	request []byte
	scratch []byte
}

func dial(ctx context.Context, addr string, request []byte) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &conn{c: c, r: bufio.NewReaderSize(c, 8<<10), request: request, scratch: make([]byte, 32<<10)}, nil
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

// repeat lets every connection make exchanges for a while. It returns how many
// were made in all, and how long that took.
func (f fleet) repeat(ctx context.Context, d time.Duration, exchange func(*conn) error) (n int, took time.Duration, err error) {
	var wg sync.WaitGroup
	counts, errs := make([]int, len(f)), make([]error, len(f))
	begin := time.Now()
	for i, c := range f {
		wg.Go(func() {
			for errs[i] == nil && time.Since(begin) < d && ctx.Err() == nil {
				if errs[i] = exchange(c); errs[i] == nil {
					counts[i]++
				}
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	for _, c := range counts {
		n += c
	}
	return n, took, errors.Join(firstOf(errs), ctx.Err())
}

// atRate starts perSecond exchanges a second for a while, each on a connection
// that is free, and returns how long each took.
func (f fleet) atRate(ctx context.Context, d time.Duration, perSecond int, exchange func(*conn) error) ([]time.Duration, error) {
	total := int(d.Seconds() * float64(perSecond))
	starts := make(chan struct{}, total) // never blocks
	times, errs := make([][]time.Duration, len(f)), make([]error, len(f))
	var wg sync.WaitGroup
	for i, c := range f {
		wg.Go(func() {
			for range starts {
				begin := time.Now()
				if errs[i] = exchange(c); errs[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(begin))
			}
		})
	}
	every := time.NewTicker(time.Second / time.Duration(perSecond))
	for n := 0; n < total && ctx.Err() == nil; n++ {
		<-every.C
		starts <- struct{}{}
	}
	every.Stop()
	close(starts)
	wg.Wait()
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	return all, errors.Join(firstOf(errs), ctx.Err())
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
