package teamstest

import (
	"context"
	"slices"
	"sync"
	"time"

	"penstock/teams"
)

// A Memory is a store of one process that forgets everything with it. It is safe
// for concurrent use. The zero Memory is empty.
type Memory struct {
	mu      sync.Mutex
	version int64
	teams   []teams.Team
	keys    []teams.Key
	err     error
}

// Break makes every method report err, until it is called with nil.
func (m *Memory) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Forget empties the store, as a file is that somebody has deleted.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version, m.teams, m.keys = 0, nil, nil
}

// Version implements teams.Store.
func (m *Memory) Version(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version, m.err
}

// Load implements teams.Store.
func (m *Memory) Load(context.Context) (*teams.Set, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	keys := slices.DeleteFunc(slices.Clone(m.keys), func(k teams.Key) bool { return !k.Revoked.IsZero() })
	return &teams.Set{Version: m.version, Teams: slices.Clone(m.teams), Keys: keys}, nil
}

func (m *Memory) change(version int64, do func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return m.err
	case m.version != version:
		return teams.ErrChanged
	}
	m.version++
	do()
	return nil
}

// PutTeam implements teams.Store.
func (m *Memory) PutTeam(_ context.Context, version int64, t teams.Team) error {
	return m.change(version, func() {
		m.teams = slices.DeleteFunc(m.teams, func(old teams.Team) bool { return old.Name == t.Name })
		m.teams = append(m.teams, t)
	})
}

// DeleteTeam implements teams.Store.
func (m *Memory) DeleteTeam(_ context.Context, version int64, name string) error {
	return m.change(version, func() {
		m.teams = slices.DeleteFunc(m.teams, func(old teams.Team) bool { return old.Name == name })
		for i := range m.keys {
			if k := &m.keys[i]; k.Team == name && k.Revoked.IsZero() {
				k.Revoked, k.Secrets = time.Now(), nil
			}
		}
	})
}

// PutKey implements teams.Store.
func (m *Memory) PutKey(_ context.Context, version int64, k teams.Key) error {
	return m.change(version, func() {
		m.keys = slices.DeleteFunc(m.keys, func(old teams.Key) bool { return old.ID == k.ID })
		m.keys = append(m.keys, k)
	})
}

// Revoked implements teams.Store.
func (m *Memory) Revoked(_ context.Context, team string, most int) ([]teams.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(m.keys), func(k teams.Key) bool {
		return k.Revoked.IsZero() || team != "" && k.Team != team
	})
	slices.SortFunc(all, func(a, b teams.Key) int { return b.Revoked.Compare(a.Revoked) })
	return all[:min(len(all), most)], m.err
}
