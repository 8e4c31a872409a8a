package limits

import (
	"context"
	"sync"
	"time"
)

// maxIdle is how many levels Memory keeps before it forgets those that a new
// bucket would start with anyway.
const maxIdle = 4096

// Memory is the Store of a single process. The zero Memory is not usable; see
// NewMemory.
type Memory struct {
	start time.Time // levels are counted from here, on the monotonic clock
	mu    sync.Mutex
	state map[string]*state
	limit int   // number of levels at which idle ones are dropped
	turn  int64 // of the last charge to a rate
}

type state struct {
	tat   micros // of a rate
	past  Past   // of a rate
	inUse int64  // of a concurrency limit
	purse Purse  // of a budget
}

// changing notes what is left to pay of a rate, before it changes.
func (s *state) changing(now micros) { s.past.Note(max(s.tat-now, 0)) }

// NewMemory returns an empty store: every bucket full, every slot free.
func NewMemory() *Memory {
	return &Memory{start: time.Now(), state: make(map[string]*state), limit: maxIdle}
}

func (m *Memory) now() micros { return time.Since(m.start).Microseconds() }

// wall is the time by the calendar, which budgets go by.
func wall() micros { return time.Now().UnixMicro() }

func (m *Memory) at(l *Limit, now micros) *state {
	s := m.state[l.ID]
	if s == nil {
		if len(m.state) >= m.limit {
			m.sweep(now)
		}
		s = &state{}
		m.state[l.ID] = s
	}
	return s
}

// sweep drops the levels that say nothing, and doubles the threshold when most of
// them do, so that its cost stays spread out.
func (m *Memory) sweep(now micros) {
	for id, s := range m.state {
		if s.inUse == 0 && s.tat <= now && s.purse.Spent == 0 {
			delete(m.state, id)
		}
	}
	m.limit = max(maxIdle, 2*len(m.state))
}

// Take implements Store. It never fails.
func (m *Memory) Take(_ context.Context, _ uint64, _ *Turn, charges []Charge) (Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	v := Verdict{OK: true}
	for i := range charges {
		c := &charges[i]
		c.Over = false
		after, ok := m.check(c, now)
		if ok {
			continue
		}
		if c.Limit.Shadow {
			c.Over = true
			continue
		}
		v.Refuse(c, after)
	}
	for i := range charges {
		if v.OK {
			m.apply(&charges[i], now)
		}
		m.tell(&charges[i], now)
	}
	return v, nil
}

// tell notes where the limit stands.
func (m *Memory) tell(c *Charge, now micros) {
	s := m.at(c.Limit, now)
	c.Told = true
	if c.Limit.Dimension == Concurrency {
		c.Left = c.Slots() - s.inUse
		return
	}
	if c.Limit.Dimension == Spend {
		c.Left = c.Limit.Amount - s.purse.Spent
		return
	}
	c.Left = RateOf(c.Limit, c.Scale).Level(s.tat, now)
}

func (m *Memory) check(c *Charge, now micros) (after time.Duration, ok bool) {
	s := m.at(c.Limit, now)
	if c.Limit.Dimension == Concurrency {
		slots := c.Slots()
		return 0, s.inUse+1 <= slots-min(c.Keep, slots-1)
	}
	if c.Limit.Dimension == Spend {
		at := wall()
		s.purse = s.purse.At(c.Limit, at)
		return toDuration(s.purse.Left(c.Limit, at)), s.purse.Spent+c.N <= c.Limit.Amount
	}
	_, wait, ok := RateOf(c.Limit, c.Scale).Take(s.tat, now, c.N, c.Keep)
	return toDuration(wait), ok
}

func (m *Memory) apply(c *Charge, now micros) {
	if c.Over {
		return
	}
	s := m.at(c.Limit, now)
	if c.Limit.Dimension == Concurrency {
		s.inUse++
		return
	}
	if c.Limit.Dimension == Spend {
		s.purse.Spent += c.N
		c.At = s.purse.Start
		return
	}
	// The check has passed; charging by give takes all of N where a scaled
	// burst is smaller.
	s.changing(now)
	s.tat = RateOf(c.Limit, c.Scale).Give(s.tat, now, -c.N)
	m.turn++
	c.At = m.turn
	s.past.Reserve(c.At)
}

// Give implements Store. It never fails.
func (m *Memory) Give(_ context.Context, _ uint64, charges []Charge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for i := range charges {
		c := &charges[i]
		if c.Over {
			continue
		}
		s := m.at(c.Limit, now)
		if c.Limit.Dimension == Concurrency {
			s.inUse = max(0, s.inUse-1)
			continue
		}
		if c.Limit.Dimension == Spend {
			if c.At == s.purse.Start {
				s.purse.Spent = max(0, s.purse.Spent-c.N)
			}
			continue
		}
		s.changing(now)
		r := RateOf(c.Limit, c.Scale)
		if back := c.N + c.Late; back > 0 || c.Ends {
			s.tat -= s.past.Refund(c.At, -r.Worth(-max(back, 0)), c.Ends)
			s.tat = r.Give(s.tat, now, min(back, 0)-c.Late)
			continue
		}
		s.tat = r.Give(s.tat, now, c.N)
	}
	return nil
}

// Levels implements Store. It never fails.
func (m *Memory) Levels(_ context.Context, limits []*Limit) ([]Level, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	out := make([]Level, len(limits))
	for i, l := range limits {
		s := m.state[l.ID]
		if s == nil {
			s = &state{}
		}
		if l.Dimension == Concurrency {
			out[i].Remaining = l.Amount - s.inUse
			continue
		}
		if l.Dimension == Spend {
			at := wall()
			p := s.purse.At(l, at)
			out[i] = Level{Remaining: l.Amount - p.Spent, Reset: toDuration(p.Left(l, at))}
			continue
		}
		r := RateOf(l, 0)
		out[i] = Level{Remaining: r.Level(s.tat, now), Reset: toDuration(max(s.tat-now, 0))}
	}
	return out, nil
}

// Lower implements Store. It never fails.
func (m *Memory) Lower(_ context.Context, l *Limit, units int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	s := m.at(l, now)
	s.changing(now)
	s.tat = RateOf(l, 0).Lower(s.tat, now, units)
	return nil
}

// Restore implements Store. It never fails.
func (m *Memory) Restore(_ context.Context, l *Limit, start, spent int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.at(l, m.now())
	if s.purse = s.purse.At(l, wall()); s.purse.Start == start {
		s.purse.Spent = max(s.purse.Spent, spent)
	}
	return nil
}
