package redisstore

import (
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/limits"
)

// newIdle returns a store that makes no calls.
func newIdle(t *testing.T) *Store {
	s := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1}), Options{})
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// Takes that fill a call take the limits along that somebody only looks at. Those
// who look go with the next call, which has nothing else to tell.
func TestLookBehindFullCall(t *testing.T) {
	for _, looks := range []int{1, maxTakes, 2*maxTakes + 1} {
		s := newIdle(t)
		limit := &limits.Limit{ID: "team/x/requests", Scope: limits.ScopeTeam, Owner: "x", Dimension: limits.Requests, Amount: 1000, Window: time.Minute, Burst: 1000}
		o := s.owner(groupOf(limit))
		for range maxTakes {
			o.asks = append(o.asks, &ask{charges: []limits.Charge{{Limit: limit, N: 1}}, done: make(chan struct{})})
		}
		var waiting []*ask
		for range looks {
			a := &ask{done: make(chan struct{})}
			o.asks, waiting = append(o.asks, a), append(waiting, a)
		}
		l := o.level(limit)
		l.look = true
		o.mark(l)
		if c := o.next(); c == nil || len(c.asks) != maxTakes {
			t.Fatalf("%d looks: the first call has not the takes", looks)
		}
		if c := o.next(); c != nil || len(o.asks) > 0 {
			t.Errorf("%d looks: there is another call, or somebody waits for one", looks)
		}
		for i, a := range waiting {
			if !a.ended() {
				t.Fatalf("%d looks: number %d waits for ever", looks, i)
			}
		}
	}
}

// A server takes a call whose number is not above the last one's for one that it
// has answered already, also from an owner that was forgotten meanwhile.
func TestForgottenOwnerGoesOnCounting(t *testing.T) {
	s := newIdle(t)
	s.owner("team/old").seq = 7
	for i := range maxOwners {
		s.owner("team/" + strconv.Itoa(i))
	}
	if s.owners["team/old"] != nil {
		t.Fatal("the owner was not forgotten")
	}
	if got := s.owner("team/old").seq; got < 7 {
		t.Errorf("the owner counts on from %d, want at least 7", got)
	}
}

// covers DIST-06: what a lost call was granted is given back as it was asked for,
// whatever has become of the charges of those who then decided alone.
func TestLostCallIsGivenBackAsItWasMade(t *testing.T) {
	s := newIdle(t)
	limit := &limits.Limit{ID: "team/x/tokens", Scope: limits.ScopeTeam, Owner: "x", Dimension: limits.Tokens, Amount: 1000, Window: time.Minute, Burst: 1000}
	o := s.owner(groupOf(limit))
	a := &ask{charges: []limits.Charge{{Limit: limit, N: 100}}, done: make(chan struct{})}
	c := &call{seq: 1, levels: []*level{o.level(limit)}, asks: []*ask{a}}
	o.failed(c, errLate)
	if !a.ended() || !a.lost {
		t.Fatal("who asked still waits")
	}
	a.charges[0].N = 40 // what is not used of it
	before := o.level(limit).pending
	o.refundLost("1 0")
	want := before
	want.add(-worth(limits.RateOf(limit, 0), 100))
	if got := o.level(limit).pending; got != want {
		t.Errorf("given back %+v, want %+v", got, want)
	}
}

// covers DIST-06: what was spent alone, because a reply did not come, is left to pay as
// well: what is not used of it is given back, though the server knows of none of it yet.
func TestWhatWasSpentAloneIsGivenBack(t *testing.T) {
	s := newIdle(t)
	limit := &limits.Limit{ID: "team/x/tokens", Scope: limits.ScopeTeam, Owner: "x", Dimension: limits.Tokens, Amount: 1000, Window: 24 * time.Hour, Burst: 1000}
	o := s.owner(groupOf(limit))
	l, charges := o.level(limit), []limits.Charge{{Limit: limit, N: 100}}
	c := &call{o: o, seq: 1, levels: []*level{l}, asks: []*ask{{charges: charges, done: make(chan struct{})}}, began: time.Now()}
	o.failed(c, errLate)
	if v, err := o.takeAlone(1, nil, charges, o.now()); err != nil || !v.OK {
		t.Fatal(v, err)
	}
	server := o.now()
	reply := []any{server, int64(0), int64(-1), "", int64(0), int64(0), int64(0)} // it has not run; nothing is charged
	if err := o.answered(&call{o: o, seq: 1, levels: c.levels, began: time.Now()}, reply); err != nil {
		t.Fatal(err)
	}
	charges[0].N, charges[0].Ends = 40, true
	o.give(1, charges)
	l.settleAlone(server)
	if got, want := l.pending.charge-l.pending.refund, worth(limits.RateOf(limit, 0), 60); got != want {
		t.Errorf("%d µs are to be told for 60 of 100, want %d", got, want)
	}
}
