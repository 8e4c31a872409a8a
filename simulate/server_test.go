package simulate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are net.Pipe, for synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// inBubble runs a test against a real server and client in fake time.
func inBubble(t *testing.T, c Config, test func(t *testing.T, s *server)) {
	synctest.Test(t, func(t *testing.T) {
		p, l := New(c), newPipes()
		srv := &http.Server{Handler: p}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		transport := &http.Transport{DialContext: l.dial}
		test(t, &server{Provider: p, url: "http://simulator", client: &http.Client{Transport: transport}})
		transport.CloseIdleConnections()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		synctest.Wait()
		want(t, "open", p.Stats().Open, 0)
		want(t, "in flight", p.Stats().InFlight, 0)
	})
}

func TestStreamInFakeTime(t *testing.T) {
	inBubble(t, Config{TTFT: time.Second, TokenTime: time.Second, OutputTokens: 60}, func(t *testing.T, s *server) {
		resp, err := s.start(t.Context(), plain, "")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start, r, n := time.Now(), bufio.NewReader(resp.Body), 0
		for {
			line, err := r.ReadString('\n')
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(line, `"content":"`) {
				n++
			}
			if n > 1 && strings.Contains(line, `"content":"`) {
				want(t, fmt.Sprintf("time of event %d", n), time.Since(start), time.Duration(n-2)*time.Second)
			}
		}
		want(t, "role and tokens", n, 61)
		want(t, "completed", s.Stats().Streams.Completed, int64(1))
	})
}

// Every way of waiting ends when the client leaves, and gives the slot back.
func TestClientLeaves(t *testing.T) {
	for name, test := range map[string]struct{ body, directives string }{
		"before the first token": {plain, "ttft=1h"},
		"between tokens":         {plain, "token-time=1h"},
		"while reasoning":        {plain, "reasoning=10,token-time=1h"},
		"unstreamed":             {chatJSON, "ttft=1h"},
		"unstreamed, tokens":     {chatJSON, "token-time=1h"},
		"hang":                   {plain, "hang"},
		"stall at once":          {plain, "stall-after=0"},
		"stall":                  {plain, "stall-after=3"},
		"stall in split":         {plain, "stall-after=3,split=10"},
		"stall of JSON":          {chatJSON, "stall-after=3"},
		"slow body":              {chatJSON, "slow-body=1h"},
		"slow stream":            {plain, "slow-body=1h"},
		"comments":               {plain, "comment-first,ttft=1h"},
		"slow error":             {plain, "status=500,ttft=1h"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, fast(), func(t *testing.T, s *server) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, err := s.start(ctx, test.body, test.directives)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if err == nil {
					t.Fatal("the answer ended")
				}
				synctest.Wait()
				want(t, "open", s.Stats().Open, 0)
				want(t, "in flight", s.Stats().InFlight, 0)
				want(t, "abandoned", s.Stats().Abandoned, int64(1))
			})
		})
	}
}

func TestTokensOfAnAbandonedAnswer(t *testing.T) {
	for body, tokens := range map[string]int64{chatJSON: 5, plain: 5} {
		inBubble(t, Config{TTFT: time.Second, TokenTime: time.Second, OutputTokens: 60}, func(t *testing.T, s *server) {
			ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
			defer cancel()
			if resp, err := s.start(ctx, body, ""); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			synctest.Wait()
			want(t, "output", s.Stats().OutputTokens, tokens)
			want(t, "charged", s.Stats().Admitted.Tokens, tokens+3)
		})
	}
}

// covers RES-02 for the simulator itself: many clients that leave on sockets.
func TestManyClientsLeave(t *testing.T) {
	s := serve(t, Config{TTFT: NoWait, TokenTime: time.Millisecond, OutputTokens: 100_000, Concurrency: 100})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp, err := s.start(ctx, plain, "")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.idle(t)
	st := s.Stats()
	want(t, "aborted", st.Streams.Aborted, int64(50))
	want(t, "completed", st.Streams.Completed, int64(0))
}

