package simulate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Faults is what goes wrong, or is otherwise special, with a request. The zero
// value is a good answer with the provider's own latency and length.
// ParseFaults reads one from text; docs/simulator.md explains each directive.
//
// An "event" is one server-sent event, a comment not counted; where the answer
// is not a stream, positions count bytes of the body instead.
type Faults struct {
	// A rule applies while all of these hold. They have no meaning in a header.
	Probability float64       // share of requests, up to 1; zero means all
	First       int           // only the first so many requests; zero means all
	From        time.Duration // only from this time after start, reset or SetFaults
	Until       time.Duration // only before this time; zero means for ever

	// Refusals. They are answered at once, without admission.
	Status            int    // this status, 400 to 599, with an OpenAI error
	InsufficientQuota bool   // 429 that says the account has no money
	Overloaded        bool   // 503 server_is_overloaded with Retry-After
	RetryAfter        string // Retry-After header of the answer, sent as it stands
	RetryAfterMS      string // Retry-After-Ms header of the answer, sent as it stands

	// Broken answers. The request is admitted and holds its slot.
	Reset           bool           // connection reset before any byte
	Hang            bool           // no answer until the client leaves
	Garbage         string         // status 200 with an invalid body: "json" or "html"
	ResetAfter      *int           // connection reset after so many events
	ResetAfterBytes *int           // connection reset after so many bytes of the body
	StallAfter      *int           // nothing more after so many events, until the client leaves
	TruncateAfter   *int           // clean end after so many events; of JSON, fewer bytes than declared
	ErrorEventAfter *int           // an error event in place of event N (0 is the first), then the end
	NoUsage         bool           // no usage in the answer
	NoDone          bool           // no [DONE] at the end of a stream
	Split           *int           // stream written in pieces of so many bytes, across events
	CommentFirst    *int           // so many SSE comments at once, before the first event
	SlowBody        *time.Duration // pause after every 16 bytes of the body
	EchoKey         bool           // received Authorization in a header and in the body

	// The answer itself.
	TTFT      *time.Duration // in place of Config.TTFT and its jitter
	TokenTime *time.Duration // in place of Config.TokenTime
	Tokens    *int           // in place of Config.OutputTokens
	Cached    *int           // in place of Config.CachedTokens
	Reasoning *int           // in place of Config.ReasoningTokens
}

// ParseFaults reads comma- or semicolon-separated directives, such as
// "status=429;retry-after=2" or "p=0.1,reset-after=3". It serves the
// x-simulate header and the --fault flag. The error names the directive.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	err := f.apply(text)
	return f, err
}

// String writes f so that ParseFaults reads it back.
func (f Faults) String() string {
	var parts []string
	for _, d := range directives {
		if v, on := d.get(&f); on && v == "" {
			parts = append(parts, d.name)
		} else if on {
			parts = append(parts, d.name+"="+v)
		}
	}
	return strings.Join(parts, ",")
}

// scheduled says whether f names when it applies.
func (f *Faults) scheduled() bool {
	return f.Probability != 0 || f.First != 0 || f.From != 0 || f.Until != 0
}

// apply sets what text says on top of what f has.
func (f *Faults) apply(text string) error {
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ';' }) {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		d, ok := directiveByName[name]
		if !ok {
			return fmt.Errorf("unknown directive %q; docs/simulator.md lists them", clip(name))
		}
		if err := d.set(f, value); err != nil {
			return fmt.Errorf("directive %s: %w", name, err)
		}
	}
	return nil
}

// A directive is one word of the fault language. get reports its value, which
// is empty for one that has none, and whether it is set.
type directive struct {
	name string
	set  func(f *Faults, value string) error
	get  func(f *Faults) (value string, on bool)
}

// Bounds of positions and durations.
const (
	maxPosition = 1 << 30
	maxSpan     = 7 * 24 * time.Hour
)

var directives = []directive{
	{"p", setProbability, func(f *Faults) (string, bool) {
		return strconv.FormatFloat(f.Probability, 'g', -1, 64), f.Probability != 0
	}},
	number("first", func(f *Faults) *int { return &f.First }, 1, maxPosition),
	span("from", func(f *Faults) *time.Duration { return &f.From }),
	span("until", func(f *Faults) *time.Duration { return &f.Until }),

	number("status", func(f *Faults) *int { return &f.Status }, 400, 599),
	word("insufficient-quota", func(f *Faults) *bool { return &f.InsufficientQuota }),
	word("overloaded", func(f *Faults) *bool { return &f.Overloaded }),
	literal("retry-after", func(f *Faults) *string { return &f.RetryAfter }),
	literal("retry-after-ms", func(f *Faults) *string { return &f.RetryAfterMS }),

	word("reset", func(f *Faults) *bool { return &f.Reset }),
	word("hang", func(f *Faults) *bool { return &f.Hang }),
	{"garbage", setGarbage, func(f *Faults) (string, bool) { return f.Garbage, f.Garbage != "" }},
	{"reset-after", setResetAfter, getResetAfter},
	position("stall-after", func(f *Faults) **int { return &f.StallAfter }, 0, maxPosition),
	position("truncate-after", func(f *Faults) **int { return &f.TruncateAfter }, 0, maxPosition),
	position("error-event-after", func(f *Faults) **int { return &f.ErrorEventAfter }, 0, maxPosition),
	word("no-usage", func(f *Faults) *bool { return &f.NoUsage }),
	word("no-done", func(f *Faults) *bool { return &f.NoDone }),
	position("split", func(f *Faults) **int { return &f.Split }, 1, maxPosition),
	withDefault("1", position("comment-first", func(f *Faults) **int { return &f.CommentFirst }, 1, 1000)),
	withDefault("10ms", optSpan("slow-body", func(f *Faults) **time.Duration { return &f.SlowBody })),
	word("echo-key", func(f *Faults) *bool { return &f.EchoKey }),

	optSpan("ttft", func(f *Faults) **time.Duration { return &f.TTFT }),
	optSpan("token-time", func(f *Faults) **time.Duration { return &f.TokenTime }),
	position("tokens", func(f *Faults) **int { return &f.Tokens }, 0, maxTokens),
	position("cached", func(f *Faults) **int { return &f.Cached }, 0, maxTokens),
	position("reasoning", func(f *Faults) **int { return &f.Reasoning }, 0, maxTokens),
}

