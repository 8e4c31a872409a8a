package redisstore

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// beatEvery is how often a replica says that it lives, and renews what it holds.
const beatEvery = time.Second

// beatLife is how long a replica counts as living after it has said so.
const beatLife = 5 * beatEvery

// beatScript enters the replica into the list of those that live, counts them, and
// tells whether it was missing there and how many stand before it by name. It adds before it removes: once a script has
// written, a server that is full refuses it nothing, and would count as back.
var beatScript = redis.NewScript(`
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local till = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
local all, before = redis.call('ZRANGE', KEYS[1], 0, -1), 0
for _, name in ipairs(all) do if name < ARGV[1] then before = before + 1 end end
return {#all, till <= now and 1 or 0, before}
`)

func (s *Store) replicasKey() string { return s.opt.Prefix + "replicas" }
func (s *Store) channel() string     { return s.opt.Prefix + "wake" }

// beat counts the replicas that live, this one included.
func (s *Store) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	began := time.Now()
	reply, err := beatScript.Run(ctx, s.client, []string{s.replicasKey()}, s.opt.Replica, beatLife.Milliseconds()).Int64Slice()
	s.opt.Called(time.Since(began), failure(err))
	if err == nil && len(reply) == 3 {
		s.counted(reply[0], reply[2], reply[1] == 1)
	}
	return err
}

// counted takes a count of the replicas, and of those before this one. After a list in
// which this one was missing the others are given time to enter theirs again before
// fewer are believed.
func (s *Store) counted(n, before int64, missing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if missing {
		s.recount = now.Add(beatLife)
	}
	if n >= s.live.Load() || now.After(s.recount) {
		s.live.Store(max(1, n))
		s.rank.Store(before)
	}
}

// A place is this replica's among those that live.
type place struct {
	replicas int64
	rank     int64 // how many stand before it
}

func (s *Store) place() place { return place{s.live.Load(), s.rank.Load()} }

// share is this replica's of n slots. The shares of all replicas are n together: what
// cannot be divided goes to those that stand first.
func (p place) share(n int64) int64 {
	if p.rank < n%p.replicas {
		return n/p.replicas + 1
	}
	return n / p.replicas
}

// resign takes the replica off the list.
func (s *Store) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
	defer cancel()
	_ = s.client.ZRem(ctx, s.replicasKey(), s.opt.Replica).Err() // it expires anyway
}

// Run starts the background work: the sign of life, renewals, and messages from
// other replicas. The function wake is called after something came that may let
// somebody start; it may take its time.
func (s *Store) Run(wake func()) {
	s.spawn(s.beats)
	s.spawn(s.listen)
	s.spawn(func() {
		for {
			select {
			case <-s.life.Done():
				return
			case <-s.wakes:
				wake()
			}
		}
	})
}

func (s *Store) wake() {
	select {
	case s.wakes <- struct{}{}:
	default: // one is under way
	}
}

func (s *Store) beats() {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		if s.shared == nil || !s.shared.down.Load() { // else the probe does it
			if err := s.beat(s.life); err != nil && s.shared != nil && s.life.Err() == nil {
				s.shared.trip(err)()
			}
		}
		s.each((*owner).beat)
		if s.shared == nil || !s.shared.down.Load() {
			s.inspect()
		}
		select {
		case <-s.life.Done():
			return
		case <-ticker.C:
		}
	}
}

// beat renews what is held, and gives back what is held for nothing.
func (o *owner) beat() {
	o.mu.Lock()
	defer o.mu.Unlock()
	hold, now := false, o.now()
	for _, l := range o.levels {
		if l.chunk.units > 0 && now >= l.chunk.until {
			hold = true
			o.mark(l)
		}
		if l.kind == slots {
			if hold = hold || l.held > 0; l.held > 0 {
				o.mark(l)
			}
			if l.chunk.takes.sum(time.Now()) < 1 {
				l.taken = false
			}
		}
	}
	if hold || o.lost != nil {
		o.tellWithin(soon)
	}
}

// leave gives everything back that is not in use, before the process ends.
func (o *owner) leave() {
	o.mu.Lock()
	o.calm = time.Now().Add(time.Hour)
	o.mu.Unlock()
	o.flush()
}

// listen hears of what other replicas gave back, or need.
func (s *Store) listen() {
	sub := s.client.Subscribe(s.life, s.channel())
	defer sub.Close()
	messages := sub.Channel(redis.WithChannelHealthCheckInterval(2 * time.Second))
	for {
		select {
		case <-s.life.Done():
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			s.heard(m.Payload)
		}
	}
}

func (s *Store) heard(message string) {
	verb, rest, _ := strings.Cut(message, " ")
	from, group, _ := strings.Cut(rest, " ")
	if from == s.opt.Replica {
		return
	}
	if verb == news {
		select {
		case s.told <- struct{}{}:
		default: // one has not been looked at yet
		}
		return
	}
	s.mu.Lock()
	o := s.owners[group]
	s.mu.Unlock()
	if o == nil {
		return
	}
	o.mu.Lock()
	clear(o.refused)
	if verb == "recall" {
		o.calm = time.Now().Add(time.Second)
		o.tellWithin(0)
	}
	o.mu.Unlock()
	if verb == "wake" {
		s.wake()
	}
}

// news is the message that something has changed in the database that the replicas
// share.
const news = "news"

// Announce tells the other replicas that teams or keys have changed in the database
// that they share. It does not wait for them.
func (s *Store) Announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	return s.client.Publish(ctx, s.channel(), news+" "+s.opt.Replica).Err()
}

// Heard returns a channel that receives after an announcement of another replica.
// One that comes while the connection is away is lost.
func (s *Store) Heard() <-chan struct{} { return s.told }

// failure names the kind of an error for metrics, "" for none.
func failure(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, redis.ErrPoolTimeout):
		return "timeout"
	case errors.Is(err, errReply):
		return "reply"
	}
	text := err.Error()
	for _, k := range []struct{ prefix, kind string }{
		{"LOADING", "loading"}, {"READONLY", "readonly"}, {"CLUSTERDOWN", "cluster"}, {"MOVED", "cluster"}, {"ASK", "cluster"},
		{"TRYAGAIN", "cluster"}, {"MASTERDOWN", "cluster"}, {"NOAUTH", "auth"}, {"WRONGPASS", "auth"}, {"NOPERM", "auth"}, {"OOM", "memory"},
		{"MISCONF", "persistence"}, {"NOREPLICAS", "replicas"}, {"BUSY", "busy"}, {"ERR", "script"},
	} {
		if strings.HasPrefix(text, k.prefix) {
			return k.kind
		}
	}
	return "connection"
}
