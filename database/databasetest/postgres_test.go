package databasetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestRemoveOld(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		fmt.Sprintf("penstock-pg-%d-1", os.Getpid()):          true,
		fmt.Sprintf("penstock-pg-%d-2", ended.Process.Pid):    false,
		fmt.Sprintf("penstock-other-%d-3", ended.Process.Pid): true,
		"penstock-pg-x": true,
	} {
		dir := filepath.Join(os.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		removeOld()
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %v", name, err == nil)
		}
	}
}
