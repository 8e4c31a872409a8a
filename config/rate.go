package config

import (
	"errors"
	"math/bits"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

const (
	minWindow = Duration(time.Second)
	maxWindow = Duration(31 * day)
	// maxLimit keeps the bucket arithmetic, which counts in microseconds, far from
	// overflow.
	maxLimit = Amount(1e15)
)

var (
	errRate     = errors.New("expected a rate such as 500/min, 10/s, 2M/min, 1000M/day or 5/10s, or a mapping with limit and per")
	errRateUnit = errors.New("expected s, min, hour, day or a duration such as 10s after the slash of the rate")
	errRateZero = errors.New("expected a rate of at least 1")
)

// rateUnits are the windows that have a name; the first name of each is the one
// that String writes.
var rateUnits = []struct {
	names  string
	window time.Duration
}{
	{"s second", time.Second},
	{"min minute", time.Minute},
	{"hour h", time.Hour},
	{"day d", day},
}

// ParseRate reads an amount and a window: 500/min, 10/s, 2M/hour, 1000M/day,
// 5/10s. Burst, OnLimit and Mode stay empty.
func ParseRate(text string) (Rate, error) {
	amount, window, found := strings.Cut(text, "/")
	if !found {
		return Rate{}, errRate
	}
	limit, err := ParseAmount(amount)
	switch {
	case errors.Is(err, errAmount):
		return Rate{}, errRate
	case err != nil:
		return Rate{}, err
	case limit == 0:
		return Rate{}, errRateZero
	}
	for _, u := range rateUnits {
		for name := range strings.FieldsSeq(u.names) {
			if window == name {
				return Rate{Limit: limit, Per: Duration(u.window)}, nil
			}
		}
	}
	per, err := ParseDuration(window)
	if err != nil || per == 0 {
		return Rate{}, errRateUnit
	}
	return Rate{Limit: limit, Per: per}, nil
}

// String writes limit and window so that ParseRate reads them again: 500/min.
func (r Rate) String() string {
	for _, u := range rateUnits {
		if time.Duration(r.Per) == u.window {
			name, _, _ := strings.Cut(u.names, " ")
			return r.Limit.String() + "/" + name
		}
	}
	return r.Limit.String() + "/" + r.Per.String()
}

// defaultBurst is one window's worth, and an hour's worth where the window is
// longer than an hour; at least 1.
func (r Rate) defaultBurst() Amount {
	if time.Duration(r.Per) <= time.Hour {
		return r.Limit
	}
	high, low := bits.Mul64(uint64(r.Limit), uint64(time.Hour))
	hourly, _ := bits.Div64(high, low, uint64(r.Per))
	return max(1, Amount(hourly))
}

// UnmarshalYAML reads text such as 500/min, or a mapping.
func (r *Rate) UnmarshalYAML(n *yaml.Node) error {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return parseScalar(n, r, ParseRate, errRate)
	}
	type plain Rate // without this method
	return decode(n, (*plain)(r))
}

// UnmarshalYAML reads one rate, or a list of rates.
func (r *Rates) UnmarshalYAML(n *yaml.Node) error {
	return decode(n, (*[]Rate)(r))
}

// UnmarshalYAML reads a bare number, or a mapping.
func (s *Slots) UnmarshalYAML(n *yaml.Node) error {
	type plain Slots
	return decode(longForm(n, "limit", yaml.ScalarNode), (*plain)(s))
}

// UnmarshalYAML reads the bare name of an upstream, or a mapping.
func (t *RouteTarget) UnmarshalYAML(n *yaml.Node) error {
	type plain RouteTarget
	return decode(longForm(n, "upstream", yaml.ScalarNode), (*plain)(t))
}

// UnmarshalYAML reads the bare name of an upstream, a list of targets, or a
// mapping.
func (r *Route) UnmarshalYAML(n *yaml.Node) error {
	type plain Route
	return decode(longForm(n, "targets", yaml.ScalarNode|yaml.SequenceNode), (*plain)(r))
}

// longForm turns a short form, a node of one of the given kinds, into the mapping
// {key: node} that it stands for. Any other node is returned as it is.
func longForm(n *yaml.Node, key string, kinds yaml.Kind) *yaml.Node {
	n = resolve(n)
	if n.Kind&kinds == 0 {
		return n
	}
	name := &yaml.Node{Kind: yaml.ScalarNode, Value: key, Line: n.Line, Column: n.Column}
	return &yaml.Node{
		Kind: yaml.MappingNode, Line: n.Line, Column: n.Column,
		Content: []*yaml.Node{name, n},
	}
}
