package simulate

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestParseFaults(t *testing.T) {
	for text, canonical := range map[string]string{
		"":                              "",
		" , ;":                          "",
		"status=503":                    "status=503",
		"status=429;retry-after=2":      "status=429,retry-after=2",
		" reset ,no-usage":              "reset,no-usage",
		"garbage":                       "garbage=json",
		"garbage=html":                  "garbage=html",
		"reset-after=3":                 "reset-after=3",
		"reset-after=0b":                "reset-after=0b",
		"reset-after=3,reset-after=4b":  "reset-after=4b",
		"comment-first":                 "comment-first=1",
		"slow-body":                     "slow-body=10ms",
		"slow-body=1s":                  "slow-body=1s",
		"ttft=0s,token-time=1500us":     "ttft=0s,token-time=1.5ms",
		"tokens=0,cached=1,reasoning=2": "tokens=0,cached=1,reasoning=2",
		"retry-after=-5":                "retry-after=-5",
		"retry-after-ms=soon":           "retry-after-ms=soon",
		"p=0.25,first=3,from=2s,until=12s,overloaded": "p=0.25,first=3,from=2s,until=12s,overloaded",
	} {
		f, err := ParseFaults(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		want(t, text, f.String(), canonical)
	}
}

func TestParseFaultsErrors(t *testing.T) {
	for text, says := range map[string]string{
		"explode":                `unknown directive "explode"`,
		"reset,Status=503":       `unknown directive "Status"`,
		"status=200":             "directive status",
		"status":                 "directive status",
		"status=5e2":             "directive status",
		"reset=1":                "directive reset: takes no value",
		"reset-after=":           "directive reset-after",
		"reset-after=1k":         "directive reset-after",
		"stall-after=-1":         "directive stall-after",
		"split=0":                "directive split",
		"tokens=1000001":         "directive tokens",
		"ttft=3":                 "directive ttft",
		"ttft=-3s":               "directive ttft",
		"until=99999h":           "directive until",
		"garbage=xml":            "directive garbage",
		"retry-after":            "directive retry-after: needs a value",
		"retry-after=1\r\nx":     "directive retry-after: needs a value",
		"p=0":                    "directive p",
		"p=1.1":                  "directive p",
		"p=NaN":                  "directive p",
		strings.Repeat("x", 500): "…",
	} {
		_, err := ParseFaults(text)
		if err == nil || !strings.Contains(err.Error(), says) || len(err.Error()) > 200 {
			t.Errorf("%q: error %v, want one with %q", text, err, says)
		}
	}
}

// randomFaults draws some directives with values in range.
func randomFaults(rt *rapid.T) string {
	values := map[string][]string{
		"p": {"0.5", "1"}, "status": {"400", "529"}, "garbage": {"", "html"}, "reset-after": {"0", "7", "9b"},
		"from": {"1s"}, "until": {"1h2m"}, "ttft": {"0s", "30ms"}, "token-time": {"2us"}, "slow-body": {"", "3s"},
		"retry-after": {"7", "x y"}, "retry-after-ms": {"8"}, "first": {"9"}, "split": {"1", "100"}, "comment-first": {"", "3"},
	}
	var parts []string
	for _, d := range directives {
		if !rapid.Bool().Draw(rt, d.name) {
			continue
		}
		part := d.name
		if vs, ok := values[d.name]; ok {
			if v := rapid.SampledFrom(vs).Draw(rt, "value"); v != "" {
				part += "=" + v
			}
		} else if _, err := ParseFaults(part); err != nil {
			part += "=" + rapid.SampledFrom([]string{"0", "5"}).Draw(rt, "value")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, rapid.SampledFrom([]string{",", ";", " , "}).Draw(rt, "separator"))
}

func TestFaultsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := randomFaults(rt)
		f, err := ParseFaults(text)
		if err != nil {
			rt.Fatalf("%q: %v", text, err)
		}
		again, err := ParseFaults(f.String())
		if err != nil || again.String() != f.String() {
			rt.Fatalf("%q became %q, then %q (%v)", text, f, again, err)
		}
	})
}

