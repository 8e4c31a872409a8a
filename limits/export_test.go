package limits

// Len is the number of levels kept.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.state)
}

// CheckEmpty reports whether nothing is in use or waiting.
func (q *Queue) CheckEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.pools {
		if p.count != 0 || p.bytes != 0 || len(p.load) != 0 {
			return false
		}
		for c := range p.class {
			l := &p.class[c]
			if l.count != 0 || l.inFlight != 0 || len(l.waiting) != 0 {
				return false
			}
			for _, t := range l.teams {
				if len(t.flows) != 0 || len(t.byKey) != 0 || t.backlog.Requests != 0 {
					return false
				}
			}
		}
	}
	return true
}
