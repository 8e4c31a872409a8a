package usage

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestShippedPrices(t *testing.T) {
	models, date, err := parsePrices(shippedJSON)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil || Date() != date {
		t.Errorf("date %q", date)
	}
	for name, m := range models {
		for i, r := range m {
			if r.Cached > r.Input || r.Write < r.Input || r.Input <= 0 {
				t.Errorf("%s, entry %d: cached %d, input %d, write %d", name, i+1, r.Cached, r.Input, r.Write)
			}
		}
		if m[0].Above != 0 || m[0].Hours != nil || !m[0].From.IsZero() {
			t.Errorf("%s: the first entry does not always apply", name)
		}
	}
}

// The figures are those of the vendors' price lists.
func TestCost(t *testing.T) {
	p := New(nil)
	const million = 1_000_000
	saturday, peak := at("2026-11-28T02:00:00Z"), at("2026-11-25T02:00:00Z")
	for _, test := range []struct {
		model  string
		at     time.Time
		tokens Tokens
		want   int64 // billionths of a dollar
	}{
		{"gpt-4o", peak, Tokens{Input: million, Output: million}, 12_500_000_000},
		{"gpt-4o-2024-08-06", peak, Tokens{Input: 1000, Cached: 800, Output: 100}, 200*2500 + 800*1250 + 100*10000},
		{"openai/gpt-4o-mini", peak, Tokens{Input: 1}, 150},
		{"GPT-4o", peak, Tokens{Input: 1}, 2500},
		{"gpt-oss-20b", peak, Tokens{Cached: 1, Input: 1}, 38}, // 37.5, rounded up
		{"gpt-6.2-sol", peak, Tokens{Input: 272_000, Output: 1000}, 272_000*2000 + 1000*10_000},
		{"gpt-6.2-sol", peak, Tokens{Input: 272_001, Output: 1000}, 272_001*4000 + 1000*15_000}, // the whole request
		{"claude-opus-4-5-20251101", peak, Tokens{Input: 300, Cached: 100, CacheWrite: 100, Output: 10}, 100*5000 + 100*500 + 100*6250 + 10*25_000},
		{"claude-haiku-5-5", peak, Tokens{Input: 100_001}, 100_001 * 500},
		{"gemini-3.8-flash", at("2026-12-31T23:59:59Z"), Tokens{Output: million}, 3_750_000_000},
		{"gemini-3.8-flash", at("2027-01-01T00:00:00Z"), Tokens{Output: million}, 7_500_000_000},
		{"deepseek-v4-pro", peak, Tokens{Input: 1000}, 1_320_000},
		{"deepseek-v4-pro", at("2026-11-25T11:59:00+08:00"), Tokens{Input: 1000}, 1_320_000},
		{"deepseek-v4-pro", at("2026-11-25T04:00:00Z"), Tokens{Input: 1000}, 660_000},
		{"deepseek-v4-pro", saturday, Tokens{Input: 1000}, 660_000},
		{"text-embedding-3-small", peak, Tokens{Input: 10}, 200},
		{"gpt-4o", peak, Tokens{}, 0},
		{"gpt-4o", peak, Tokens{Input: -5, Output: -5, Cached: 100, CacheWrite: -1}, 0}, // a provider's nonsense
		{"gpt-4o", peak, Tokens{Input: 10, Cached: 100, CacheWrite: 100}, 10 * 1250},
		{"gpt-4o", peak, Tokens{Input: 1 << 62, Output: 1 << 62}, maxNano},
	} {
		if got := p.Find("x", test.model).At(test.at, test.tokens.Input).Cost(test.tokens, 1); got != test.want {
			t.Errorf("%s, %+v: %d, want %d", test.model, test.tokens, got, test.want)
		}
	}
}

// A price of reasoning is that of a part of the output, never of more than it.
func TestReasoningPrice(t *testing.T) {
	r, same, cheap := Rate{Output: 10e6, Reasoning: 15e6}, Rate{Output: 10e6, Reasoning: 10e6}, Rate{Output: 10e6}
	for _, test := range []struct {
		rate              Rate
		output, reasoning int64
		want, atMost      int64 // millionths of a dollar
	}{
		{r, 100, 0, 1000, 1500},
		{r, 100, 40, 60*10 + 40*15, 1500},
		{r, 100, 100, 1500, 1500},
		{r, 100, 1000, 1500, 1500}, // a provider's nonsense
		{r, 100, -5, 1000, 1500},
		{r, -5, 10, 0, 0},
		{same, 100, 40, 1000, 1000},
		{cheap, 100, 40, 600, 1000},
	} {
		tokens := Tokens{Output: test.output, Reasoning: test.reasoning}
		if got, most := test.rate.Cost(tokens, 1)/1000, test.rate.AtMost(tokens, 1)/1000; got != test.want || most != test.atMost {
			t.Errorf("%+v of %+v: %d, at most %d", tokens, test.rate, got, most)
		}
	}
	models, _, err := parsePrices([]byte(`{"models": {"a": [{"input": 1, "output": 2, "reasoning": 3}], "b": [{"input": 1, "output": 2}]}}`))
	if err != nil || models["a"][0].Reasoning != 3e6 || models["b"][0].Reasoning != 2e6 {
		t.Errorf("%+v, %v", models, err)
	}
	if (&Rate{Reasoning: 1}).ByRequest() {
		t.Error("reasoning has a price, but requests without tokens are free")
	}
}

