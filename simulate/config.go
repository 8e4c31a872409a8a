package simulate

import (
	"fmt"
	"time"
)

// Defaults of the fields that are zero in a Config.
const (
	DefaultTTFT         = 20 * time.Millisecond
	DefaultTokenTime    = 2 * time.Millisecond
	DefaultOutputTokens = 64
	DefaultWindow       = time.Minute
	DefaultKeepBytes    = 1 << 20
)

// NoWait as Config.TTFT or Config.TokenTime means no waiting at all, where
// zero would mean the default. Every negative duration does the same.
const NoWait = time.Duration(-1)

// Upper bounds of what a Config or a directive may ask for.
const (
	maxTokens = 1_000_000 // output tokens of one choice
	maxLimit  = 1 << 40   // requests or tokens in one window
)

// Config says how a Provider behaves. The zero value is a provider without
// limits, keys and faults that answers quickly.
type Config struct {
	// TTFT is the time from the end of the request to the first token.
	// Zero means DefaultTTFT, negative none.
	TTFT time.Duration
	// TTFTJitter is added to TTFT, uniformly from zero to this. Zero or less is none.
	TTFTJitter time.Duration
	// TokenTime is the time between one output token and the next.
	// Zero means DefaultTokenTime, negative none.
	TokenTime time.Duration
	// OutputTokens is the length of an answer in tokens, when the request does
	// not ask for less. Zero means DefaultOutputTokens; at most 1,000,000.
	OutputTokens int
	// ChunkTokens is how many tokens go into one stream event. Zero means 1.
	ChunkTokens int
	// CachedTokens of every prompt are reported as read from cache, up to the
	// length of the prompt. They still count as tokens.
	CachedTokens int
	// ReasoningTokens are produced, and counted as output, before the first
	// visible token.
	ReasoningTokens int

	// Models is the list that GET /models shows. Empty shows one made-up model.
	Models []string
	// Strict refuses every model that is not in Models with 404.
	// It has no effect while Models is empty.
	Strict bool
	// APIKey that a request must carry as a bearer token. Empty accepts all.
	APIKey string

	// RPM is the number of requests admitted per Window. Zero or less is no limit.
	RPM int64
	// TPM is the number of tokens admitted per Window. Zero or less is no limit.
	TPM int64
	// Concurrency is the number of requests in flight. Zero or less is no limit.
	Concurrency int
	// Window of RPM and TPM. Zero means DefaultWindow, a minute.
	Window time.Duration
	// Mode of enforcing RPM and TPM. Zero is Bucket.
	Mode Mode
	// Count says which tokens TPM counts. Zero is Actual.
	Count Count

	// Faults are the rules that make requests fail, as SetFaults takes them.
	Faults []Faults
	// Seed of the random numbers for jitter and probabilities. One seed gives
	// one sequence; zero is a seed like any other.
	Seed uint64

	// KeepFileBytes is how much of an uploaded file is kept for
	// GET /files/{id}/content. Longer files are counted and hashed, and their
	// content is forgotten. Zero means DefaultKeepBytes, negative keeps none.
	KeepFileBytes int64
}

// Mode is a way of enforcing a rate limit.
type Mode int

const (
	// Bucket is a token bucket that holds one window's worth and refills evenly.
	Bucket Mode = iota
	// Sliding never admits more than the limit in any span of one window.
	Sliding
)

// Count is a way of counting tokens against TPM.
type Count int

const (
	// Actual charges the prompt at admission and the output as it is produced,
	// so that the limit may go into debt.
	Actual Count = iota
	// MaxTokens charges prompt and the largest possible output at admission,
	// and gives nothing back.
	MaxTokens
)

var (
	modeNames  = []string{Bucket: "bucket", Sliding: "sliding"}
	countNames = []string{Actual: "actual", MaxTokens: "max_tokens"}
)

func (m Mode) String() string  { return modeNames[m] }
func (c Count) String() string { return countNames[c] }

// MarshalText writes "bucket" or "sliding".
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// MarshalText writes "actual" or "max_tokens".
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *Mode) UnmarshalText(text []byte) error {
	i, err := indexOf(modeNames, string(text))
	if err != nil {
		return fmt.Errorf("limit mode: %w", err)
	}
	*m = Mode(i)
	return nil
}

// UnmarshalText reads what MarshalText writes.
func (c *Count) UnmarshalText(text []byte) error {
	i, err := indexOf(countNames, string(text))
	if err != nil {
		return fmt.Errorf("token count: %w", err)
	}
	*c = Count(i)
	return nil
}

func indexOf(names []string, name string) (int, error) {
	for i, n := range names {
		if n == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is not one of %q", name, names)
}

// settings are the resolved parts of a Config that can change at run time and
// that one request reads once.
type settings struct {
	ttft, jitter, tokenTime                               time.Duration
	outputTokens, chunkTokens, cachedTokens, hiddenTokens int
}

func (c Config) settings() settings {
	return settings{
		ttft:         orDefault(c.TTFT, DefaultTTFT),
		jitter:       max(c.TTFTJitter, 0),
		tokenTime:    orDefault(c.TokenTime, DefaultTokenTime),
		outputTokens: orDefault(min(c.OutputTokens, maxTokens), DefaultOutputTokens),
		chunkTokens:  max(c.ChunkTokens, 1),
		cachedTokens: max(c.CachedTokens, 0),
		hiddenTokens: min(max(c.ReasoningTokens, 0), maxTokens),
	}
}

func (c Config) rates() rates {
	return rates{
		requests:    min(max(c.RPM, 0), maxLimit),
		tokens:      min(max(c.TPM, 0), maxLimit),
		concurrency: max(c.Concurrency, 0),
		window:      max(orDefault(c.Window, DefaultWindow), time.Microsecond),
		mode:        c.Mode,
		count:       c.Count,
	}
}

// orDefault makes zero the default and everything below zero nothing.
func orDefault[T ~int | ~int64](v, def T) T {
	if v == 0 {
		return def
	}
	return max(v, 0)
}