// covers CL-01: an upload whose client leaves in the middle.
func TestClientLeavesDuringUpload(t *testing.T) {
	s := serve(t, fast())
	body, contentType := multi(t, make([]byte, 1<<16), "file", "purpose", "batch")
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/files", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := s.client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := io.WriteString(w, body[:len(body)/2]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "upload begun", func() bool { return s.Stats().Open == 1 })
	cancel()
	w.CloseWithError(context.Canceled) // the transport waits for a body that it is reading
	<-done
	s.idle(t)
	want(t, "abandoned", s.Stats().Abandoned, int64(1))
	want(t, "files", len(s.files.list("")), 0)
}

// covers RES-04 for the simulator itself: a large upload is not held.
func TestLargeUpload(t *testing.T) {
	s := serve(t, fast())
	head, tail, _ := strings.Cut(func() string { b, _ := multi(t, []byte("CONTENT"), "file", "purpose", "batch"); return b }(), "CONTENT")
	boundary, _, _ := strings.Cut(strings.TrimPrefix(head, "--"), "\r\n")
	const size = 64 << 20
	body := io.MultiReader(strings.NewReader(head), io.LimitReader(zeros{}, size), strings.NewReader(tail))
	resp, err := s.post(t, "/v1/files", "multipart/form-data; boundary="+boundary, body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(got), fmt.Sprintf(`"bytes":%d`, size)) {
		t.Errorf("%s (%v)", got, err)
	}
	want(t, "content kept", s.files.size, 0)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodyTooLarge(t *testing.T) {
	s := serve(t, fast())
	body := io.MultiReader(strings.NewReader(`{"model":"`), io.LimitReader(letters{}, maxBody), strings.NewReader(`"}`))
	resp, err := s.post(t, "/v1/chat/completions", "application/json", body)
	if err != nil {
		return // the connection may be closed before all is sent
	}
	defer resp.Body.Close()
	want(t, "status", resp.StatusCode, 413)
}

type letters struct{}

var manyLetters = bytes.Repeat([]byte{'a'}, 32<<10)

func (letters) Read(p []byte) (int, error) { return copy(p, manyLetters), nil }

// One write and one flush per event: what a client reads at once is one event.
func TestOneFlushPerEvent(t *testing.T) {
	w := &flushes{ResponseWriter: nil, header: http.Header{}}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/v1/chat/completions", strings.NewReader(chatStream))
	if err != nil {
		t.Fatal(err)
	}
	New(fast()).ServeHTTP(w, r)
	want(t, "flushes", len(w.flushed), 7+1) // one more at the end, with nothing in it
	for i, e := range w.flushed[:7] {
		if strings.Count(e, "\n\n") != 1 || !strings.HasSuffix(e, "\n\n") {
			t.Errorf("flush %d: %q", i, e)
		}
	}
}

type flushes struct {
	http.ResponseWriter
	header  http.Header
	now     string
	flushed []string
}

func (f *flushes) Header() http.Header { return f.header }
func (f *flushes) WriteHeader(int)     {}
func (f *flushes) Write(b []byte) (int, error) {
	f.now += string(b)
	return len(b), nil
}
func (f *flushes) Flush() { f.flushed, f.now = append(f.flushed, f.now), "" }

func BenchmarkStream(b *testing.B) {
	p := New(Config{TTFT: NoWait, TokenTime: NoWait, OutputTokens: 1000})
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequestWithContext(b.Context(), "POST", "/v1/chat/completions", strings.NewReader(plain))
		if err != nil {
			b.Fatal(err)
		}
		p.ServeHTTP(&discard{header: http.Header{}}, r)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/token")
}

func BenchmarkJSON(b *testing.B) {
	p := New(Config{TTFT: NoWait, TokenTime: NoWait, OutputTokens: 100})
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequestWithContext(b.Context(), "POST", "/v1/chat/completions", strings.NewReader(chatJSON))
		if err != nil {
			b.Fatal(err)
		}
		p.ServeHTTP(&discard{header: http.Header{}}, r)
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) Flush()                      {}
