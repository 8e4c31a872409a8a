package config

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	good := map[string]time.Duration{
		"0": 0, "0s": 0, "250ms": 250 * time.Millisecond, "30s": 30 * time.Second, "5m": 5 * time.Minute,
		"1h30m": 90 * time.Minute, "6h": 6 * time.Hour, "30d": 30 * day, "1d12h": 36 * time.Hour,
		"1.5h": 90 * time.Minute, "0d": 0, "3650d": 3650 * day, "87600h": 3650 * day,
	}
	for text, want := range good {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "30", "-5s", "+5s", "5 s", "s", "d", "1.5d", "1d-1h", "1d+1h", "-1d", "1dd", "3651d", "3650d1s",
		"99999999999999999999d", "9999999h", "1w", "1d 2h", "5m ", "١s", strings.Repeat("1h", 30),
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	good := map[string]Size{
		"0": 0, "1": 1, "1500": 1500, "512KiB": 512 << 10, "1MiB": 1 << 20, "10MB": 1e7, "3kB": 3000, "3KB": 3000,
		"1.5GiB": 3 << 29, "2TiB": 2 << 40, "1TB": 1e12, "0.5KiB": 512, "9223372036854775807": math.MaxInt64,
	}
	for text, want := range good {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "MiB", "-1", "+1", "1 MiB", "1mib", "1M", "1.1KB.", ".5KiB", "1.KiB", "0.3KiB", "1e3", "0x10", "8388608TiB",
		"9223372036854775808", "1KiBKiB", strings.Repeat("1", 50),
	} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseAmount(t *testing.T) {
	good := map[string]Amount{
		"0": 0, "500": 500, "500k": 5e5, "500K": 5e5, "2M": 2e6, "1B": 1e9, "1.5M": 15e5, "0.001k": 1,
		"1000M": 1e9, "9223372036B": 9223372036e9, "9223372036854775807": math.MaxInt64,
	}
	for text, want := range good {
		if got, err := ParseAmount(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "k", "-1", "1m", "1.0005k", "1e6", "1_000", "1,000", "2 M", "9223372037B", "1G", "NaN"} {
		if got, err := ParseAmount(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseRate(t *testing.T) {
	rate := func(limit Amount, per time.Duration) Rate { return Rate{Limit: limit, Per: Duration(per)} }
	good := map[string]Rate{
		"500/min": rate(500, time.Minute), "10/s": rate(10, time.Second), "2M/minute": rate(2e6, time.Minute),
		"1000M/day": rate(1e9, day), "5/10s": rate(5, 10*time.Second), "7/hour": rate(7, time.Hour),
		"7/h": rate(7, time.Hour), "7/d": rate(7, day), "7/second": rate(7, time.Second), "1.5k/1h30m": rate(1500, 90*time.Minute),
	}
	for text, want := range good {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "500", "/min", "500/", "500/month", "500/10", "500/0s", "0/min", "-1/min", "5 / min", "500/min/s", "500/-1s", "9223372037B/s",
	} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

// What String writes, the parser reads again to the same value.
func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, int64(maxDuration)).Draw(t, "duration"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("%d as %q: %d, %v", d, d, got, err)
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "number")
		if got, err := ParseSize(Size(n).String()); err != nil || got != Size(n) {
			t.Fatalf("size %d as %q: %d, %v", n, Size(n), got, err)
		}
		if got, err := ParseAmount(Amount(n).String()); err != nil || got != Amount(n) {
			t.Fatalf("amount %d as %q: %d, %v", n, Amount(n), got, err)
		}
		r := Rate{Limit: Amount(max(1, n)), Per: max(1, d)}
		if got, err := ParseRate(r.String()); err != nil || got != r {
			t.Fatalf("rate %+v as %q: %+v, %v", r, r, got, err)
		}
	})
}

// Round numbers are written with the units that people use.
func TestTextIsShort(t *testing.T) {
	for want, value := range map[string]interface{ String() string }{
		"30s": Duration(30 * time.Second), "1m30s": Duration(90 * time.Second), "6h": Duration(6 * time.Hour),
		"30d": Duration(30 * day), "1d12h": Duration(36 * time.Hour), "0s": Duration(0), "10m": Duration(10 * time.Minute),
		"32MiB": Size(32 << 20), "10MB": Size(1e7), "1500": Size(1500), "0": Size(0),
		"2M": Amount(2e6), "500k": Amount(5e5), "999": Amount(999),
		"500/min": Rate{Limit: 500, Per: Duration(time.Minute)}, "1B/day": Rate{Limit: 1e9, Per: Duration(day)},
		"5/10s": Rate{Limit: 5, Per: Duration(10 * time.Second)},
	} {
		if got := value.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDefaultBurst(t *testing.T) {
	for text, want := range map[string]Amount{
		"10/s": 10, "500/min": 500, "5/10s": 5, "600/hour": 600, "2400/day": 100, "10/day": 1,
		"1000M/day": 41666666, "1000000B/31d": 1344086021505,
	} {
		r, err := ParseRate(text)
		if got := r.defaultBurst(); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
}

// The types also work by themselves with the YAML library and with JSON.
func TestSingleValues(t *testing.T) {
	var v struct {
		D Duration
		S Size
		A Amount
		R Rates
		C Slots
		M map[string]Route
	}
	text := "{d: 5m, s: 1KiB, a: 2k, r: [1/s, {limit: 2, per: 1m}], c: 3, m: {a: x, b: [x, {upstream: y}]}}"
	if err := yaml.Load([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	if v.D != Duration(5*time.Minute) || v.S != 1024 || v.A != 2000 || len(v.R) != 2 || v.C.Limit != 3 ||
		v.M["a"].Targets[0].Upstream != "x" || v.M["b"].Targets[1].Upstream != "y" {
		t.Errorf("got %+v", v)
	}
	if err := yaml.Load([]byte("{d: 5}"), &v); err == nil || !strings.Contains(err.Error(), "duration with its unit") {
		t.Errorf("got %v", err)
	}
	out, err := json.Marshal(map[string]any{"d": v.D, "s": v.S, "a": v.A})
	if err != nil || string(out) != `{"a":"2k","d":"5m","s":"1KiB"}` {
		t.Errorf("got %s, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"D":"1h","S":"2MiB","A":"3"}`), &v); err != nil || v.S != 2<<20 {
		t.Errorf("got %+v, %v", v, err)
	}
}
