package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// LiveConfig is the part of a Config that PUT /simulator/config changes, and
// what GET shows. Fields that are absent stay as they are. Durations are
// texts such as "300ms"; here zero means zero. Naming any of the limits starts
// the rates anew; naming the faults starts their counts and times anew.
type LiveConfig struct {
	TTFT            *Duration `json:"ttft,omitempty"`
	TTFTJitter      *Duration `json:"ttft_jitter,omitempty"`
	TokenTime       *Duration `json:"token_time,omitempty"`
	OutputTokens    *int      `json:"output_tokens,omitempty"`
	ChunkTokens     *int      `json:"chunk_tokens,omitempty"`
	CachedTokens    *int      `json:"cached_tokens,omitempty"`
	ReasoningTokens *int      `json:"reasoning_tokens,omitempty"`

	RPM         *int64    `json:"rpm,omitempty"`
	TPM         *int64    `json:"tpm,omitempty"`
	Concurrency *int      `json:"concurrency,omitempty"`
	Window      *Duration `json:"window,omitempty"`
	Mode        *Mode     `json:"mode,omitempty"`
	Count       *Count    `json:"count,omitempty"`

	Faults *[]string `json:"faults,omitempty"` // each as ParseFaults reads it
}

// Duration is a time.Duration that JSON writes as a text such as "1.5s".
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration of zero or more.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseSpan(string(text))
	*d = Duration(v)
	return err
}

// control serves the simulator's own paths, which need no key and are not
// counted. It reports false for all others.
func (p *Provider) control(w http.ResponseWriter, r *http.Request, path string) bool {
	switch r.Method + " " + path {
	case "GET /simulator/stats":
		writeControl(w, http.StatusOK, p.Stats())
	case "POST /simulator/reset":
		p.Reset()
		writeControl(w, http.StatusOK, p.Stats())
	case "GET /simulator/config":
		writeControl(w, http.StatusOK, p.LiveConfig())
	case "PUT /simulator/config":
		if err := p.putConfig(w, r); err != nil {
			_, _ = io.Copy(io.Discard, r.Body)
			writeControl(w, http.StatusBadRequest, map[string]any{"error": invalid("", "%v", err).object()})
			return true
		}
		writeControl(w, http.StatusOK, p.LiveConfig())
	default:
		return false
	}
	return true
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(mustJSON(v), '\n')) // who asked may have gone
}

func (p *Provider) putConfig(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	var change LiveConfig
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&change); err != nil {
		return fmt.Errorf("configuration: %w; docs/simulator.md lists the fields", err)
	}
	return p.Configure(change)
}

// LiveConfig returns the values in force, all fields set.
func (p *Provider) LiveConfig() LiveConfig {
	s, r := p.live.Load(), p.limits.current()
	faults := []string{}
	for _, f := range p.script.list() {
		faults = append(faults, f.String())
	}
	return LiveConfig{
		TTFT: new(Duration(s.ttft)), TTFTJitter: new(Duration(s.jitter)), TokenTime: new(Duration(s.tokenTime)),
		OutputTokens: new(s.outputTokens), ChunkTokens: new(s.chunkTokens),
		CachedTokens: new(s.cachedTokens), ReasoningTokens: new(s.hiddenTokens),
		RPM: new(r.requests), TPM: new(r.tokens), Concurrency: new(r.concurrency),
		Window: new(Duration(r.window)), Mode: new(r.mode), Count: new(r.count),
		Faults: &faults,
	}
}

// Configure changes what change names, for requests that start afterwards, or
// nothing if a value is wrong. It is safe for concurrent use with requests.
func (p *Provider) Configure(change LiveConfig) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	s, r := *p.live.Load(), p.limits.current()
	if err := change.check(); err != nil {
		return err
	}
	var rules []Faults
	if change.Faults != nil {
		for _, text := range *change.Faults {
			f, err := ParseFaults(text)
			if err != nil {
				return fmt.Errorf("faults: %w", err)
			}
			rules = append(rules, f)
		}
	}
	set(&s.ttft, (*time.Duration)(change.TTFT))
	set(&s.jitter, (*time.Duration)(change.TTFTJitter))
	set(&s.tokenTime, (*time.Duration)(change.TokenTime))
	set(&s.outputTokens, change.OutputTokens)
	set(&s.chunkTokens, change.ChunkTokens)
	set(&s.cachedTokens, change.CachedTokens)
	set(&s.hiddenTokens, change.ReasoningTokens)
	p.live.Store(&s)
	if change.namesLimit() {
		set(&r.requests, change.RPM)
		set(&r.tokens, change.TPM)
		set(&r.concurrency, change.Concurrency)
		set(&r.window, (*time.Duration)(change.Window))
		set(&r.mode, change.Mode)
		set(&r.count, change.Count)
		p.limits.set(r)
	}
	if change.Faults != nil {
		p.script.set(rules)
	}
	return nil
}

func (l *LiveConfig) namesLimit() bool {
	return l.RPM != nil || l.TPM != nil || l.Concurrency != nil || l.Window != nil || l.Mode != nil || l.Count != nil
}

// check reports the first value that is out of range.
func (l *LiveConfig) check() error {
	for _, f := range []struct {
		name   string
		value  *int
		lo, hi int
	}{
		{"output_tokens", l.OutputTokens, 0, maxTokens},
		{"chunk_tokens", l.ChunkTokens, 1, maxTokens},
		{"cached_tokens", l.CachedTokens, 0, maxTokens},
		{"reasoning_tokens", l.ReasoningTokens, 0, maxTokens},
		{"concurrency", l.Concurrency, 0, maxPosition},
	} {
		if f.value != nil && (*f.value < f.lo || *f.value > f.hi) {
			return fmt.Errorf("%s: %d is not from %d to %d", f.name, *f.value, f.lo, f.hi)
		}
	}
	for name, value := range map[string]*int64{"rpm": l.RPM, "tpm": l.TPM} {
		if value != nil && (*value < 0 || *value > maxLimit) {
			return fmt.Errorf("%s: %d is not from 0 (no limit) to %d", name, *value, int64(maxLimit))
		}
	}
	if l.Window != nil && time.Duration(*l.Window) < time.Millisecond {
		return fmt.Errorf("window: %s is shorter than 1ms", time.Duration(*l.Window))
	}
	return nil
}

// set stores a value that is there.
func set[T any](at *T, value *T) {
	if value != nil {
		*at = *value
	}
}
