package config

import "fmt"

// limits checks limits at p. Those of upstreams and models cannot refuse.
func (v *validator) limits(p path, l Limits, upstream bool) {
	const onlyWaits = "the limits of an upstream always wait; to refuse, set a limit on the team"
	if l.Concurrency != nil && upstream && l.Concurrency.OnLimit == "refuse" {
		v.say(p.key("concurrency").key("on_limit"), onlyWaits)
	}
	if len(l.Budget) > 0 && upstream {
		v.say(p.key("budget"), "a budget stands on a team or a key; an upstream has none")
	}
	periods := map[Period]bool{}
	for i, b := range l.Budget {
		at := p.key("budget").index(i)
		if b.Limit == 0 {
			v.bad(at.key("limit"), "expected more than $0")
		}
		if _, ok := b.Per.Days(); !ok {
			v.bad(at.key("per"), errPeriod.Error())
		} else if periods[b.Per] {
			v.bad(at.key("per"), "another budget here has this period")
		}
		periods[b.Per] = true
	}
	for _, dimension := range []struct {
		key   string
		rates Rates
	}{
		{"requests", l.Requests},
		{"tokens", l.Tokens},
		{"input_tokens", l.InputTokens},
		{"output_tokens", l.OutputTokens},
	} {
		for i, r := range dimension.rates {
			at := p.key(dimension.key).index(i)
			if r.Per < minWindow || r.Per > maxWindow {
				v.bad(at.key("per"), "expected a window from 1s to 31d")
			}
			if r.Limit > maxLimit {
				v.bad(at.key("limit"), fmt.Sprintf("expected a limit of at most %v", maxLimit))
			}
			if r.Burst > maxLimit && r.Burst != r.Limit {
				v.bad(at.key("burst"), fmt.Sprintf("expected a burst of at most %v", maxLimit))
			}
			if upstream && r.OnLimit == "refuse" {
				v.say(at.key("on_limit"), onlyWaits)
			}
		}
	}
}
