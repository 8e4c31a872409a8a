package limits

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"
)

// A pool is the queue of one upstream. Everything here is guarded by Queue.mu.
type pool struct {
	name  string
	class [classes]lane
	load  map[owner]load // by team, and by team and key, while they wait
	count int64
	bytes int64
	timer *time.Timer // next time at which a bucket or a pause lets somebody start
	due   time.Time   // when the timer goes off; zero when it does not

	passing, again bool    // a pass is under way; another has to follow
	teams          []*team // of the pass under way
	flows          []*flow
}

type load struct{ count, bytes int64 }

// An owner is a key of a team, or with no key the team.
type owner struct{ team, key string }

// A lane is one priority class of a pool.
type lane struct {
	teams    map[string]*team // all teams seen; bounded by the configuration
	waiting  []*team          // teams with waiters
	virtual  float64          // virtual time: start tag of the last request served
	count    int64
	inFlight int64
	seen     time.Time // last time a request of the class started or came
}

// A team is one team's waiters in a lane.
type team struct {
	name    string
	weight  float64
	weighed time.Time // when the request came that the weight is of
	finish  float64   // finish tag: virtual time at which what it was served is paid for
	virtual float64   // virtual time among its flows
	owed    float64   // corrections of its price that a shared store was not told of
	flows   []*flow   // with waiters
	byKey   map[string]*flow
	backlog Cost
}

// A flow is the waiters of one key for one set of targets. They need the same
// limits, so when its head cannot start, none can.
type flow struct {
	key     string
	team    *team
	lane    *lane
	finish  float64
	entries entryHeap
	backlog Cost
}

// An entry is a waiter's place in a pool.
type entry struct {
	w    *waiter
	pool *pool
	flow *flow
	at   int // index in the flow's heap
}

// entryHeap orders by deadline, then by arrival.
type entryHeap []*entry

func (h entryHeap) Len() int { return len(h) }
func (h entryHeap) Less(i, j int) bool {
	a, b := h[i].w, h[j].w
	if !a.deadline.Equal(b.deadline) {
		return a.deadline.Before(b.deadline)
	}
	return a.joined.Before(b.joined)
}
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}
func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// maxTeams bounds the teams that a lane remembers; names come from the
// configuration, and a reload may bring new ones.
const maxTeams = 10_000

func (q *Queue) pool(name string) *pool {
	p := q.pools[name]
	if p == nil {
		p = &pool{name: name, load: make(map[owner]load)}
		for i := range p.class {
			p.class[i].teams = make(map[string]*team)
		}
		q.pools[name] = p
	}
	return p
}

// team is the waiter's team, whose weight is that of the request that came last:
// those that came before a reload do not bring the old one back.
func (l *lane) team(w *waiter) *team {
	t := l.teams[w.Team]
	if t == nil {
		if len(l.teams) >= maxTeams {
			l.forget()
		}
		t = &team{name: w.Team, byKey: make(map[string]*flow)}
		l.teams[w.Team] = t
	}
	if !w.joined.Before(t.weighed) {
		t.weight, t.weighed = float64(max(1, w.Weight)), w.joined
	}
	return t
}

// forget drops teams that are owed nothing.
func (l *lane) forget() {
	for name, t := range l.teams {
		if len(t.flows) == 0 && t.finish <= l.virtual {
			delete(l.teams, name)
		}
	}
}

