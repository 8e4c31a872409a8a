// Package redisstore is the limits.Store that several replicas share through Redis
// or Valkey: single, behind Sentinel, or a Cluster.
//
// The limits of one owner (a team with its keys, an upstream with its models) are
// in one hash slot. A replica has at most one call to an owner under way; what
// comes meanwhile goes with the next. A call is one script that gives back, takes
// and tells where the limits stand, at the server's own time.
//
//   - A rate is one key: the theoretical arrival time of limits.Rate.
//   - A concurrency limit is one hash: what each replica holds, and until when. A
//     replica states its holding rather than changing it, so nothing is counted
//     twice, and a replica that dies loses its slots after the lease time.
//   - Calls of a replica are numbered, and one that comes twice, or late, changes
//     nothing.
//   - While nobody waits and a limit is far from used up, a replica withdraws a
//     chunk and spends it without asking (chunk.go).
//   - While somebody waits, the script keeps the order of fair queueing among the
//     replicas (call.lua).
//   - While Redis is away, each limit follows its limits.OnLoss (alone.go). At first
//     that may be this replica's own trouble, so it takes only what is its own.
package redisstore

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/limits"
)

// Options say how to share limits. The zero value of a field is its default.
type Options struct {
	Prefix   string        // of every key and channel; "penstock:"
	Timeout  time.Duration // of one call; 50 ms
	Lease    time.Duration // after which the slots of a replica that is silent come back; 10 s
	Replicas int64         // how many are assumed before Redis has told; 1
	Replica  string        // unique name of this one; random
	OnLoss   limits.OnLoss // see SetOnLoss
	Log      *slog.Logger  // nil for none
	// Called is told how long each call took and how it failed, "" when it did not.
	Called func(took time.Duration, failure string)
}

