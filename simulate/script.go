package simulate

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A script chooses the faults of each request from a list of rules, and owns
// the random numbers. It is safe for concurrent use.
type script struct {
	mu    sync.Mutex
	rules []Faults
	seen  []int // requests that each rule's First has counted
	begun time.Time
	rand  *rand.Rand
}

func newScript(rules []Faults, seed uint64) *script {
	s := &script{rand: rand.New(rand.NewPCG(seed, 0x53494d))}
	s.set(rules)
	return s
}

// set replaces the rules and starts their counts and times again.
func (s *script) set(rules []Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = slices.Clone(rules)
	s.seen = make([]int, len(rules))
	s.begun = time.Now()
}

// restart starts the rules' counts and times again.
func (s *script) restart() { s.set(s.list()) }

func (s *script) list() []Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rules)
}

// pick returns the first rule that applies to the next request.
func (s *script) pick() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rules) == 0 {
		return Faults{}
	}
	t := time.Since(s.begun)
	for i, f := range s.rules {
		if s.applies(i, f, t) {
			return f
		}
	}
	return Faults{}
}

func (s *script) applies(i int, f Faults, t time.Duration) bool {
	if t < f.From || (f.Until != 0 && t >= f.Until) {
		return false
	}
	if f.First != 0 {
		if s.seen[i] >= f.First {
			return false
		}
		s.seen[i]++
	}
	return f.Probability == 0 || s.rand.Float64() < f.Probability
}

// jitter returns a uniform part of most.
func (s *script) jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rand.Int64N(int64(most)))
}
