package limits

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

var lastID atomic.Uint64

func nextID() uint64 { return lastID.Add(1) }

// A Lease is held while admitted work runs. Like sql.Tx, it is used with a
// deferred Release that does nothing once Settle has been called. It is safe for
// concurrent use.
type Lease struct {
	store Store
	id    uint64
	start time.Time
	// of is who is told when the lease ends, after everything was given back; nil for
	// nobody.
	of *waiter

	mu       sync.Mutex
	done     bool
	charges  []Charge
	reserved Cost
	actual   Cost // once done
}

// Reserved is what the lease holds now, extensions included.
func (l *Lease) Reserved() Cost {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reserved
}

// ShadowRefusals are the shadow limits that would have refused.
func (l *Lease) ShadowRefusals() []*Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	var over []*Limit
	for i := range l.charges {
		if l.charges[i].Over {
			over = append(over, l.charges[i].Limit)
		}
	}
	return over
}

// Extend reserves more tokens and money than was predicted, into debt if need be.
// A refund takes what was added for reserved from the start: of a bucket that was
// nearly full since then, as much as was added may be lost.
func (l *Lease) Extend(more Cost) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	var charges []Charge
	for i := range l.charges {
		c := &l.charges[i]
		n := more.of(c.Limit.Dimension)
		if n <= 0 || c.Limit.Dimension == Requests {
			continue
		}
		c.N += n
		m := *c
		m.N = -n
		charges = append(charges, m)
	}
	l.reserved = l.reserved.plus(Cost{Input: more.Input, Output: more.Output, MicroUSD: more.MicroUSD})
	l.give(charges)
}

// Settle ends the lease, replacing what was reserved by what was used. Slots come
// back at once. Only the first call of Settle or Release counts.
func (l *Lease) Settle(actual Cost) {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return
	}
	l.done, l.actual = true, actual
	for i := range l.charges {
		c := &l.charges[i]
		d := c.Limit.Dimension
		used := actual.of(d)
		c.N -= used
		// What was only predicted is counted now, as a provider counts output
		// that has been produced.
		c.Late = max(0, used-(l.reserved.of(d)-l.reserved.predicted(d)))
		c.Ends = true
	}
	l.give(l.charges)
	l.mu.Unlock()
	if l.of != nil {
		l.of.ended(actual)
	}
}

// An Entry is what a lease did to one limit.
type Entry struct {
	Limit    *Limit
	Reserved int64 // units taken, extensions included; or the slot
	Settled  int64 // units used in the end; 0 while the lease is held, and for slots
	Left     int64 // what remained after the reservation, where Told
	Told     bool
	Shadow   bool // the limit would have refused; nothing was taken
}

// Entries appends to dst what the lease took of each limit, in the order in which
// they were asked.
func (l *Lease) Entries(dst []Entry) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.charges {
		c := &l.charges[i]
		e := Entry{Limit: c.Limit, Reserved: c.N, Left: c.Left, Told: c.Told, Shadow: c.Over}
		if l.done && c.Limit.Dimension != Concurrency {
			e.Settled = l.actual.of(c.Limit.Dimension)
			e.Reserved += e.Settled // Settle has made a refund of the charge
		}
		dst = append(dst, e)
	}
	return dst
}

// Release ends the lease and gives everything back.
func (l *Lease) Release() { l.Settle(Cost{}) }

// give detaches from the request: its end must not keep accounts from being
// settled. The store bounds its own time and counts its own failures.
func (l *Lease) give(charges []Charge) {
	if len(charges) > 0 {
		_ = l.store.Give(context.Background(), l.id, charges)
	}
}

// giveBack undoes a Take.
func giveBack(store Store, id uint64, charges []Charge) {
	for i := range charges {
		charges[i].Ends = true
	}
	_ = store.Give(context.Background(), id, charges)
}

// Reserve takes cost from limits that refuse, all or none, without waiting. It
// reports *Exceeded, or the store's error.
func Reserve(ctx context.Context, store Store, limits []*Limit, cost Cost) (*Lease, error) {
	room := new(struct {
		Lease
		few [4]Charge
	})
	charges := room.few[:0]
	for _, l := range limits {
		n, fits := l.charge(cost)
		if !fits {
			return nil, &Exceeded{Reason: ReasonTooLarge, Limit: l, Requested: cost.of(l.Dimension)}
		}
		charges = append(charges, Charge{Limit: l, N: n})
	}
	lease := &room.Lease
	lease.store, lease.id, lease.start, lease.charges, lease.reserved = store, nextID(), time.Now(), charges, cost
	v, err := store.Take(ctx, lease.id, nil, charges)
	if err != nil {
		return nil, err
	}
	if !v.OK {
		return nil, &Exceeded{Reason: ReasonLimit, Limit: v.Last, Requested: v.N, RetryAfter: v.After, Checked: charges}
	}
	return lease, nil
}