func FuzzParseFaults(f *testing.F) {
	f.Add("status=429;retry-after=2")
	f.Add("reset-after=9b,p=1e-3,slow-body")
	f.Fuzz(func(t *testing.T, text string) {
		faults, err := ParseFaults(text)
		if err != nil {
			return
		}
		again, err := ParseFaults(faults.String())
		if err != nil || again.String() != faults.String() {
			t.Errorf("%q became %q, then %q (%v)", text, faults, again, err)
		}
	})
}

// statuses asks n times, a time apart, and returns how often each status came.
func statuses(t *testing.T, p *Provider, n int, apart time.Duration) map[int]int {
	t.Helper()
	got := map[int]int{}
	for range n {
		got[do(t, p, "POST", "/v1/chat/completions", chatJSON).Code]++
		pass(apart)
	}
	return got
}

func rule(t *testing.T, text string) Faults {
	t.Helper()
	f, err := ParseFaults(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRuleForTheFirstRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(fast())
		p.SetFaults(rule(t, "status=500,first=3"), rule(t, "status=503,first=2"))
		got := statuses(t, p, 10, 0)
		if got[500] != 3 || got[503] != 2 || got[200] != 5 {
			t.Errorf("statuses %v", got)
		}
		p.Reset()
		want(t, "after reset", do(t, p, "POST", "/v1/chat/completions", chatJSON).Code, 500)
		p.SetFaults()
		want(t, "without rules", do(t, p, "POST", "/v1/chat/completions", chatJSON).Code, 200)
	})
}

func TestRuleForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fast()
		c.Faults = []Faults{rule(t, "status=502,from=2s,until=12s")}
		got := statuses(t, New(c), 20, time.Second) // at 0, 1, … 19 s
		if got[502] != 10 || got[200] != 10 {
			t.Errorf("statuses %v, want 502 from 2 s up to 11 s", got)
		}
	})
}

func TestRuleWithProbability(t *testing.T) {
	c := fast()
	c.Faults = []Faults{rule(t, "status=500,p=0.2")}
	failures := func(seed uint64) string {
		c.Seed = seed
		p := New(c)
		var b strings.Builder
		for range 1000 {
			if do(t, p, "POST", "/v1/chat/completions", chatJSON).Code == 500 {
				b.WriteByte('x')
			} else {
				b.WriteByte('.')
			}
		}
		return b.String()
	}
	a := failures(1)
	if n := strings.Count(a, "x"); n < 150 || n > 250 {
		t.Errorf("%d of 1000 failed, want about 200", n)
	}
	if failures(1) != a {
		t.Error("one seed gives two sequences")
	}
	if failures(2) == a {
		t.Error("the seed changes nothing")
	}
}

func TestHeaderGoesOnTopOfRule(t *testing.T) {
	c := fast()
	c.Faults = []Faults{rule(t, "tokens=9,cached=2")}
	p := New(c)
	v := object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON, "x-simulate", "tokens=5"), 200)
	want(t, "tokens", at(t, v, "usage", "completion_tokens"), 5.0)
	want(t, "cached", at(t, v, "usage", "prompt_tokens_details", "cached_tokens"), 2.0)
}

func TestHeaderErrors(t *testing.T) {
	p := New(fast())
	for header, says := range map[string]string{
		"explode=now":  `unknown directive "explode"`,
		"status=503,x": `unknown directive "x"`,
		"p=0.5,reset":  "belong to a rule",
		"tokens=many":  "directive tokens",
	} {
		v := object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON, "x-simulate", header), 400)
		if m := at(t, v, "error", "message").(string); !strings.Contains(m, says) {
			t.Errorf("%q: %s", header, m)
		}
	}
}
