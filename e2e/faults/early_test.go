package faults

import (
	"os/exec"
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
	harness.Eventually(t, 5*time.Second, "the upstream is asked", reached(u, 1))
	g.Signal(t, syscall.SIGHUP)
	g.Signal(t, syscall.SIGTERM)
	for range 20 {
		_ = g.Cmd.Process.Signal(syscall.SIGHUP)
	}
	if resp := s.response(); resp.StatusCode != 200 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	if code := g.Wait(t, 10*time.Second); code != 0 {
		t.Errorf("exit code %d after SIGHUP in the drain", code)
	}

	for _, after := range []int{20, 50, 100, 200, 400} {
		cmd := exec.Command(g.Cmd.Path, g.Cmd.Args[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(after) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		killed.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || status.Signal() != syscall.SIGTERM) { // so early that nobody listened yet
			t.Errorf("SIGTERM after %d ms of starting: %v", after, err)
		}
	}
}
