//go:build linux

// Bench compares Penstock with a bare reverse proxy, nginx and the upstream
// itself: CPU per request and per chunk, delay, throughput and memory. Everything
// runs on this machine's loopback, one system after the other within each round,
// so that what disturbs one disturbs all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if isChild() {
		os.Exit(runChild())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		stop()
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	short   bool
	rounds  int
	only    string
	binary  string
	old     string
	profile string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.short, "short", false, "take less than a minute; the figures are rougher")
	f.IntVar(&o.rounds, "rounds", 0, "number of rounds (default 4, or 2 with -short)")
	f.StringVar(&o.only, "only", "", "comma-separated loads: "+strings.Join(loadNames(), ", ")+" (default all)")
	f.StringVar(&o.binary, "penstock", "", "penstock binary (default: build ./cmd/penstock)")
	f.StringVar(&o.old, "old", "", "another penstock binary to measure in the same rounds")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of penstock under load to this file, and measure nothing")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.only != "" {
		for name := range strings.SplitSeq(o.only, ",") {
			if !slices.Contains(loadNames(), name) {
				return fmt.Errorf("-only: unknown load %q; there are %s", name, strings.Join(loadNames(), ", "))
			}
		}
	}
	dir, err := os.MkdirTemp("", "penstock-bench-")
	if err != nil {
		return fmt.Errorf("make a working directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		fmt.Fprintln(stderr, "building penstock")
		if o.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	p := full
	if o.short {
		p = short
	}
	if o.rounds > 0 {
		p.rounds = o.rounds
	}
	if o.profile != "" {
		return writeProfile(ctx, dir, o.binary, o.profile, o.only, p)
	}
	redis, err := startRedis(ctx, dir, stderr)
	if err != nil {
		return err
	}
	with := others{old: o.old, nginx: find(ctx, stderr, "nginx", "nginx")}
	if redis != nil {
		defer redis.stop()
		with.redis = redis.addr
	}
	b := &bench{dir: dir, plan: p, systems: systems(o.binary, with), redis: with.redis, results: newResults(), progress: stderr}
	if err := b.run(ctx, o.only); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s, %d CPUs, %s, %s/%s\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	b.results.table(stdout, o.old != "")
	b.results.redis(stdout)
	if info, err := os.Stat(o.binary); err == nil {
		fmt.Fprintf(stdout, "\nThe binary of penstock has %.1f MiB.\n", float64(info.Size())/(1<<20))
	}
	return b.results.failure()
}

// build compiles penstock as it is shipped.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "penstock")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "penstock/cmd/penstock")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build penstock: %w; run bench from within the module\n%s", err, out)
	}
	return path, nil
}
