package limits

import (
	"context"
	"time"
)

// full is the scale of a limit that is not slowed down, in thousandths.
const full = 1000

// A Charge takes N units of a limit.
type Charge struct {
	Limit *Limit
	N     int64
	Keep  int64 // units that must stay behind, for a higher class or as a margin
	Scale int64 // thousandths of the limit in force while an upstream is slowed down; 0 means all of it
	// Left is what remains of the limit after a Take, or what stood there when it
	// refused, where Told says that the store knows. Both are set by Take.
	Left int64
	Told bool
	// Over is set by Take on a shadow limit that would have refused. Nothing was
	// charged there.
	Over bool
	// Ends says that nothing more of the charge will be given back.
	Ends bool
	// At tells the store, and nobody else, when Take charged; of a budget, which
	// window.
	At int64
	// Late is the part of what was used that a provider counts only now, and not
	// from At on. Give returns N+Late, but nothing of what the bucket, had it not
	// been charged, would have lost at its brim since At; then it charges Late. A
	// store that does not know of At returns N.
	Late int64
}

// Slots is how many slots a concurrency charge sees.
func (c *Charge) Slots() int64 {
	if c.Scale > 0 && c.Scale < full {
		return max(1, c.Limit.Amount*c.Scale/full)
	}
	return c.Limit.Amount
}

// A Verdict says whether all charges were taken.
type Verdict struct {
	OK bool
	// By is the narrowest limit that refused: first of the charges in order.
	By *Limit
	// After is the time until the last of the refusing rates and budgets would admit, 0 when
	// only slots are missing, whose return nobody can foresee.
	After time.Duration
	// Last is the limit that After is of: By, unless a wider one refuses for longer. N
	// was asked of it.
	Last *Limit
	N    int64
	// Again is when to ask again at the latest, because another process may have
	// given something back; 0 when there is no other.
	Again time.Duration
	// Turn is the team whose turn it is where By had room, but not for the one who
	// asked.
	Turn string
	// Told reports that the store has taken the Turn of the asker into account.
	Told bool
}

// Refuse notes that a charge does not fit for so long. Charges come in their order.
func (v *Verdict) Refuse(c *Charge, after time.Duration) {
	if v.OK {
		v.OK, v.By = false, c.Limit
	}
	if v.Last == nil || after > v.After {
		v.Last, v.N, v.After = c.Limit, c.N, after
	}
}

// A Turn says who asks, so that a shared store can keep the order of fair queueing
// among the queues of several processes. A store of one process needs none: there
// the queue alone decides who asks.
type Turn struct {
	Team   string
	Weight int
	Class  Class
	Price  float64       // of the request in fair queueing
	Owed   float64       // what earlier requests of the team used beyond their price, since it was last told
	More   bool          // others of the team and class wait behind it
	Left   time.Duration // how long it may still wait
}

// A Level is where a limit stands.
type Level struct {
	Remaining int64         // units or slots left; negative is debt
	Reset     time.Duration // time until the bucket is full again, or the budget's window ends; 0 for slots
}

// A Store keeps the level of every limit. It is safe for concurrent use, and
// bounds its own time. Its conformance suite is in limits/limitstest.
type Store interface {
	// Take takes every charge or none. Charges stand from the narrowest limit to
	// the widest. The id names the reservation: slots are kept under it, so that
	// what is taken or given back twice under one id counts once. The turn is nil
	// for limits that nobody waits for. An error means that nothing was taken.
	Take(ctx context.Context, id uint64, turn *Turn, charges []Charge) (Verdict, error)
	// Give returns N units of each charge, or the slot; a negative N charges
	// more, into debt if need be. Charges marked Over are passed over, and so are
	// those on a budget whose window has passed since the Take.
	Give(ctx context.Context, id uint64, charges []Charge) error
	// Levels reports where limits stand, in their order.
	Levels(ctx context.Context, limits []*Limit) ([]Level, error)
	// Lower brings the level of a rate down to at most units, because its
	// provider says so.
	Lower(ctx context.Context, l *Limit, units int64) error
	// Restore raises what a budget has spent to at least spent, if the window in
	// force began at start, in microseconds since 1970. It does nothing in another
	// window.
	Restore(ctx context.Context, l *Limit, start, spent int64) error
}

// A Remote store answers Take only after a round trip, so a Queue asks it without
// holding its lock. The other methods of a Store do not wait.
type Remote interface {
	Store
	// Look asks where limits stand, so that the next Levels tells what other
	// processes have done, too. It waits until the store answers, fails, or ctx ends.
	Look(ctx context.Context, limits []*Limit)
}

// LevelsNow reports where limits stand, as Levels does, but asks a Remote store.
func LevelsNow(ctx context.Context, s Store, limits []*Limit) ([]Level, error) {
	if r, ok := s.(Remote); ok {
		r.Look(ctx, limits)
	}
	return s.Levels(ctx, limits)
}
