package limits

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindowAt(t *testing.T) {
	monthly := &Limit{Dimension: Spend, Monthly: true}
	days := func(n int) *Limit { return &Limit{Dimension: Spend, Window: time.Duration(n) * 24 * time.Hour} }
	for _, test := range []struct {
		limit          *Limit
		at, start, end string
	}{
		{monthly, "2026-11-25T03:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"},
		{monthly, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{monthly, "2028-02-29T12:00:00+09:00", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{monthly, "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{days(1), "2026-11-25T03:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"},
		{days(7), "2026-11-25T03:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"}, // Mondays
		{days(7), "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"},
		{days(30), "1970-01-05T00:00:00Z", "1970-01-05T00:00:00Z", "1970-02-04T00:00:00Z"},
		{days(30), "1970-01-04T23:59:59Z", "1969-12-06T00:00:00Z", "1970-01-05T00:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		start, end := test.limit.WindowAt(at.UnixMicro())
		got := [2]string{time.UnixMicro(start).UTC().Format(time.RFC3339), time.UnixMicro(end).UTC().Format(time.RFC3339)}
		if got != [2]string{test.start, test.end} {
			t.Errorf("%s in a window per %s: %v", test.at, test.limit.Period(), got)
		}
	}
}

// covers LIM-05: a clock that steps over the end of a window and back opens one
// window, once.
func TestBudgetClockSteps(t *testing.T) {
	l := &Limit{Dimension: Spend, Window: 24 * time.Hour, Amount: 100}
	hour := time.Hour.Microseconds()
	p := Purse{}.At(l, 20*day+23*hour+hour/2)
	p.Spent = 100
	p = p.At(l, 21*day+hour/2) // an hour ahead
	if p.Spent != 0 {
		t.Fatal("a new window is not whole")
	}
	p.Spent = 70
	for _, at := range []int64{20*day + 23*hour + hour/2, 21 * day, 21*day + 23*hour} {
		if p = p.At(l, at); p.Spent != 70 {
			t.Fatalf("at %d the window is another one", at)
		}
		if left := p.Left(l, at); left <= 0 || left > 25*hour {
			t.Errorf("at %d it lasts %d µs more", at, left)
		}
	}
}

func TestBudgetRequestLargerThanTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		l := &Limit{ID: "b", Dimension: Spend, Monthly: true, Amount: 100, Burst: 100}
		_, err := Reserve(context.Background(), store, []*Limit{l}, Cost{MicroUSD: 101, PredictedMicroUSD: 0})
		if e := new(Exceeded); !errors.As(err, &e) || e.Reason != ReasonTooLarge {
			t.Errorf("%v, want that it can never fit", err)
		}
		// Only the prediction is too large: the whole budget is reserved.
		lease, err := Reserve(context.Background(), store, []*Limit{l}, Cost{MicroUSD: 300, PredictedMicroUSD: 290})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Reserve(context.Background(), store, []*Limit{l}, Cost{MicroUSD: 1}); err == nil {
			t.Error("something is left beside it")
		}
		lease.Extend(Cost{Output: 5, MicroUSD: 50})
		lease.Settle(Cost{MicroUSD: 30})
		levels, _ := store.Levels(context.Background(), []*Limit{l})
		if levels[0].Remaining != 70 {
			t.Errorf("%d left, want 70", levels[0].Remaining)
		}
	})
}

func TestUSD(t *testing.T) {
	for micro, want := range map[int64]string{0: "$0", 100e6: "$100", 250_000: "$0.25", 13: "$0.000013", -1_500_000: "-$1.50", 1_000_001: "$1.000001"} {
		if got := USD(micro); got != want {
			t.Errorf("%d: %s, want %s", micro, got, want)
		}
	}
}

func TestPeriodsReadWell(t *testing.T) {
	for window, want := range map[time.Duration]string{
		time.Second: "second", 10 * time.Second: "10 seconds", time.Minute: "minute", 90 * time.Second: "90 seconds",
		time.Hour: "hour", 6 * time.Hour: "6 hours", 24 * time.Hour: "day", 30 * 24 * time.Hour: "30 days", 1500 * time.Millisecond: "1.5s",
	} {
		if got := (&Limit{Window: window}).Period(); got != want {
			t.Errorf("%v: %q, want %q", window, got, want)
		}
	}
}
