package tokens

import (
	"fmt"
	"testing"
)

func estimator() *Estimator { return New(Config{BytesPerToken: 4, FirstOutput: 1024}) }

func TestInputIsCorrectedByTarget(t *testing.T) {
	e := estimator()
	if got := e.Input("a", 400, 765); got != 865 {
		t.Errorf("first estimate %d, want 865", got)
	}
	for range 50 {
		e.LearnInput("a", 400, 765, 925) // JSON: 160 tokens where 100 were expected
	}
	if got := e.Input("a", 400, 765); got != 925 {
		t.Errorf("learned estimate %d, want 925", got)
	}
	if got := e.Input("b", 400, 0); got != 100 {
		t.Errorf("another target learned too: %d", got)
	}
	e.LearnInput("b", 400, 0, 1<<40)
	if got := e.Input("b", 400, 0); got > 1000 {
		t.Errorf("a mad report moved the estimate to %d", got)
	}
}

// Short prompts, to which a provider adds as much as they say, do not speak for
// long ones: an estimate that is too low for those is refused for ever, and one that
// is too high holds back what they could use.
func TestShortPromptsDoNotSpeakForLongOnes(t *testing.T) {
	for _, c := range []struct {
		short int64 // tokens reported for 24 bytes
		low   int64 // bounds for 32,000 bytes of which none were seen
		high  int64
	}{{5, 7900, 8000}, {12, 8000, 8500}} {
		e := estimator()
		for range 100 {
			e.LearnInput("a", 24, 0, c.short)
		}
		if got := e.Input("a", 24, 0); got < c.short-1 || got > c.short {
			t.Errorf("short: %d, want %d", got, c.short)
		}
		if got := e.Input("a", 32_000, 0); got < c.low || got > c.high {
			t.Errorf("long, after short ones of %d tokens: %d, want %d to %d", c.short, got, c.low, c.high)
		}
		for range 100 {
			e.LearnInput("a", 32_000, 0, 12_000)
			e.LearnInput("a", 24, 0, c.short)
		}
		if got := e.Input("a", 40_000, 0); got < 14_900 || got > 15_000 {
			t.Errorf("long: %d, want 15,000 in proportion", got)
		}
	}
}

func TestOutputIsAMovingP90(t *testing.T) {
	e := estimator()
	if got := e.Output("t", "m", 0); got != 1024 {
		t.Errorf("first prediction %d", got)
	}
	if got := e.Output("t", "m", 100); got != 100 {
		t.Errorf("prediction %d above the request's own limit", got)
	}
	for range 10 {
		e.LearnOutput("t", "m", 7)
	}
	if got := e.Output("t", "m", 0); got != 1024 {
		t.Errorf("prediction %d: the first to end are the short ones", got)
	}
	for i := range 1000 {
		e.LearnOutput("t", "m", int64(i%100))
	}
	if got := e.Output("t", "m", 0); got < 80 || got > 99 {
		t.Errorf("p90 of 0…99 is %d", got)
	}
	for range 100 {
		e.LearnOutput("t", "m", 7)
	}
	if got := e.Output("t", "m", 0); got != 7 {
		t.Errorf("p90 %d does not move", got)
	}
}

func TestTablesAreBounded(t *testing.T) {
	e := estimator()
	for i := range 2 * maxEntries {
		e.LearnOutput("t", fmt.Sprint(i), 1)
		e.LearnInput(fmt.Sprint(i), 400, 0, 100)
	}
	if len(e.output) > maxEntries || len(e.ratio) > maxEntries {
		t.Errorf("%d and %d entries", len(e.output), len(e.ratio))
	}
}
