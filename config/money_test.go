package config

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseMoney(t *testing.T) {
	for text, want := range map[string]Money{
		"0": 0, "100": 100e6, "$100": 100e6, "100 USD": 100e6, "0.25": 250_000, "$0.000001": 1, "1000000000": 1e15, "0.0375": 37_500, "1.50": 15e5,
	} {
		if got, err := ParseMoney(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "$", "-1", "$-1", "1e3", "0.0000001", "1000000000.01", "1k", "1M", "€1", "USD", "1USD", "NaN", ".5", "5.", strings.Repeat("9", 50)} {
		if got, err := ParseMoney(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseBudget(t *testing.T) {
	for text, want := range map[string]struct {
		limit Money
		days  int
	}{"$100/month": {100e6, 0}, "$100 per 30d": {100e6, 30}, "5/day": {5e6, 1}, "7 USD/week": {7e6, 7}, "0.5 per 366d": {5e5, 366}} {
		b, err := ParseBudget(text)
		days, ok := b.Per.Days()
		if err != nil || !ok || b.Limit != want.limit || days != want.days {
			t.Errorf("%q: %+v, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "$5", "$5/", "/day", "$5/0d", "$5/367d", "$5/01d", "$5/-1d", "$5/year", "$5/24h", "$5/month/day", "$5/99999999999999999999d"} {
		if got, err := ParseBudget(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestMoneyReadsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Money(rapid.Int64Range(0, int64(maxMoney)).Draw(t, "m"))
		if got, err := ParseMoney(m.String()); err != nil || got != m {
			t.Fatalf("%d as %q: %d, %v", m, m, got, err)
		}
		b := Budget{Limit: m, Per: rapid.SampledFrom([]Period{"month", "day", "30d"}).Draw(t, "per")}
		if got, err := ParseBudget(b.String()); err != nil || got != b {
			t.Fatalf("%+v as %q: %+v, %v", b, b, got, err)
		}
	})
}
