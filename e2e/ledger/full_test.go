package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock/e2e/harness"
)

// covers DB-04: while no file may grow, as on a full disk, requests go on, a metric
// and the log say that rows wait; with room again they are written, without a
// restart, and nothing is damaged.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	g := harness.Start(t, config(provider(t)+"/v1", path)+"usage: {flush: 50ms}\n")
	if _, err := ask(g); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "a row is written", func() bool { return g.Metric(t, "penstock_ledger_rows_total") == 1 })
	room := func(bytes uint64) {
		t.Helper()
		limit := unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}
		if err := unix.Prlimit(g.Cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
			t.Fatal(err)
		}
	}
	wal, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	room(uint64(wal.Size()))
	const n = 200
	for i := range n {
		if _, err := ask(g); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	harness.Eventually(t, 30*time.Second, "the ledger counts as down", func() bool {
		return g.Metric(t, "penstock_ledger_up") == 0 && g.Metric(t, "penstock_ledger_errors_total") > 0
	})
	if _, err := ask(g); err != nil {
		t.Errorf("while the disk is full: %v", err)
	}
	room(unix.RLIM_INFINITY)
	harness.Eventually(t, 30*time.Second, "everything is written", func() bool {
		return g.Metric(t, "penstock_ledger_rows_total") == n+2 && g.Metric(t, "penstock_ledger_up") == 1
	})
	if g.Metric(t, "penstock_ledger_dropped_rows_total") != 0 {
		t.Error("rows were dropped")
	}
	if err := g.Stop(t, 30*time.Second); err != nil {
		t.Error(err)
	}
	if ids := kept(t, path); len(ids) != n+2 {
		t.Errorf("%d rows, want %d", len(ids), n+2)
	}
	logs := g.Logs()
	if c := strings.Count(logs, "usage cannot be written"); c != 1 || !strings.Contains(logs, "usage is written to the database again") {
		t.Errorf("said %d times that it cannot be written:\n%s", c, logs)
	}
}

// covers DB-05: a gateway does not start on a database that it cannot trust, and
// says which file it is and why.
func TestUnusableDatabaseStopsTheStart(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "no database": strings.Repeat("this is no database\n", 500)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "penstock.db")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, code := harness.Run(t, fmt.Sprintf("listen: %s\nadmin: {listen: %q}\n", harness.FreeAddress(t), harness.FreeAddress(t))+config("http://127.0.0.1:1/v1", path))
			if code == 0 || !strings.Contains(out, path) {
				t.Errorf("exit %d: %s", code, out)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != text {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}
