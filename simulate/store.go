package simulate

import (
	"slices"
	"sync"
)

// Bounds of what a Provider remembers. The oldest goes first.
const (
	maxStored      = 1000     // responses, and files
	maxStoredBytes = 64 << 20 // of responses, and of file contents
)

// A responseStore keeps recent responses. Its zero value is empty; it is safe
// for concurrent use.
type responseStore struct {
	mu     sync.Mutex
	bodies map[string][]byte
	order  []string // oldest first
	size   int
}

func (s *responseStore) put(id string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bodies == nil {
		s.bodies = map[string][]byte{}
	}
	s.bodies[id] = body
	s.order = append(s.order, id)
	s.size += len(body)
	for len(s.order) > 1 && (len(s.order) > maxStored || s.size > maxStoredBytes) {
		s.drop(s.order[0])
	}
}

// get returns nil for a response that is not stored.
func (s *responseStore) get(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[id]
}

func (s *responseStore) remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.bodies[id]
	if ok {
		s.drop(id)
	}
	return ok
}

func (s *responseStore) drop(id string) {
	s.size -= len(s.bodies[id])
	delete(s.bodies, id)
	i := slices.Index(s.order, id)
	s.order = slices.Delete(s.order, i, i+1)
}

func (s *responseStore) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies, s.order, s.size = nil, nil, 0
}
