package config

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// A Duration is a length of time, written as 250ms, 30s, 5m, 6h or 30d. It is
// never negative.
type Duration time.Duration

// A Size is a number of bytes, written as 1MiB, 512KiB, 10MB or a bare number.
type Size int64

// An Amount is a count, written as 2M, 500k, 1B or a bare number.
type Amount int64

const (
	day         = 24 * time.Hour
	maxDuration = 3650 * day
)

// The texts of these errors never hold the value itself, which may be a secret
// that stands in the wrong place.
var (
	errDuration     = errors.New("expected a duration such as 250ms, 30s, 5m, 6h or 30d")
	errDurationUnit = errors.New("expected a duration with its unit, such as 30s, 5m or 6h")
	errDurationMax  = errors.New("expected a duration of at most 3650d")
	errSize         = errors.New("expected a size such as 512KiB, 1MiB, 10MB or a number of bytes")
	errSizeMax      = errors.New("expected a size below 8EiB")
	errAmount       = errors.New("expected a whole number such as 500, 500k, 2M or 1B")
	errAmountMax    = errors.New("expected a number below 9223372036B")
)

// ParseDuration reads 0 or a duration with units, such as 250ms, 1m30s or 30d; a
// day has 24 hours. At most 3650d.
func ParseDuration(text string) (Duration, error) {
	if text == "0" {
		return 0, nil
	}
	if len(text) > 40 || text == "" || text[0] == '+' || text[0] == '-' {
		return 0, errDuration
	}
	if isDigits(text) {
		return 0, errDurationUnit
	}
	var total time.Duration
	days, rest, found := strings.Cut(text, "d")
	if found {
		n, err := strconv.ParseUint(days, 10, 32)
		switch {
		case !isDigits(days):
			return 0, errDuration
		case err != nil || time.Duration(n) > maxDuration/day:
			return 0, errDurationMax
		}
		total = time.Duration(n) * day
	} else {
		rest = text
	}
	if rest != "" {
		// Digits first, so that no sign can follow the days.
		d, err := time.ParseDuration(rest)
		if err != nil || rest[0] == '+' || rest[0] == '-' {
			return 0, errDuration
		}
		if d > maxDuration {
			return 0, errDurationMax
		}
		total += d
	}
	if total > maxDuration {
		return 0, errDurationMax
	}
	return Duration(total), nil
}

// String writes the duration so that ParseDuration reads it again: 30s, 1m30s, 6h,
// 30d.
func (d Duration) String() string {
	text := ""
	rest := time.Duration(d)
	if rest >= day {
		text = strconv.FormatInt(int64(rest/day), 10) + "d"
		if rest %= day; rest == 0 {
			return text
		}
	}
	tail := rest.String()
	if strings.HasSuffix(tail, "m0s") {
		tail = strings.TrimSuffix(tail, "0s")
	}
	if strings.HasSuffix(tail, "h0m") {
		tail = strings.TrimSuffix(tail, "0m")
	}
	return text + tail
}

// A unit is the factor that a suffix stands for.
type unit struct {
	suffix string
	factor int64
}

// Largest first, binary before decimal: the first that divides a number without
// rest writes it.
var sizeUnits = []unit{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
}

var amountUnits = []unit{{"B", 1e9}, {"M", 1e6}, {"k", 1e3}}

// ParseSize reads a number of bytes with an optional unit: kB, MB, GB, TB (powers
// of 1000) or KiB, MiB, GiB, TiB (powers of 1024). A fraction must come out as a
// whole number of bytes.
func ParseSize(text string) (Size, error) {
	if head, ok := strings.CutSuffix(text, "KB"); ok {
		text = head + "kB"
	}
	n, err := parseScaled(text, sizeUnits, errSize, errSizeMax)
	return Size(n), err
}

// String writes the size so that ParseSize reads it again: 1MiB, 10MB, 1500.
func (s Size) String() string { return formatScaled(int64(s), sizeUnits) }

// ParseAmount reads a count with an optional suffix: k (thousand), M (million) or
// B (billion). A fraction must come out as a whole number.
func ParseAmount(text string) (Amount, error) {
	if head, ok := strings.CutSuffix(text, "K"); ok {
		text = head + "k"
	}
	n, err := parseScaled(text, amountUnits, errAmount, errAmountMax)
	return Amount(n), err
}

// String writes the amount so that ParseAmount reads it again: 500, 500k, 2M, 1B.
func (a Amount) String() string { return formatScaled(int64(a), amountUnits) }

// parseScaled reads digits, an optional fraction and an optional suffix, exactly.
func parseScaled(text string, units []unit, malformed, tooLarge error) (int64, error) {
	factor := int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = head, u.factor
			break
		}
	}
	whole, fraction, dot := strings.Cut(text, ".")
	if len(text) > 40 || !isDigits(whole) || dot && !isDigits(fraction) {
		return 0, malformed
	}
	number, _ := new(big.Int).SetString(whole+fraction, 10)
	number.Mul(number, big.NewInt(factor))
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(fraction))), nil)
	number, rest := number.QuoRem(number, scale, new(big.Int))
	switch {
	case rest.Sign() != 0:
		return 0, malformed
	case !number.IsInt64():
		return 0, tooLarge
	}
	return number.Int64(), nil
}

func formatScaled(n int64, units []unit) string {
	for _, u := range units {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

func isDigits(text string) bool {
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return text != ""
}

// UnmarshalYAML reads what ParseDuration reads.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	return parseScalar(n, d, ParseDuration, errDuration)
}

// MarshalYAML writes the text of String.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalText writes the text of String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error { return parseText(text, d, ParseDuration) }

// UnmarshalYAML reads what ParseSize reads.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	return parseScalar(n, s, ParseSize, errSize)
}

// MarshalYAML writes the text of String.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// MarshalText writes the text of String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(text []byte) error { return parseText(text, s, ParseSize) }

// UnmarshalYAML reads what ParseAmount reads.
func (a *Amount) UnmarshalYAML(n *yaml.Node) error {
	return parseScalar(n, a, ParseAmount, errAmount)
}

// MarshalYAML writes the text of String.
func (a Amount) MarshalYAML() (any, error) { return a.String(), nil }

// MarshalText writes the text of String.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what ParseAmount reads.
func (a *Amount) UnmarshalText(text []byte) error { return parseText(text, a, ParseAmount) }

// parseScalar parses the text of a scalar node into v; expected is the error for
// anything else.
func parseScalar[T any](n *yaml.Node, v *T, parse func(string) (T, error), expected error) error {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return faults{{node: n, text: expected.Error(), got: gotValue}}
	}
	parsed, err := parse(n.Value)
	if err != nil {
		return faults{{node: n, text: err.Error(), got: gotValue}}
	}
	*v = parsed
	return nil
}

func parseText[T any](text []byte, v *T, parse func(string) (T, error)) error {
	parsed, err := parse(string(text))
	if err == nil {
		*v = parsed
	}
	return err
}