func (o *Options) defaults() {
	if o.Prefix == "" {
		o.Prefix = "penstock:"
	}
	if o.Timeout <= 0 {
		o.Timeout = 50 * time.Millisecond
	}
	if o.Lease <= 0 {
		o.Lease = 10 * time.Second
	}
	o.Replicas = max(1, o.Replicas)
	if o.Replica == "" {
		var b [8]byte
		rand.Read(b[:]) // never fails
		o.Replica = hex.EncodeToString(b[:])
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Called == nil {
		o.Called = func(time.Duration, string) {}
	}
}

//go:embed call.lua
var callSource string

var callScript = redis.NewScript(callSource)

// A Store implements limits.Store. It is safe for concurrent use.
type Store struct {
	opt     Options
	client  redis.UniversalClient
	cluster bool
	process *limits.Memory   // limits of the process, which nobody shares
	live    atomic.Int64     // replicas, as last known
	rank    atomic.Int64     // of this one among them; the last until it is known
	onLoss  atomic.Int32     // limits.OnLoss
	wall    func() time.Time // the clock of this machine, which is used until a server has told the time
	logged  atomic.Int64     // when a loss was logged last, in nanoseconds since 1970
	blip    time.Duration    // see blip
	wakes   chan struct{}
	told    chan struct{} // receives after another replica's announcement

	uninspected atomic.Bool // the server is still to be asked for its maxmemory-policy
	evicts      string      // the policy that was warned of last; see inspect

	mu     sync.Mutex
	owners map[string]*owner
	swept  time.Time // when owners were forgotten last
	seq    int64     // largest number of a call of those: their server takes no lower one for new
	shared *gate     // of all owners, unless each has its own
	closed bool
	// recount is when fewer replicas are believed again.
	recount time.Time

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

// New returns a store over a client, which it closes in the end. Start it by Run.
func New(client redis.UniversalClient, opt Options) *Store {
	opt.defaults()
	s := &Store{opt: opt, client: client, process: limits.NewMemory(), owners: make(map[string]*owner), wakes: make(chan struct{}, 1), told: make(chan struct{}, 1)}
	s.wall, s.blip = time.Now, blip
	s.life, s.end = context.WithCancel(context.Background())
	s.live.Store(opt.Replicas)
	s.rank.Store(opt.Replicas - 1)
	s.uninspected.Store(true)
	s.SetOnLoss(opt.OnLoss)
	_, s.cluster = client.(*redis.ClusterClient)
	if !s.cluster {
		s.shared = &gate{s: s, name: "redis", probe: s.beat}
	}
	return s
}

// Replica is the name of this replica.
func (s *Store) Replica() string { return s.opt.Replica }

// maxOwners is how many owners are remembered; beyond it, those that hold nothing
// are forgotten.
const maxOwners = 10_000

// groupOf names the limits that are charged in one step. Models belong to their
// upstream.
func groupOf(l *limits.Limit) string {
	switch {
	case l.Group != "":
		return l.Group
	case l.Scope == limits.ScopeModel:
		upstream, _, _ := strings.Cut(l.Owner, "/")
		return limits.ScopeUpstream.String() + "/" + upstream
	}
	return l.Scope.String() + "/" + l.Owner
}

// SetOnLoss sets what holds for limits without a policy of their own while the
// server is away; limits.Divide by default.
func (s *Store) SetOnLoss(o limits.OnLoss) {
	if o == limits.AsStore {
		o = limits.Divide
	}
	s.onLoss.Store(int32(o))
}

// policy is what holds for a limit while the server is away.
func (s *Store) policy(l *limits.Limit) limits.OnLoss {
	if l.OnLoss != limits.AsStore {
		return l.OnLoss
	}
	return limits.OnLoss(s.onLoss.Load())
}

func (s *Store) owner(group string) *owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[group]
	if o != nil {
		return o
	}
	if len(s.owners) >= maxOwners && time.Since(s.swept) > time.Second {
		s.swept = time.Now()
		for name, old := range s.owners {
			if seq, ok := old.forgettable(); ok {
				s.seq = max(s.seq, seq)
				delete(s.owners, name)
			}
		}
	}
	o = newOwner(s, group)
	o.seq = s.seq
	if o.gate = s.shared; o.gate == nil {
		o.gate = &gate{s: s, name: group, probe: o.probe}
	}
	s.owners[group] = o
	return o
}

// each calls f with every owner.
func (s *Store) each(f func(*owner)) {
	s.mu.Lock()
	all := make([]*owner, 0, len(s.owners))
	for _, o := range s.owners {
		all = append(all, o)
	}
	s.mu.Unlock()
	for _, o := range all {
		f(o)
	}
}

// parts calls f with each run of charges that stand in one owner; o is nil for
// those of the process.
func (s *Store) parts(charges []limits.Charge, f func(o *owner, part []limits.Charge) bool) {
	for from := 0; from < len(charges); {
		process := charges[from].Limit.Scope == limits.ScopeGateway
		group, to := groupOf(charges[from].Limit), from+1
		for to < len(charges) && groupOf(charges[to].Limit) == group {
			to++
		}
		var o *owner
		if !process {
			o = s.owner(group)
		}
		if !f(o, charges[from:to]) {
			return
		}
		from = to
	}
}

// queued reports whether there is a fair queue for the limits of an owner.
func queued(charges []limits.Charge) bool { return charges[0].Limit.Scope >= limits.ScopeModel }

// Take implements limits.Store. Each owner is asked in turn, the narrowest first;
// where a later one refuses, the earlier ones get theirs back. It waits for at most
// the timeout at each. The only error is *limits.Unavailable.
func (s *Store) Take(ctx context.Context, id uint64, turn *limits.Turn, charges []limits.Charge) (limits.Verdict, error) {
	v, taken := limits.Verdict{OK: true}, 0
	var err error
	s.parts(charges, func(o *owner, part []limits.Charge) bool {
		told := v.Told
		if o == nil {
			v, err = s.process.Take(ctx, id, turn, part)
		} else {
			v, err = o.take(id, turn, part)
		}
		v.Told = v.Told && queued(part) || told
		if err == nil && v.OK {
			taken += len(part)
			return true
		}
		return false
	})
	if err != nil || !v.OK {
		for i := range charges[:taken] {
			charges[i].Ends = true
		}
		_ = s.Give(ctx, id, charges[:taken])
		for i := range charges[:taken] {
			charges[i].Ends = false
		}
	}
	return v, err
}

// Give implements limits.Store. It notes what to give back; the owner is told with
// the next call, at once where somebody may wait for it. It never fails.
func (s *Store) Give(ctx context.Context, id uint64, charges []limits.Charge) error {
	s.parts(charges, func(o *owner, part []limits.Charge) bool {
		if o == nil {
			_ = s.process.Give(ctx, id, part)
		} else {
			o.give(id, part)
		}
		return true
	})
	return nil
}

// Levels implements limits.Store, by what was last told and what was done since.
// It never fails.
func (s *Store) Levels(ctx context.Context, all []*limits.Limit) ([]limits.Level, error) {
	out := make([]limits.Level, len(all))
	for i, l := range all {
		if l.Scope == limits.ScopeGateway {
			own, _ := s.process.Levels(ctx, all[i:i+1])
			out[i] = own[0]
			continue
		}
		out[i] = s.owner(groupOf(l)).report(l)
	}
	return out, nil
}

// Lower implements limits.Store. It never fails.
func (s *Store) Lower(ctx context.Context, l *limits.Limit, units int64) error {
	if l.Scope == limits.ScopeGateway {
		return s.process.Lower(ctx, l, units)
	}
	s.owner(groupOf(l)).lower(l, units)
	return nil
}

// Restore implements limits.Store. It never fails.
func (s *Store) Restore(_ context.Context, l *limits.Limit, start, spent int64) error {
	s.owner(groupOf(l)).restore(l, start, spent)
	return nil
}

// spawn runs f in the background, unless the store is closed.
func (s *Store) spawn(f func()) { s.trySpawn(f) }

// trySpawn reports whether it did.
func (s *Store) trySpawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(f)
	}
	return !s.closed
}

// Close tells Redis what is left to tell, gives up the slots and the place among
// the replicas, and ends the background work.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.work.Wait()
	s.each(func(o *owner) { o.leave() })
	s.resign()
	return s.client.Close()
}
