package config

import (
	"errors"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Money is an amount of US dollars in millionths, written as 100, $100, 0.25 or
// 100 USD. It is never negative.
type Money int64

// maxMoney is a billion dollars: sums of budgets and costs stay far from overflow,
// and within what a double can count, as shared stores do.
const maxMoney = Money(1e15)

var (
	errMoney    = errors.New("expected an amount of US dollars such as 100, $100 or 0.25, in whole millionths")
	errMoneyMax = errors.New("expected at most 1000000000 US dollars")
	errBudget   = errors.New("expected a budget such as $100/month, $25/week, $5/day or $100/30d, or a mapping with limit and per")
	errPeriod   = errors.New("expected month, week, day or a number of days such as 30d, at most 366d")
)

// ParseMoney reads a number of dollars, before which $ may stand, or after which
// USD may.
func ParseMoney(text string) (Money, error) {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "$"), " USD")
	n, err := parseScaled(text+"M", amountUnits, errMoney, errMoneyMax)
	if err == nil && Money(n) > maxMoney {
		err = errMoneyMax
	}
	return Money(n), err
}

// String writes the amount so that ParseMoney reads it again: $100, $0.25.
func (m Money) String() string {
	text := "$" + strconv.FormatInt(int64(m)/1e6, 10)
	if rest := int64(m) % 1e6; rest != 0 {
		text += "." + strings.TrimRight(strconv.FormatInt(1e6+rest, 10)[1:], "0")
	}
	return text
}

// UnmarshalYAML reads what ParseMoney reads.
func (m *Money) UnmarshalYAML(n *yaml.Node) error { return parseScalar(n, m, ParseMoney, errMoney) }

// MarshalYAML writes the text of String.
func (m Money) MarshalYAML() (any, error) { return m.String(), nil }

// MarshalText writes the text of String.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMoney reads.
func (m *Money) UnmarshalText(text []byte) error { return parseText(text, m, ParseMoney) }

// A Period is the length of a budget's windows: month, week, day or a number of
// days, such as 30d.
type Period string

// Days returns the length in days, or 0 for calendar months; false when the period
// is none.
func (p Period) Days() (days int, ok bool) {
	switch p {
	case "month":
		return 0, true
	case "week":
		return 7, true
	case "day":
		return 1, true
	}
	number, found := strings.CutSuffix(string(p), "d")
	n, err := strconv.Atoi(number)
	return n, found && err == nil && isDigits(number) && number[0] != '0' && n <= 366
}

// ParseBudget reads an amount and a period: $100/month, or $100 per 30d. Mode stays
// empty.
func ParseBudget(text string) (Budget, error) {
	amount, period, found := strings.Cut(text, "/")
	if !found {
		amount, period, found = strings.Cut(text, " per ")
	}
	if !found {
		return Budget{}, errBudget
	}
	limit, err := ParseMoney(amount)
	switch {
	case errors.Is(err, errMoney):
		return Budget{}, errBudget
	case err != nil:
		return Budget{}, err
	}
	if _, ok := Period(period).Days(); !ok {
		return Budget{}, errPeriod
	}
	return Budget{Limit: limit, Per: Period(period)}, nil
}

// String writes limit and period so that ParseBudget reads them again: $100/month.
func (b Budget) String() string { return b.Limit.String() + "/" + string(b.Per) }

// UnmarshalYAML reads text such as $100/month, or a mapping.
func (b *Budget) UnmarshalYAML(n *yaml.Node) error {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return parseScalar(n, b, ParseBudget, errBudget)
	}
	type plain Budget // without this method
	return decode(n, (*plain)(b))
}

// UnmarshalYAML reads one budget, or a list of budgets.
func (b *Budgets) UnmarshalYAML(n *yaml.Node) error { return decode(n, (*[]Budget)(b)) }

// UnmarshalYAML reads a bare number, which is the price of input, or a mapping.
func (p *Price) UnmarshalYAML(n *yaml.Node) error {
	type plain Price
	return decode(longForm(n, "input", yaml.ScalarNode), (*plain)(p))
}

// UnmarshalYAML reads one entry, or a list of them.
func (p *Prices) UnmarshalYAML(n *yaml.Node) error { return decode(n, (*[]Price)(p)) }
