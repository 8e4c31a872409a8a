package breaker

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func config() Config {
	return Config{Consecutive: 5, Ratio: 50, MinRequests: 20, Window: time.Minute, Open: 30 * time.Second, MaxOpen: 300 * time.Second, Probes: 1}
}

func attempt(t *testing.T, b *Breaker, o Outcome) {
	t.Helper()
	pass, err := b.Allow()
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	pass.Done(o)
	pass.Done(o) // counts once
}

func refusedFor(b *Breaker) time.Duration {
	_, err := b.Allow()
	var open *OpenError
	if errors.As(err, &open) {
		return open.After
	}
	return 0
}

// covers UP-05
func TestOpensProbesGrowsAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []State
		s := NewSet(config(), func(_ string, to State) { seen = append(seen, to) })
		b := s.Get("up/m")
		for range 4 {
			attempt(t, b, Failure)
		}
		attempt(t, b, Success)
		for range 5 {
			if refusedFor(b) != 0 {
				t.Fatal("opened early")
			}
			attempt(t, b, Failure)
		}
		for i, seconds := range []int{30, 60, 120, 240, 300, 300} {
			want := time.Duration(seconds) * time.Second
			left := refusedFor(b)
			if left < want*9/10 || left > want*11/10 {
				t.Fatalf("opening %d: %v left, want %v ± 10 %%", i, left, want)
			}
			time.Sleep(left)
			// One probe at once; the others are refused meanwhile.
			pass, err := b.Allow()
			if err != nil {
				t.Fatalf("no probe after the time that was stated: %v", err)
			}
			for range 63 {
				if refusedFor(b) == 0 {
					t.Fatal("a second probe was let through")
				}
			}
			pass.Done(Failure)
		}
		time.Sleep(refusedFor(b))
		attempt(t, b, Success)
		if state, _ := b.State(); state != Closed {
			t.Fatalf("%v after a good probe", state)
		}
		if seen[len(seen)-1] != Closed || seen[0] != Open {
			t.Errorf("transitions %v", seen)
		}
		for range 5 {
			attempt(t, b, Failure)
		}
		if left := refusedFor(b); left > 33*time.Second {
			t.Errorf("the time open did not start again at 30 s: %v", left)
		}
	})
}

// covers UP-04
func TestCancelsSayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewSet(config(), nil).Get("x")
		for range 4 {
			attempt(t, b, Failure)
		}
		for range 100 {
			attempt(t, b, Neither)
		}
		attempt(t, b, Failure)
		left := refusedFor(b)
		if left == 0 {
			t.Fatal("cancels broke the row of failures")
		}
		time.Sleep(left)
		for range 10 { // a cancelled probe gives its place back
			attempt(t, b, Neither)
		}
		attempt(t, b, Success)
		if refusedFor(b) != 0 {
			t.Error("did not close")
		}
	})
}

func TestRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewSet(config(), nil).Get("x")
		for i := range 19 {
			attempt(t, b, Outcome(i%2))
		}
		if refusedFor(b) != 0 {
			t.Fatal("opened below the least number of requests")
		}
		attempt(t, b, Failure)
		if refusedFor(b) == 0 {
			t.Fatal("half of 20 failed and it stayed closed")
		}
	})
}

// Answers slower than the window count all the same.
func TestSlowFailuresCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewSet(config(), nil).Get("x")
		var passes []Pass
		for range 5 {
			pass, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			passes = append(passes, pass)
		}
		time.Sleep(10 * time.Minute)
		for _, pass := range passes {
			pass.Done(Failure)
		}
		if refusedFor(b) == 0 {
			t.Error("five failures of ten minutes each did not open it")
		}
	})
}

func TestLateOutcomesDoNotDisturbAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewSet(config(), nil).Get("x")
		late, _ := b.Allow()
		for range 5 {
			attempt(t, b, Failure)
		}
		late.Done(Success)
		if refusedFor(b) == 0 {
			t.Error("an attempt from before closed it")
		}
	})
}

func TestReloadKeepsState(t *testing.T) {
	s := NewSet(config(), nil)
	for range 5 {
		attempt(t, s.Get("x"), Failure)
	}
	s.Configure(config())
	if s.Left("x") == 0 {
		t.Error("the same configuration lost the state")
	}
	s.Configure(Config{Disabled: true})
	if pass, err := s.Allow("x"); err != nil || s.Left("x") != 0 {
		t.Error("switched off and still refusing")
	} else {
		pass.Done(Failure)
	}
}

// Names that clients make up are bounded; the ones that are asked for stay.
func TestSetIsBounded(t *testing.T) {
	s := NewSet(Config{Consecutive: 1, MinRequests: 100, Ratio: 100, Window: time.Minute, Open: time.Hour, MaxOpen: time.Hour, Probes: 1}, nil)
	s.Report("a/broken", Failure)
	for i := range 5 * maxBreakers {
		if s.Left(fmt.Sprint("a/", i)) != 0 {
			t.Fatalf("%d is open", i)
		}
		if s.Left("a/broken") == 0 {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(s.all); n > maxBreakers {
		t.Errorf("%d breakers", n)
	}
}