// pools of a request, each once, in order of preference.
func (q *Queue) poolsOf(w *waiter) []*pool {
	out := make([]*pool, 0, len(w.Targets))
next:
	for _, t := range w.Targets {
		p := q.pool(t.Upstream)
		for _, seen := range out {
			if seen == p {
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// insert gives a waiter its place in every pool it may be served by.
func (q *Queue) insert(w *waiter) {
	key := flowKey(w)
	for _, p := range q.poolsOf(w) {
		l := &p.class[w.Class]
		t := l.team(w)
		l.activate(t)
		f := t.byKey[key]
		if f == nil {
			f = &flow{key: key, team: t, lane: l, finish: t.virtual}
			if len(t.flows) == 0 {
				l.waiting = append(l.waiting, t)
			}
			t.flows = append(t.flows, f)
			t.byKey[key] = f
		}
		e := &entry{w: w, pool: p, flow: f}
		heap.Push(&f.entries, e)
		w.entries = append(w.entries, e)
		f.backlog, t.backlog = f.backlog.plus(w.Cost), t.backlog.plus(w.Cost)
		p.account(w, 1)
		l.count++
		l.seen = time.Now()
	}
}

// remove takes a waiter out of every pool.
func (q *Queue) remove(w *waiter) {
	for _, e := range w.entries {
		f, t := e.flow, e.flow.team
		heap.Remove(&f.entries, e.at)
		f.backlog, t.backlog = f.backlog.minus(w.Cost), t.backlog.minus(w.Cost)
		e.pool.account(w, -1)
		f.lane.count--
		if len(f.entries) > 0 {
			continue
		}
		t.flows = without(t.flows, f)
		delete(t.byKey, f.key)
		if len(t.flows) == 0 {
			f.lane.waiting = without(f.lane.waiting, t)
		}
	}
	w.entries = nil
}

func (p *pool) account(w *waiter, sign int64) {
	p.add(owner{team: w.Team}, sign, w.Bytes)
	if w.Key != "" {
		p.add(owner{w.Team, w.Key}, sign, w.Bytes)
	}
	p.count += sign
	p.bytes += sign * w.Bytes
}

func (p *pool) add(o owner, sign, bytes int64) {
	ld := p.load[o]
	ld.count += sign
	ld.bytes += sign * bytes
	if ld.count == 0 {
		delete(p.load, o)
	} else {
		p.load[o] = ld
	}
}

// full reports whether there is no place left for the request. One key may take
// nine tenths of its team's places, so that it cannot shut out the others.
func (p *pool) full(cfg *QueueConfig, w *waiter) bool {
	team, key := p.load[owner{team: w.Team}], p.load[owner{w.Team, w.Key}]
	if w.Key == "" {
		key = load{}
	}
	return p.count >= cfg.Total || p.bytes+w.Bytes > cfg.Size ||
		team.count >= cfg.PerTeam || team.bytes+w.Bytes > cfg.TeamSize ||
		key.count >= max(1, cfg.PerTeam*9/10) || key.bytes > cfg.TeamSize*9/10
}

// flowKey tells apart what needs different limits.
func flowKey(w *waiter) string {
	var b strings.Builder
	b.WriteString(w.Key)
	for _, t := range w.Targets {
		b.WriteByte(0)
		b.WriteString(t.Name)
	}
	return b.String()
}

func without[T comparable](s []T, x T) []T {
	for i := range s {
		if s[i] == x {
			return append(s[:i], s[i+1:]...)
		}
	}
	return s
}

// order sorts the waiting teams by start tag: the virtual time at which what they
// were served is paid for.
func (l *lane) order() []*team {
	slices.SortStableFunc(l.waiting, func(a, b *team) int { return cmp.Compare(a.finish, b.finish) })
	return l.waiting
}

// order sorts the team's flows in the same way.
func (t *team) order() []*flow {
	slices.SortStableFunc(t.flows, func(a, b *flow) int { return cmp.Compare(a.finish, b.finish) })
	return t.flows
}

// activate brings a team that was away up to the present: the past earns it
// nothing. What it is owed while it waits stays its own. The present is where the
// team stands that is next; the tags of requests that have started may lie far
// ahead of it, until it is known what they really used.
func (l *lane) activate(t *team) {
	if len(t.flows) > 0 {
		return
	}
	present := l.virtual
	for i, other := range l.waiting {
		if i == 0 || other.finish < present {
			present = other.finish
		}
	}
	t.finish = max(t.finish, present)
}

// price is what a request costs in fair queueing: its tokens, and at least
// something where none are known.
func price(c Cost) float64 { return float64(max(1, c.Tokens())) }

// served advances the virtual times for a request that was admitted.
func (p *pool) served(w *waiter) {
	l := &p.class[w.Class]
	t := l.team(w)
	l.activate(t)
	l.virtual = max(l.virtual, t.finish)
	t.finish += w.price / t.weight
	l.inFlight++
	l.seen = time.Now()
	for _, e := range w.entries {
		if e.pool == p {
			t.virtual = max(t.virtual, e.flow.finish)
			e.flow.finish += w.price
		}
	}
}

// corrected charges the team what the request used beyond its estimate, or
// credits what it did not use.
func (p *pool) corrected(w *waiter, actual Cost) {
	l := &p.class[w.Class]
	l.inFlight--
	if t := l.teams[w.Team]; t != nil {
		t.finish += (price(actual) - w.price) / t.weight
		t.owed += price(actual) - w.price
	}
}

// turn says who asks when the waiter is asked for.
func (p *pool) turn(w *waiter) (*team, Turn) {
	t := p.class[w.Class].team(w)
	waiting := len(t.flows) > 1 || len(t.flows) == 1 && len(t.flows[0].entries) > 1
	return t, Turn{Team: w.Team, Weight: int(t.weight), Class: w.Class, Price: w.price, Owed: t.owed, More: waiting, Left: time.Until(w.deadline)}
}

// headroom is the percentage of the upstream that the class must leave free,
// because a higher class is using it.
func (q *Queue) headroom(p *pool, c Class) int64 {
	for higher := range c {
		l := &p.class[higher]
		if l.count > 0 || l.inFlight > 0 || (!l.seen.IsZero() && time.Since(l.seen) < headroomFor) {
			return 100 - q.cfg.Ceiling[c]
		}
	}
	return 0
}
