package leakcheck

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestLeft(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-stop
	}()
	if err := left(0); err == nil || !strings.Contains(err.Error(), "TestLeft") {
		t.Errorf("%v, want the goroutine of this test", err)
	}
	close(stop)
	<-done
	if err := left(time.Minute); err != nil {
		t.Error(err)
	}
}