func TestFind(t *testing.T) {
	rate := func(n int64) Model { return Model{{Input: n}} }
	p := New(map[string]Model{
		"gpt-4o": rate(1), "azure/gpt-4o": rate(2), "vllm/*": rate(0), "local-*": rate(4), "local-big-*": rate(5),
		"openrouter/openai/gpt-4o": rate(6), "House-Model": rate(7),
	})
	for _, test := range []struct {
		upstream, model string
		want            int64 // -1 for none
	}{
		{"openai", "gpt-4o", 1},
		{"azure", "gpt-4o", 2},
		{"azure", "gpt-4o-2024-08-06", 2},
		{"vllm", "gpt-4o", 0},
		{"vllm", "meta-llama/llama-7", 0},
		{"x", "local-small", 4},
		{"x", "local-big-1", 5},
		{"x", "someone/local-big-1", 5},
		{"openrouter", "openai/gpt-4o", 6},
		{"x", "house-model-latest", 7},
		{"x", "gpt-4o-mini", 150_000}, // shipped
		{"x", "gpt-4o-audio-preview", -1},
		{"x", "gpt-4o-mini-tts", -1},
		{"x", "unheard-of", -1},
		{"x", "", -1},
		{"x", "-0613", -1},
		{"x", "/", -1},
	} {
		got := int64(-1)
		if m := p.Find(test.upstream, test.model); m != nil {
			got = m[0].Input
		}
		if got != test.want {
			t.Errorf("%s/%s: %d, want %d", test.upstream, test.model, got, test.want)
		}
	}
	if (*Prices)(nil).Find("x", "gpt-4o") != nil {
		t.Error("no prices know a price")
	}
	if Model(nil).At(time.Now(), 0) != nil || (Model{{From: time.Now().Add(time.Hour)}}).At(time.Now(), 0) != nil {
		t.Error("a rate that does not apply does")
	}
}

// Costs are exact, never too low, and never more than the rounding too high.
func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{
			Input: rapid.Int64Range(0, 1e9).Draw(t, "input"), Output: rapid.Int64Range(0, 1e9).Draw(t, "output"),
			Cached: rapid.Int64Range(0, 1e9).Draw(t, "cached"), Write: rapid.Int64Range(0, 1e9).Draw(t, "write"),
			Reasoning: rapid.Int64Range(0, 1e9).Draw(t, "reasoning"),
		}
		u := Tokens{Input: rapid.Int64Range(0, 1e8).Draw(t, "in"), Output: rapid.Int64Range(0, 1e8).Draw(t, "out")}
		u.Cached = rapid.Int64Range(0, u.Input).Draw(t, "read")
		u.CacheWrite = rapid.Int64Range(0, u.Input-u.Cached).Draw(t, "written")
		u.Reasoning = rapid.Int64Range(0, u.Output).Draw(t, "thought")
		exact := new(big.Int)
		for _, p := range [][2]int64{{u.Input - u.Cached - u.CacheWrite, r.Input}, {u.Cached, r.Cached}, {u.CacheWrite, r.Write}, {u.Output - u.Reasoning, r.Output}, {u.Reasoning, r.Reasoning}} {
			exact.Add(exact, new(big.Int).Mul(big.NewInt(p[0]), big.NewInt(p[1])))
		}
		want := new(big.Int).Div(exact.Add(exact, big.NewInt(999)), big.NewInt(1000))
		if want.Cmp(big.NewInt(maxNano)) > 0 {
			want.SetInt64(maxNano)
		}
		if got := r.Cost(u, 1); big.NewInt(got).Cmp(want) != 0 {
			t.Fatalf("%d, want %s", got, want)
		}
	})
}

func TestRequestPrice(t *testing.T) {
	image := Rate{Request: 40_000}
	if got := image.Cost(Tokens{}, 10); got != 400_000_000 {
		t.Errorf("ten images: %d", got)
	}
	if got := (&Rate{Request: 1 << 60}).Cost(Tokens{}, 1<<60); got != maxNano {
		t.Errorf("no bound: %d", got)
	}
	for want, r := range map[bool]Rate{true: image, false: {Input: 1}} {
		if r.ByRequest() != want {
			t.Errorf("%+v: %v", r, r.ByRequest())
		}
	}
}

func TestMicro(t *testing.T) {
	for nano, want := range map[int64]int64{0: 0, 1: 1, 1000: 1, 1001: 2, 1<<63 - 1: (1<<63 - 1) / 1000} {
		if got := Micro(nano); got != want {
			t.Errorf("%d: %d, want %d", nano, got, want)
		}
	}
}

func TestParseHours(t *testing.T) {
	for text, want := range map[string]bool{"01:00-04:00": true, "00:00-24:00": true, "04:00-01:00": false, "1:00-2:00": false, "00:00-24:01": false, "00:60-02:00": false, "": false, "01:00": false} {
		if _, ok := ParseHours(text); ok != want {
			t.Errorf("%q: %v", text, ok)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	p := New(nil)
	for _, model := range []string{"gpt-4o-2024-08-06", "no-such-model"} {
		b.Run(model, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if m := p.Find("openai", model); (m == nil) != (model == "no-such-model") {
					b.Fatal(m)
				}
			}
		})
	}
}
