//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"penstock/freeport"
)

// redisWarm is how long limits in Redis are used before anything is measured.
const redisWarm = 1500 * time.Millisecond

// startRedis starts a Redis that keeps nothing on disk, or returns nil where there
// is none.
func startRedis(ctx context.Context, dir string, progress io.Writer) (*process, error) {
	program := find(ctx, progress, "redis-server", "redis-server")
	if program == "" {
		return nil, nil
	}
	addr, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(addr, ":")
	return start(ctx, dir, "redis", addr, nil, program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", dir)
}

// calls is how often a gateway has called Redis, and what time that took.
type calls struct{ n, seconds float64 }

// calls reads them from the target's metrics. They are 0 where it has no Redis.
func (m *measurement) calls(ctx context.Context) (c calls, err error) {
	if !m.target.shares {
		return c, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.target.admin+"/metrics", http.NoBody)
	if err != nil {
		return c, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return c, fmt.Errorf("read the metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		n, err := strconv.ParseFloat(value, 64)
		switch name, _, _ = strings.Cut(name, "{"); {
		case err != nil:
		case name == "penstock_store_call_seconds_count":
			c.n += n
		case name == "penstock_store_call_seconds_sum":
			c.seconds += n
		}
	}
	if c.n == 0 && lines.Err() == nil {
		return c, errors.New("the metrics do not tell of calls to Redis")
	}
	return c, lines.Err()
}

// shared adds what limits in Redis cost: calls for each request, and beside them
// the time of one, and of a PING.
func (m *measurement) shared(ctx context.Context, before calls, requests int) error {
	if !m.target.shares {
		return nil
	}
	after, err := m.calls(ctx)
	if err != nil {
		return err
	}
	n := after.n - before.n
	m.add("calls", m.system, n/float64(max(1, requests)))
	if m.system != sysSmall {
		return nil
	}
	m.add("p50", sysCall, (after.seconds-before.seconds)/max(1, n)*1000)
	ping, err := pings(ctx, m.redis, m.rate)
	if err != nil {
		return fmt.Errorf("ping Redis: %w", err)
	}
	m.add("p50", sysPing, quantile(ping, 0.50))
	return nil
}

// pings measures round trips to Redis for half a second, at a rate.
func pings(ctx context.Context, addr string, perSecond int) ([]time.Duration, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	every := time.NewTicker(time.Second / time.Duration(perSecond))
	defer every.Stop()
	answers := bufio.NewReader(c)
	out := make([]time.Duration, perSecond/2)
	for i := range out {
		<-every.C
		began := time.Now()
		if _, err := io.WriteString(c, "PING\r\n"); err != nil {
			return nil, err
		}
		if _, err := answers.ReadString('\n'); err != nil {
			return nil, err
		}
		out[i] = time.Since(began)
	}
	return out, nil
}
