package faults

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers LIFE-01: a log whose reader has stalled, or has gone, stops no request and
// no drain.
func TestLogWithoutAReader(t *testing.T) {
	for _, gone := range []bool{false, true} {
		name := map[bool]string{false: "stalled", true: "gone"}[gone]
		t.Run(name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "log")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := os.OpenFile(pipe, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			g := harness.StartUnder(t, "exec 2>"+pipe, one(harness.Serve(t, newUpstream(answers)), ""))
			if gone {
				_ = r.Close()
			}
			s := dial(t, g)
			for range 300 { // more than a pipe holds
				s.post(hello)
				resp := s.response()
				if resp.StatusCode != 200 {
					t.Fatalf("answered %d", resp.StatusCode)
				}
				if _, err := s.r.Discard(len(answer)); err != nil {
					t.Fatal(err)
				}
			}
			s.fin()
			g.Signal(t, syscall.SIGTERM)
			if code := g.Wait(t, 30*time.Second); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
