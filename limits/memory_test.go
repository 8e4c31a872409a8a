package limits_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
)

func TestMemoryConforms(t *testing.T) {
	limitstest.Run(t, func(testing.TB) limits.Store { return limits.NewMemory() }, func(d time.Duration) {
		timer := time.NewTimer(d)
		<-timer.C
	})
}

func TestMemoryForgetsIdleBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := limits.NewMemory()
		for i := range 20_000 {
			l := limitstest.Bucket("b"+time.Duration(i).String(), limits.Requests, 1000, time.Second, 10)
			if v, _ := m.Take(context.Background(), 1, nil, []limits.Charge{{Limit: l, N: 1}}); !v.OK {
				t.Fatal("refused")
			}
			time.Sleep(time.Millisecond) // virtual: the bucket is full again
		}
		if n := m.Len(); n > 8192 {
			t.Errorf("%d levels kept, want at most 8192", n)
		}
	})
}
