package redisstore

import "time"

// Skew puts the clock of this machine off by d.
func (s *Store) Skew(d time.Duration) {
	s.wall = func() time.Time { return time.Now().Add(d) }
}

// Losses is how often the server was lost, of a store that has one for all owners.
func (s *Store) Losses() int { return int(s.shared.loss.Load()) }

// Blip sets how long a loss may be a blip, before Run.
func (s *Store) Blip(d time.Duration) { s.blip = d }
