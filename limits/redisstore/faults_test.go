package redisstore_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// within waits for something to become true.
func within(t testing.TB, d time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !is(); sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is not so that %s", d, what)
		}
	}
}

func answers(s *redisstore.Store) func() bool {
	return func() bool { return s.State().Away == 0 }
}

// left waits until a limit has about so much left.
func left(t testing.TB, s *redisstore.Store, l *limits.Limit, want int64) {
	t.Helper()
	var got int64
	defer func() {
		if t.Failed() {
			t.Logf("%s has %d left, want %d", l.ID, got, want)
		}
	}()
	within(t, 15*time.Second, "the level is what was charged", func() bool {
		limits.Remote(s).Look(t.Context(), []*limits.Limit{l})
		levels, _ := s.Levels(t.Context(), []*limits.Limit{l})
		got = levels[0].Remaining
		return s.State().Away == 0 && got >= want-1 && got <= want+1
	})
}

// one is three limits of one owner.
func one(owner string) []*limits.Limit {
	all := []*limits.Limit{limitstest.Bucket(owner+"-tokens", limits.Tokens, 1000, 24*time.Hour, 1000), limitstest.Slots(owner+"-slots", 10), limitstest.Budget(owner+"-budget", 1000, 24*time.Hour)}
	for _, l := range all {
		l.Group = "team/" + owner
	}
	return all
}

// A server that has lost its scripts gets them again, and nobody notices.
func TestScriptsAreFlushed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: prefix()})
	l := limitstest.Bucket("a", limits.Requests, 100, time.Hour, 20)
	for i := range 20 {
		if err := server.Client().ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if _, v := take(t, s, 1, l); !v.OK || s.State().Away != 0 {
			t.Fatalf("take %d: %v, %+v", i, v.OK, s.State())
		}
	}
	if _, v := take(t, s, 1, l); v.OK {
		t.Error("one more than the limit")
	}
}

// covers DIST-03: a server whose memory is full counts as away until it has room
// again, and not as back in between.
func TestFull(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var well atomic.Int64 // calls that went well
	s := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: prefix(), Called: func(_ time.Duration, failure string) {
		if failure == "" {
			well.Add(1)
		}
	}})
	memory := func(bytes string) {
		t.Helper()
		if err := server.Client().ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	take(t, s, 1, limitstest.Slots("a", 10))
	memory("1")
	if _, v := take(t, s, 1, limitstest.Slots("b", 10)); !v.OK || s.State().Away != 1 {
		t.Fatalf("while the server is full: %+v, %+v", v, s.State())
	}
	before := well.Load()
	sleep(500 * time.Millisecond)
	if n := well.Load() - before; n > 0 || s.State().Away != 1 {
		t.Errorf("a server that is full counted as back %d times", n)
	}
	memory("0")
	within(t, 5*time.Second, "the server is used again", answers(s))
}

// covers DIST-05: a server that may not be written, because another is the master
// now, counts as away until it may again, and no client sees it.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: prefix()})
	all := one("a")
	take(t, s, 300, all[0], all[2])
	plain := server.Client()
	if err := plain.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, v := take(t, s, 100, all[0], all[2]); !v.OK {
		t.Error("refused while read-only, though there is room")
	}
	if s.State().Away != 1 {
		t.Error("a server that cannot be written counts as there")
	}
	if err := plain.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the server is used again", answers(s))
	left(t, s, all[0], 600)
	left(t, s, all[2], 600)
}

// covers DIST-05: a server that is loading counts as away. What it loads is older
// than what it had acknowledged; the replicas tell it the rest.
func TestLoadingAnOlderState(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--dir", t.TempDir(), "--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
	first := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: "p:"})
	two := open(t, redisstore.Server{Addresses: []string{server.Addr}}, redisstore.Options{Prefix: "p:"})
	all, plain := one("a"), server.Client()
	take(t, first, 100, all[0], all[2])
	take(t, two, 100, all[0], all[2])
	if err := plain.Do(t.Context(), "DEBUG", "POPULATE", 2000, "ballast", 100).Err(); err != nil {
		t.Fatal(err)
	}
	if err := plain.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	take(t, first, 300, all[0], all[2]) // lost
	server.Kill()
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		server.Restart()
	}()
	loading := false
	within(t, 10*time.Second, "the server loads", func() bool {
		err := plain.Ping(t.Context()).Err()
		loading = loading || err != nil && strings.HasPrefix(err.Error(), "LOADING")
		if loading && err != nil {
			if _, v := take(t, first, 10, all[0], all[2]); !v.OK {
				t.Error("refused while loading, though there is room")
			}
			return true
		}
		return false
	})
	<-restarted
	within(t, 10*time.Second, "the server is used again", answers(first))
	take(t, first, 10, all[0], all[2]) // by which it is noticed
	left(t, first, all[0], 480)
	left(t, first, all[2], 480)
	left(t, two, all[0], 480)
}

