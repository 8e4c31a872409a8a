package main

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// covers RES-03: connections to upstreams stay within their half of the descriptors,
// until one is really closed, however many requests were given up.
func TestDialGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := errors.New("refused")
		var next error
		dial := newDialGate(4).dial(5*time.Second, func(context.Context, string, string) (net.Conn, error) {
			if next != nil {
				return nil, next
			}
			c, _ := net.Pipe()
			return c, nil
		})
		connect := func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", "up:443") }

		next = fails
		for range 3 { // takes no place
			if _, err := connect(t.Context()); !errors.Is(err, fails) {
				t.Errorf("got %v", err)
			}
		}
		next = nil
		first, err1 := connect(t.Context())
		second, err2 := connect(t.Context())
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		begin := time.Now()
		if _, err := connect(t.Context()); !errors.Is(err, syscall.EMFILE) || time.Since(begin) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, err := connect(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		time.AfterFunc(time.Second, func() {
			_ = first.Close()
			_ = first.Close() // gives one place back and not two
		})
		third, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := connect(t.Context()); err == nil {
			t.Error("a connection too many")
		}
		_, _ = second.Close(), third.Close()
	})
	if newDialGate(1<<16) != nil {
		t.Error("connections are counted where descriptors are many")
	}
}
