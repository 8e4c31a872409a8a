package node

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"penstock/e2e/clients/stack"
)

// StackEnv names the file in which the suite finds the stack.
const StackEnv = "PENSTOCK_STACK"

// TestSuite runs the files in test/ by node's own test runner against one stack.
func TestSuite(t *testing.T) {
	if _, err := os.Stat("node_modules/openai/package.json"); err != nil {
		t.Fatalf("the packages are not installed: %v; run e2e/test.sh, or npm ci in e2e/node", err)
	}
	files, err := filepath.Glob("test/*.test.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	s := stack.Start(t)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stack.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{"--test", "--test-reporter=spec"}, files...)...)
	// Tracing and telemetry of the packages stay off, and no proxy comes between.
	cmd.Env = append(os.Environ(), StackEnv+"="+file, "LANGSMITH_TRACING=false", "NO_PROXY=127.0.0.1", "AI_SDK_LOG_WARNINGS=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	if passed := regexp.MustCompile(`(?m)^ℹ pass (\d+)$`).FindSubmatch(out); passed == nil || string(passed[1]) == "0" {
		t.Fatalf("no test has passed:\n%s", out)
	}
	if strings.Contains(string(out), "\nℹ skipped 0\n") == false {
		t.Errorf("tests were skipped:\n%s", out)
	}
	t.Logf("%s", out)
}