// covers DIST-05: a sentinel makes the replica the master when the master dies. No
// take fails, the limit holds but for about one burst, and what was spent stays spent.
func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	whole := t // for what holds at any speed
	limitstest.Rounds(t, func(t testing.TB) {
		master, _, sentinel := redistest.Sentinel(t)
		at := redisstore.Server{Addresses: []string{sentinel}, MasterName: redistest.MasterName}
		a, b := open(t, at, redisstore.Options{Prefix: "p:", Timeout: 200 * time.Millisecond}), open(t, at, redisstore.Options{Prefix: "p:", Timeout: 200 * time.Millisecond})
		all := one("a")
		for _, s := range []*redisstore.Store{a, b} {
			within(t, 20*time.Second, "the server is found", answers(s))
			take(t, s, 300, all...)
		}
		left(t, a, all[0], 400)
		within(t, 10*time.Second, "they know of each other", func() bool { return a.State().Replicas == 2 && b.State().Replicas == 2 })
		busy := limitstest.Bucket("busy", limits.Requests, 200, time.Second, 50)
		watched := watchApart(t, a, b)
		stop, log := load(t, busy, a, b)
		sleep(300 * time.Millisecond)
		master.Kill()
		sleep(300 * time.Millisecond)
		within(t, 30*time.Second, "the new master is found", func() bool { return answers(a)() && answers(b)() })
		sleep(500 * time.Millisecond)
		stop()
		lost := watched().bound(busy)
		lost.Burst += busy.Burst // what the new master had not heard of
		bound(whole, *log, lost, 50*time.Millisecond)
		for _, s := range []*redisstore.Store{a, b} {
			left(t, s, all[0], 400)
			left(t, s, all[1], 8)
			left(t, s, all[2], 400)
		}
	})
}

// load takes from several replicas until it is stopped, and logs what was admitted.
func load(t testing.TB, l *limits.Limit, stores ...*redisstore.Store) (stop func(), log *[]event) {
	ctx, cancel := context.WithCancel(t.Context())
	log = new([]event)
	var mu sync.Mutex
	var work sync.WaitGroup
	for _, s := range stores {
		for range 3 {
			work.Go(func() {
				for ctx.Err() == nil {
					asked := time.Now()
					if _, v := take(t, s, 1, l); v.OK {
						mu.Lock()
						*log = append(*log, event{asked, time.Now(), 1})
						mu.Unlock()
					}
					sleep(2 * time.Millisecond)
				}
			})
		}
	}
	return func() { cancel(); work.Wait() }, log
}

// covers DIST-05: a slot of the Cluster moves to another node while it is used, and
// a node dies. Limits of other nodes go on as before.
func TestClusterMoves(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	at := redisstore.Server{Cluster: true}
	for _, n := range nodes {
		at.Addresses = append(at.Addresses, n.Addr)
	}
	a, b := open(t, at, redisstore.Options{Prefix: "p:"}), open(t, at, redisstore.Options{Prefix: "p:"})
	all := one("a")
	take(t, a, 100, all...)
	take(t, b, 100, all...)
	busy := limitstest.Bucket("busy", limits.Requests, 200, time.Second, 50)
	busy.Group = all[0].Group
	stop, log := load(t, busy, a, b)
	sleep(300 * time.Millisecond)
	to := move(t, nodes, "p:{"+all[0].Group+"}")
	sleep(300 * time.Millisecond)
	within(t, 10*time.Second, "the moved slot is used", func() bool { return answers(a)() && answers(b)() })
	stop()
	// A take is logged when it is answered: after the timeout at most, and once more
	// where it was sent on to another node.
	bound(t, *log, busy, 150*time.Millisecond)
	for _, s := range []*redisstore.Store{a, b} {
		left(t, s, all[0], 800)
		left(t, s, all[1], 8)
		left(t, s, all[2], 800)
	}

	elsewhere := ownerElsewhere(t, nodes, to)
	take(t, a, 100, elsewhere...)
	to.Kill()
	if _, v := take(t, a, 100, all...); !v.OK {
		t.Error("refused with the node away, though there is room")
	}
	if _, v := take(t, b, 100, elsewhere...); !v.OK || b.State().Away != 0 {
		t.Errorf("limits of another node are refused too: %v, %+v", v.OK, b.State())
	}
	if a.State().Away != 1 {
		t.Errorf("%+v, want one owner away", a.State())
	}
}

// move gives the slot of a tag to another node, with its keys, and returns that.
func move(t *testing.T, nodes []*redistest.Server, tag string) *redistest.Server {
	t.Helper()
	ctx := t.Context()
	must := func(c *redis.Client, args ...any) any {
		t.Helper()
		out, err := c.Do(ctx, args...).Result()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	slot := must(nodes[0].Client(), "CLUSTER", "KEYSLOT", tag)
	from := nodeOf(t, nodes, tag)
	to := nodes[0]
	if to == from {
		to = nodes[1]
	}
	src, dst := from.Client(), to.Client()
	srcID, dstID := must(src, "CLUSTER", "MYID"), must(dst, "CLUSTER", "MYID")
	must(dst, "CLUSTER", "SETSLOT", slot, "IMPORTING", srcID)
	must(src, "CLUSTER", "SETSLOT", slot, "MIGRATING", dstID)
	host, port, _ := net.SplitHostPort(to.Addr)
	for {
		keys, _ := must(src, "CLUSTER", "GETKEYSINSLOT", slot, 100).([]any)
		if len(keys) == 0 {
			break
		}
		must(src, append([]any{"MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS"}, keys...)...)
	}
	for _, n := range []*redistest.Server{to, from, nodes[2]} {
		must(n.Client(), "CLUSTER", "SETSLOT", slot, "NODE", dstID)
	}
	return to
}

// nodeOf is the node that has the slot of a tag.
func nodeOf(t *testing.T, nodes []*redistest.Server, tag string) *redistest.Server {
	t.Helper()
	for _, n := range nodes {
		if err := n.Client().Exists(t.Context(), tag).Err(); err == nil {
			return n
		}
	}
	t.Fatalf("no node has the slot of %s", tag)
	return nil
}

// ownerElsewhere is an owner whose limits are not on a node.
func ownerElsewhere(t *testing.T, nodes []*redistest.Server, not *redistest.Server) []*limits.Limit {
	t.Helper()
	for i := range 100 {
		all := one(fmt.Sprint("other", i))
		if nodeOf(t, nodes, "p:{"+all[0].Group+"}") != not {
			return all
		}
	}
	t.Fatal("every owner is on one node")
	return nil
}
