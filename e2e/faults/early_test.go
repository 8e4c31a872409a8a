package faults

import (
	"bufio"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers LIFE-01, LIFE-04: signals that come while the process starts, or drains, break
// nothing: SIGHUP does not end it, SIGTERM does.
func TestSignalsAtAnyTime(t *testing.T) {
	u := newUpstream(answersAfter(500 * time.Millisecond))
	g := harness.Start(t, one(harness.Serve(t, u), ""))
	s := dial(t, g)
	s.post(hello)
	harness.Eventually(t, 30*time.Second, "the upstream is asked", reached(u, 1))
	g.Signal(t, syscall.SIGHUP)
	g.Signal(t, syscall.SIGTERM)
	for range 20 {
		_ = g.Cmd.Process.Signal(syscall.SIGHUP)
	}
	if resp := s.response(); resp.StatusCode != 200 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	if code := g.Wait(t, 30*time.Second); code != 0 {
		t.Errorf("exit code %d after SIGHUP in the drain", code)
	}

	bare := exec.Command(g.Cmd.Path)
	bare.Env = []string{"PENSTOCK_LISTEN=127.0.0.1:0", "PENSTOCK_ADMIN_LISTEN=off", "OPENAI_UPSTREAM_URL=http://127.0.0.1:9"}
	log, err := bare.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	harness.EndsWithTest(bare)
	if err := bare.Start(); err != nil {
		t.Fatal(err)
	}
	killed := time.AfterFunc(30*time.Second, func() { _ = bare.Process.Kill() })
	defer killed.Stop()
	for line := bufio.NewScanner(log); line.Scan(); {
		if strings.Contains(line.Text(), "penstock is listening") {
			_ = bare.Process.Signal(syscall.SIGHUP)
		}
		if strings.Contains(line.Text(), "no configuration file to load again") {
			_ = bare.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := bare.Wait(); err != nil {
		t.Errorf("without a file, SIGHUP and SIGTERM: %v", err)
	}

	for _, after := range []int{20, 50, 100, 200, 400} {
		cmd := exec.Command(g.Cmd.Path, g.Cmd.Args[1:]...)
		harness.EndsWithTest(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(after) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		killed.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || status.Signal() != syscall.SIGTERM) { // so early that nobody listened yet
			t.Errorf("SIGTERM after %d ms of starting: %v", after, err)
		}
	}
}
