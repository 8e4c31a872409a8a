package limits

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLearnsFromHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a")
		level := func() int64 {
			ls := up.Limits()
			levels, _ := w.m.Levels(t.Context(), ls)
			return levels[0].Remaining
		}
		(&Grant{Lease: &Lease{}, Target: up}).Learn(Stated{Dimension: Requests, Limit: 500, Remaining: 400, Reset: 12 * time.Second, Sent: time.Now()})
		ls := up.Limits()
		if len(ls) != 1 || ls[0].Amount != 500 || ls[0].Window != time.Minute {
			t.Fatalf("adopted %v, want 500 per minute", ls)
		}
		if got := level(); got != 400 {
			t.Errorf("level %d, want 400", got)
		}
		// An old statement counts what was refilled since.
		sent := time.Now()
		time.Sleep(6 * time.Second)
		(&Grant{Lease: &Lease{}, Target: up}).Learn(Stated{Dimension: Requests, Limit: 500, Remaining: 300, Reset: 24 * time.Second, Sent: sent})
		if got := level(); got != 350 {
			t.Errorf("level %d, want 350", got)
		}
		(&Grant{Lease: &Lease{}, Target: up}).Learn(Stated{Dimension: Requests, Limit: 500, Remaining: 499, Reset: 120 * time.Millisecond, Sent: time.Now()})
		if got := level(); got != 350 {
			t.Errorf("level %d: a statement above ours must not raise it", got)
		}
		// A daily limit is told from a minute's.
		if got := (Stated{Limit: 14400, Remaining: 14399, Reset: 6 * time.Second}).window(); got != 24*time.Hour {
			t.Errorf("window %v, want a day", got)
		}
	})
}

func TestConfiguredLimitsAreNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		own := rateLimit("a", Requests, 100, time.Minute)
		up := w.target("a", own)
		g, err := w.q.Acquire(t.Context(), request("t", 1, 1, up))
		if err != nil {
			t.Fatal(err)
		}
		g.Learn(Stated{Dimension: Requests, Limit: 500, Remaining: 20, Reset: 57 * time.Second, Sent: time.Now()})
		if ls := up.Limits(); len(ls) != 1 || ls[0] != own {
			t.Fatalf("limits %v", ls)
		}
		if levels, _ := w.m.Levels(t.Context(), []*Limit{own}); levels[0].Remaining != 20 {
			t.Errorf("level %d, want the 20 that the provider has left", levels[0].Remaining)
		}
		up.Configure([]*Limit{own}, false)
		g.Learn(Stated{Dimension: Tokens, Limit: 500, Remaining: 20, Sent: time.Now()})
		if ls := up.Limits(); len(ls) != 1 {
			t.Errorf("learned although it must not: %v", ls)
		}
	})
}

// A provider that states less than is configured refuses what is configured, so
// what it states is kept to, until it states more again.
func TestStatedLimitBelowTheConfiguredOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		own := rateLimit("a", Requests, 100, time.Minute)
		up := w.target("a", own)
		learn := func(limit, remaining int64, reset time.Duration) []*Limit {
			g, err := w.q.Acquire(t.Context(), request("t", 1, 1, up))
			if err != nil {
				t.Fatal(err)
			}
			defer g.Settle(Cost{Requests: 1})
			g.Learn(Stated{Dimension: Requests, Limit: limit, Remaining: remaining, Reset: reset, Sent: time.Now()})
			return up.Limits()
		}
		ls := learn(50, 40, 12*time.Second)
		if len(ls) != 2 || ls[0].Amount != 50 || ls[0].Window != time.Minute || ls[1] != own {
			t.Fatalf("limits %v, want 50 beside the configured 100", ls)
		}
		if levels, _ := w.m.Levels(t.Context(), ls[:1]); levels[0].Remaining != 40 {
			t.Errorf("level %d, want the 40 that the provider has left", levels[0].Remaining)
		}
		if ls := learn(50, 30, 0); len(ls) != 2 {
			t.Errorf("limits %v: a statement without a reset has ended what was learned", ls)
		}
		if ls := learn(10, 9, time.Hour); len(ls) != 2 || ls[0].Amount != 50 {
			t.Errorf("limits %v: another window's limit was taken for a minute's", ls)
		}
		if ls := learn(200, 100, 30*time.Second); len(ls) != 1 {
			t.Errorf("limits %v, want the configured one alone", ls)
		}
	})
}

func TestSlowsDownAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a", slotsOf("a", 10))
		outcomes := func(n, rejected int) {
			for i := range n {
				up.Outcome(i < rejected)
			}
		}
		outcomes(50, 5)
		if up.Scale() != 1 {
			t.Error("10 % rejects slowed it down")
		}
		outcomes(50, 6)
		if up.Scale() != 0.8 {
			t.Errorf("scale %v after a window of 12 %% rejects", up.Scale())
		}
		outcomes(50, 3)
		if up.Scale() != 0.8 {
			t.Errorf("scale %v: 6 %% holds", up.Scale())
		}
		for range 3 {
			time.Sleep(slowDwell)
			up.Outcome(false)
		}
		if s := up.Scale(); s < 0.859 || s > 0.861 {
			t.Errorf("scale %v after three clean windows", s)
		}
		for range 100 {
			outcomes(50, 50)
		}
		if up.Scale() != 0.05 {
			t.Errorf("floor %v", up.Scale())
		}
	})
}

// An upstream that says nothing but 429 is asked as often as it has accepted, which
// is let grow until it refuses again, and forgotten once it is at ease.
func TestUnlimitedUpstreamGetsAPaceWhenItRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newWorld().target("a")
		outcomes := func(n, rejected int) {
			time.Sleep(10 * time.Second)
			for i := range n {
				up.Outcome(i < rejected)
			}
		}
		pace := func() (perMinute float64) {
			for _, l := range up.Limits() {
				if l.Dimension == Requests {
					perMinute = float64(l.Amount) * up.Scale() / l.Window.Minutes()
				}
			}
			return perMinute
		}
		outcomes(50, 30) // 20 in 10 s
		if p := pace(); p < 119 || p > 121 {
			t.Errorf("%v a minute, want the 120 that it accepts", p)
		}
		outcomes(50, 3)
		if p := pace(); p < 125 || p > 127 {
			t.Errorf("%v a minute, want 5 %% more after a window with 6 %% rejects", p)
		}
		for range 20 {
			outcomes(50, 0)
		}
		if ls := up.Limits(); len(ls) != 0 {
			t.Errorf("limits %v after many clean windows", ls)
		}
		for range 9 {
			outcomes(1, 1)
		}
		if p := pace(); p != 0 {
			t.Errorf("%v a minute from too few answers", p)
		}
	})
}

func TestUnlimitedUpstreamGetsACeilingWhenItRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a")
		for range 100 {
			if _, err := w.q.Acquire(t.Context(), request("t", 1, 1, up)); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			up.Outcome(true)
		}
		ls := up.Limits()
		if len(ls) != 1 || ls[0].Dimension != Concurrency || ls[0].Amount != 100 || up.Scale() != 0.8 {
			t.Errorf("limits %v at %v", ls, up.Scale())
		}
	})
}

func TestPauseHoldsEverybodyThenLetsThemGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		up := w.target("a")
		begin := time.Now()
		up.Pause(begin.Add(3 * time.Second))
		up.Pause(begin.Add(time.Second)) // never shortened
		if _, err := w.q.Acquire(t.Context(), request("t", 1, 1, up)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("started after %v, want 3 s", took)
		}
	})
}