var directiveByName = func() map[string]directive {
	m := make(map[string]directive, len(directives))
	for _, d := range directives {
		m[d.name] = d
	}
	return m
}()

func word(name string, at func(*Faults) *bool) directive {
	return directive{name,
		func(f *Faults, value string) error {
			if value != "" {
				return fmt.Errorf("takes no value, not %q", clip(value))
			}
			*at(f) = true
			return nil
		},
		func(f *Faults) (string, bool) { return "", *at(f) },
	}
}

func literal(name string, at func(*Faults) *string) directive {
	return directive{name,
		func(f *Faults, value string) error {
			if value == "" || strings.ContainsAny(value, "\r\n\x00") {
				return fmt.Errorf("needs a value on one line")
			}
			*at(f) = value
			return nil
		},
		func(f *Faults) (string, bool) { return *at(f), *at(f) != "" },
	}
}

func number(name string, at func(*Faults) *int, lo, hi int) directive {
	return directive{name,
		func(f *Faults, value string) (err error) {
			*at(f), err = parseInt(value, lo, hi)
			return err
		},
		func(f *Faults) (string, bool) { return strconv.Itoa(*at(f)), *at(f) != 0 },
	}
}

func position(name string, at func(*Faults) **int, lo, hi int) directive {
	return directive{name,
		func(f *Faults, value string) error {
			n, err := parseInt(value, lo, hi)
			*at(f) = &n
			return err
		},
		func(f *Faults) (string, bool) {
			if *at(f) == nil {
				return "", false
			}
			return strconv.Itoa(**at(f)), true
		},
	}
}

func span(name string, at func(*Faults) *time.Duration) directive {
	return directive{name,
		func(f *Faults, value string) (err error) {
			*at(f), err = parseSpan(value)
			return err
		},
		func(f *Faults) (string, bool) { return at(f).String(), *at(f) != 0 },
	}
}

func optSpan(name string, at func(*Faults) **time.Duration) directive {
	return directive{name,
		func(f *Faults, value string) error {
			d, err := parseSpan(value)
			*at(f) = &d
			return err
		},
		func(f *Faults) (string, bool) {
			if *at(f) == nil {
				return "", false
			}
			return (*at(f)).String(), true
		},
	}
}

// withDefault lets d stand without a value.
func withDefault(def string, d directive) directive {
	set := d.set
	d.set = func(f *Faults, value string) error {
		if value == "" {
			value = def
		}
		return set(f, value)
	}
	return d
}

func setProbability(f *Faults, value string) error {
	p, err := strconv.ParseFloat(value, 64)
	if err != nil || !(p > 0 && p <= 1) {
		return fmt.Errorf("%q is not a share above 0 and up to 1", clip(value))
	}
	f.Probability = p
	return nil
}

func setGarbage(f *Faults, value string) error {
	switch value {
	case "", "json":
		f.Garbage = "json"
	case "html":
		f.Garbage = "html"
	default:
		return fmt.Errorf("%q is neither json nor html", clip(value))
	}
	return nil
}

func setResetAfter(f *Faults, value string) error {
	digits, bytes := strings.CutSuffix(value, "b")
	n, err := parseInt(digits, 0, maxPosition)
	if err != nil {
		return err
	}
	f.ResetAfter, f.ResetAfterBytes = nil, nil
	if bytes {
		f.ResetAfterBytes = &n
	} else {
		f.ResetAfter = &n
	}
	return nil
}

func getResetAfter(f *Faults) (string, bool) {
	switch {
	case f.ResetAfter != nil:
		return strconv.Itoa(*f.ResetAfter), true
	case f.ResetAfterBytes != nil:
		return strconv.Itoa(*f.ResetAfterBytes) + "b", true
	}
	return "", false
}

func parseInt(value string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%q is not a whole number from %d to %d", clip(value), lo, hi)
	}
	return n, nil
}

func parseSpan(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > maxSpan {
		return 0, fmt.Errorf("%q is not a duration such as 300ms or 2s, up to %s", clip(value), maxSpan)
	}
	return d, nil
}

// clip keeps what a client sent short enough for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
