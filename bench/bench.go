//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// A bench measures systems in rounds.
type bench struct {
	dir      string
	plan     plan
	systems  []system
	redis    string // address, or empty
	results  *results
	progress io.Writer

	upstream *process
	running  map[string]*process
}

// run measures the loads whose names are listed, or all. It leaves no process
// behind.
func (b *bench) run(ctx context.Context, only string) error {
	var err error
	if b.upstream, err = startChild(ctx, b.dir, roleUpstream, ""); err != nil {
		return err
	}
	defer b.upstream.stop()
	b.running = make(map[string]*process)
	defer func() {
		for _, p := range b.running {
			p.stop()
		}
	}()
	for _, s := range b.systems {
		if s.start == nil {
			continue
		}
		if b.running[s.name], err = s.start(ctx, b.dir, b.upstream.addr); err != nil {
			delete(b.running, s.name)
			return err
		}
	}
	begin := time.Now()
	for round := range b.plan.rounds {
		began := time.Now()
		fmt.Fprintf(b.progress, "round %d of %d\n", round+1, b.plan.rounds)
		if err := b.round(ctx, only); err != nil {
			return err
		}
		if left := b.plan.limit - time.Since(begin); time.Since(began) > left && round+1 < b.plan.rounds {
			fmt.Fprintf(b.progress, "another round would not fit in %s\n", b.plan.limit)
			break
		}
	}
	return nil
}

func wanted(only, load string) bool {
	return only == "" || slices.Contains(strings.Split(only, ","), load)
}

// round puts every system under every load, one after the other.
func (b *bench) round(ctx context.Context, only string) error {
	for _, l := range loads {
		if !wanted(only, l.name) {
			continue
		}
		for _, s := range b.systems {
			if s.only != "" && s.only != l.name || s.start == nil && l.fresh {
				continue
			}
			if err := b.one(ctx, s, l.fresh, l.run); err != nil {
				return fmt.Errorf("%s, load %s: %w", s.name, l.name, err)
			}
		}
	}
	return nil
}

func (b *bench) one(ctx context.Context, s system, fresh bool, run func(*measurement, context.Context) error) error {
	target := b.upstream
	switch {
	case s.start == nil:
	case fresh:
		p, err := s.start(ctx, b.dir, b.upstream.addr)
		if err != nil {
			return err
		}
		defer p.stop()
		target = p
	default:
		target = b.running[s.name]
	}
	m := &measurement{plan: b.plan, results: b.results, system: s.name, target: target, upstream: b.upstream.addr, redis: b.redis}
	return run(m, ctx)
}

// writeProfile puts penstock alone under the loads that cost CPU, and keeps its
// CPU profile. As cmd/penstock/default.pgo, go build takes it for profile-guided
// optimisation.
func writeProfile(ctx context.Context, dir, binary, path, only string, p plan) error {
	upstream, err := startChild(ctx, dir, roleUpstream, "")
	if err != nil {
		return err
	}
	defer upstream.stop()
	target, err := penstock(binary, variant{log: true, admin: true})(ctx, dir, upstream.addr)
	if err != nil {
		return err
	}
	defer target.stop()
	p.slice *= 4
	m := &measurement{plan: p, results: newResults(), system: sysPenstock, target: target, upstream: upstream.addr}
	done := make(chan error, 1)
	loading, stop := context.WithCancel(ctx)
	go func() {
		for loading.Err() == nil {
			for _, l := range loads[:4] {
				if !wanted(only, l.name) {
					continue
				}
				if err := l.run(m, loading); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	took := 5 * (p.slice + p.window + time.Second)
	err = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", target.admin, int(took.Seconds())), path)
	stop()
	if failed := <-done; failed != nil && loading.Err() == nil {
		return failed
	}
	return err
}

// fetch stores what a URL answers.
func fetch(ctx context.Context, from, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch the profile: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	if err != nil {
		return fmt.Errorf("fetch the profile: %w", err)
	}
	return os.WriteFile(path, body, 0o644)
}
