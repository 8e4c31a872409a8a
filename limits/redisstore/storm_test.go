package redisstore_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.buf.String()), "\n")
}

// covers DIST-03, DIST-04: 200 teams ask at once, again and again, while the server
// hangs, dies and comes back. Connections and goroutines stay few, the log short.
func TestStorm(t *testing.T) {
	t.Parallel()
	limitstest.Rounds(t, func(t testing.TB) {
		const teams = 200
		server := redistest.Start(t)
		var log lines
		s := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{
			Prefix: prefix(), Timeout: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		all := make([]*limits.Limit, teams)
		for i := range all {
			all[i] = limitstest.Bucket(fmt.Sprint("t", i), limits.Requests, 10_000, time.Second, 30)
		}
		rush := func() {
			var work sync.WaitGroup
			for _, l := range all {
				work.Go(func() { take(t, s, 1, l) })
			}
			work.Wait()
		}
		rush()
		before := runtime.NumGoroutine()
		for range 3 {
			server.Pause()
			rush()
			rush()
			server.Resume()
			within(t, 2*time.Second, "the server is used again", answers(s))
			rush()
			server.Kill()
			rush()
			server.Restart()
			within(t, 3*time.Second, "the server is used again", answers(s))
			rush()
		}
		info, err := server.Client().Info(t.Context(), "clients").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "connected_clients:")
		text, _, _ := strings.Cut(rest, "\r\n")
		if n, err := strconv.Atoi(text); err != nil || n > 80 {
			t.Errorf("%s connections (%v), want one pool of 64 and a few", text, err)
		}
		within(t, 5*time.Second, "the goroutines are gone", func() bool { return runtime.NumGoroutine() < before+600 })
		if got := log.all(); len(got) > 12 {
			t.Errorf("%d lines are logged:\n%s", len(got), strings.Join(got, "\n"))
		}
	})
}

// covers DIST-02: replicas whose clocks are ten minutes off, one way and the other,
// decide like one whose clock is right, also where a budget's window ends in between.
func TestClocksOfReplicas(t *testing.T) {
	t.Parallel()
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	p := prefix()
	stores := make([]*redisstore.Store, 3)
	for i, skew := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute} {
		stores[i] = redisstore.New(redisstore.Connect(server, time.Second), redisstore.Options{Prefix: p, Timeout: time.Second})
		stores[i].Skew(skew)
		stores[i].Run(func() {})
		t.Cleanup(func() { stores[i].Close() })
	}
	budget, rate := limitstest.Budget("budget", 1000, 0), limitstest.Bucket("rate", limits.Tokens, 1000, time.Hour, 1000)
	now := time.Now().UnixMicro()
	for minutes := int64(11); ; minutes++ { // a window that ends in less than ten minutes, and not at once
		budget.Window = time.Duration(minutes) * time.Minute
		if _, end := budget.WindowAt(now); end-now > 60e6 && end-now < 540e6 {
			break
		}
	}
	for _, l := range []*limits.Limit{budget, rate} {
		admitted := int64(0)
		for i := range 90 {
			if _, v := take(t, stores[i%3], 20, l); v.OK {
				admitted += 20
			}
		}
		if admitted != 1000 {
			t.Errorf("%s: %d admitted by three replicas, want 1000", l.ID, admitted)
		}
	}
}
