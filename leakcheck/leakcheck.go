// Package leakcheck fails the tests of a package that leave goroutines behind. One that
// outlives its test may also spoil another, far from its cause.
package leakcheck

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines that are about to end have for it on a busy machine.
const patience = 10 * time.Second

// Main is for TestMain: it runs the tests, and ends the process with their result.
func Main(m *testing.M) { os.Exit(Check(m.Run())) }

// Check returns the result of the tests, or a failure if they pass and leave goroutines.
func Check(code int) int {
	if code != 0 {
		return code
	}
	if err := left(patience); err != nil {
		fmt.Fprintln(os.Stderr, "the tests pass, but they left goroutines behind:", err)
		return 1
	}
	return 0
}

// left waits until no goroutine is left but the caller's, or says which are.
func left(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find() // which itself tries again for about a second
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
