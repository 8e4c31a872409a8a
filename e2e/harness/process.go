package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Signal sends the process a signal.
func (g *Gateway) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := g.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Wait returns the exit code, -1 for a process that a signal ended. It fails the
// test if the process still runs after the time given.
func (g *Gateway) Wait(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case err := <-g.done:
		g.done <- err
		return g.Cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("penstock still runs after %v", within)
		return 0
	}
}

// Resident is the memory of the process, in bytes, without the pages of its own
// file, which the system can take back at any time.
func (g *Gateway) Resident(t testing.TB) int64 {
	return g.status(t, "VmRSS:") - g.status(t, "RssFile:")
}

// Peak is the most that Resident has been.
func (g *Gateway) Peak(t testing.TB) int64 { return g.status(t, "VmHWM:") - g.status(t, "RssFile:") }

func (g *Gateway) status(t testing.TB, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), name)
	kib, err := strconv.ParseInt(strings.Fields(rest + " x")[0], 10, 64)
	if err != nil {
		t.Fatalf("no %s of the process", name)
	}
	return kib << 10
}

// CPU is the processor time that the process has used.
func (g *Gateway) CPU(t testing.TB) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The fields behind the name, which may hold spaces: utime and stime are the
	// 14th and 15th of all, in hundredths of a second.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("cannot read %q", b)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Restart starts the process again, on the same addresses, after it has ended.
func (g *Gateway) Restart(t testing.TB) {
	t.Helper()
	<-g.done
	old := g.Cmd
	g.Cmd = exec.Command(old.Path, old.Args[1:]...)
	g.Cmd.Env = old.Env
	g.run(t)
	g.await(t)
}

// Run runs penstock with a whole configuration until it ends, at most 30 s, and
// returns what it wrote and its exit code.
func Run(t testing.TB, yaml string) (output string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), "serve", "--config", file)
	EndsWithTest(cmd)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("penstock did not end by itself: %v\n%s", err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
