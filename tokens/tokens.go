// Package tokens estimates what a request will use before it is sent, and learns
// from what it did use. A tokenizer would be exact and too slow for the hot path.
package tokens

import (
	"math/bits"
	"slices"
	"sync"
)

// maxEntries bounds each table; its keys come from configured teams and models.
const maxEntries = 4096

// window is how many answers a prediction rests on.
const window = 64

// Config sets the estimates that hold before anything is learned.
type Config struct {
	BytesPerToken float64 // of text
	FirstOutput   int64   // tokens of output predicted at first
}

// An Estimator predicts input and output. It is safe for concurrent use.
type Estimator struct {
	mu     sync.Mutex
	cfg    Config
	ratio  map[string]*ratios // by target
	output map[use]*recent    // by team and model
}

// ratios are moving means of actual ÷ estimated input, by the size of the text, 0
// where none of that size was seen. Short prompts consist of what a provider adds
// to each as much as of text, and must not speak for long ones.
type ratios [9]float64

// sizeOf is the class of a text's size; each reaches four times as far as the one
// before.
func sizeOf(text int64) int { return min(bits.Len64(uint64(max(text, 0)))/2, len(ratios{})-1) }

// of is the ratio for a size: its own, or the next class's, or what is known further
// off, of which half is believed for each class between.
func (r *ratios) of(size int) float64 {
	for d := range len(r) {
		share := 1 / float64(int(1)<<max(0, d-1))
		if i := size + d; i < len(r) && r[i] > 0 {
			return 1 + (r[i]-1)*share
		}
		if i := size - d; i >= 0 && r[i] > 0 {
			return 1 + (r[i]-1)*share
		}
	}
	return 1
}

// A use is what a prediction is for.
type use struct{ team, model string }

// New returns an estimator that knows nothing yet.
func New(cfg Config) *Estimator {
	return &Estimator{cfg: cfg, ratio: make(map[string]*ratios), output: make(map[use]*recent)}
}

// Configure applies a new configuration; what was learned stays.
func (e *Estimator) Configure(cfg Config) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cfg = cfg
}

// Input estimates the tokens of text bytes and of typed parts, which count by
// their own rule and are not corrected. It is at least 1.
func (e *Estimator) Input(target string, text, parts int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	ratio := 1.0
	if r := e.ratio[target]; r != nil {
		ratio = r.of(sizeOf(text))
	}
	return max(1, int64(float64(text)/e.cfg.BytesPerToken*ratio)+parts)
}

// LearnInput corrects the ratio of a target by what a provider reported.
func (e *Estimator) LearnInput(target string, text, parts, actual int64) {
	if text < 16 || actual <= parts {
		return // too little to learn from
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := float64(actual-parts) / (float64(text) / e.cfg.BytesPerToken)
	seen = min(max(seen, 0.1), 10)
	r := e.ratio[target]
	if r == nil {
		if len(e.ratio) >= maxEntries {
			return
		}
		r = &ratios{}
		e.ratio[target] = r
	}
	mean := &r[sizeOf(text)]
	if *mean == 0 {
		*mean = seen
	}
	*mean += 0.1 * (seen - *mean)
}

// Output predicts the output of a request: the 90th percentile of what the team
// used with the model lately, never above limit, the most that the request allows
// over all its choices (0 for no limit).
func (e *Estimator) Output(team, model string, limit int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.cfg.FirstOutput
	if r := e.output[use{team, model}]; r != nil {
		n = r.p90
	}
	if limit > 0 {
		n = min(n, limit)
	}
	return max(1, n)
}

// LearnOutput notes what a request used.
func (e *Estimator) LearnOutput(team, model string, actual int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := use{team, model}
	r := e.output[key]
	if r == nil {
		if len(e.output) >= maxEntries {
			return
		}
		// The first guess counts twice. Short answers end first, so for a while
		// they alone would say that all are short.
		r = &recent{}
		r.add(e.cfg.FirstOutput)
		r.add(e.cfg.FirstOutput)
		e.output[key] = r
	}
	r.add(actual)
}

// recent is the last few outputs and their 90th percentile.
type recent struct {
	values [window]int64
	n      int
	p90    int64
}

func (r *recent) add(v int64) {
	r.values[r.n%window] = v
	r.n++
	if r.n > window && r.n%4 != 0 {
		return // one more value of many hardly moves it
	}
	var sorted [window]int64
	k := copy(sorted[:], r.values[:min(r.n, window)])
	slices.Sort(sorted[:k])
	r.p90 = sorted[(k*9)/10]
}
