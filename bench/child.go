//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"penstock/freeport"
)

// Bench runs itself again for the fake upstream and the bare reverse proxy, so
// that each is a process whose CPU time can be told apart.
const (
	roleVar     = "PENSTOCK_BENCH_ROLE"
	addrVar     = "PENSTOCK_BENCH_LISTEN"
	upstreamVar = "PENSTOCK_BENCH_UPSTREAM"

	roleUpstream     = "upstream"
	roleReverseProxy = "reverse-proxy"
)

func isChild() bool { return os.Getenv(roleVar) != "" }

// runChild serves until it is killed. It returns an exit code.
func runChild() int {
	var h http.Handler = newUpstream()
	if os.Getenv(roleVar) == roleReverseProxy {
		target, err := url.Parse("http://" + os.Getenv(upstreamVar))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		h = reverseProxy(target)
	}
	s := &http.Server{Addr: os.Getenv(addrVar), Handler: h, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, "bench:", s.ListenAndServe())
	return 1
}

func startChild(ctx context.Context, dir, role, upstream string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	addr, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, role, addr, []string{roleVar + "=" + role, addrVar + "=" + addr, upstreamVar + "=" + upstream}, self)
}

// reverseProxy is httputil.ReverseProxy as somebody would tune it who knows it:
// connections are kept, buffers are pooled, and streams are flushed at once.
func reverseProxy(target *url.URL) http.Handler {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 4096
	t.DisableCompression = true
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     t,
		FlushInterval: -1,
		BufferPool:    &buffers{},
	}
}

// buffers are the copy buffers of the reverse proxy.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
