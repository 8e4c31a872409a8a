package fleet

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"penstock/e2e/harness"
	"penstock/simulate"
)

// A witness stands before a simulated provider without limits, and notes what
// reaches it and how much of it is there at once. It is safe for concurrent use.
type witness struct {
	provider *simulate.Provider

	mu      sync.Mutex
	visits  []visit
	inside  map[string]int // by team
	peak    map[string]int
	through map[int]int // of them by the replica that was asked
}

// A visit is one attempt of a request at the upstream.
type visit struct {
	id     int // of the request
	at     time.Time
	inside time.Duration
}

// What identifies a request, its team and the replica that was asked, all the way to
// the upstream.
const (
	idHeader      = "X-Fleet-Id"
	teamHeader    = "X-Fleet-Team"
	replicaHeader = "X-Fleet-Replica"
)

func newWitness(c simulate.Config) *witness {
	return &witness{provider: simulate.New(c), inside: map[string]int{}, peak: map[string]int{}, through: map[int]int{}}
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	at := time.Now()
	id, err := strconv.Atoi(r.Header.Get(idHeader))
	if err != nil {
		http.Error(rw, "no id", http.StatusBadRequest)
		return
	}
	team := r.Header.Get(teamHeader)
	replica, _ := strconv.Atoi(r.Header.Get(replicaHeader)) // 0 where nobody looks at it
	w.mu.Lock()
	w.inside[team]++
	w.through[replica]++
	w.peak[team] = max(w.peak[team], w.inside[team])
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inside[team]--
		w.through[replica]--
		w.visits = append(w.visits, visit{id, at, time.Since(at)})
	}()
	w.provider.ServeHTTP(rw, r)
}

// within is how many requests there are now.
func (w *witness) within() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.inside {
		n += k
	}
	return n
}

// An admission is a visit with the times between which the fleet has let it
// through: some time before it arrived, which the client and the gateway tell.
type admission struct {
	from, to time.Time
	ask      ask
}

// callTime is how long before the gateway knows of it the shared store may have let
// a request through: one call, and the time until its answer is looked at.
const callTime = 100 * time.Millisecond

// admissions joins what the clients saw with what the witness saw.
func (w *witness) admissions(asked []answer) []admission {
	w.mu.Lock()
	defer w.mu.Unlock()
	byID := make(map[int]*answer, len(asked))
	for i := range asked {
		byID[asked[i].ask.id] = &asked[i]
	}
	out := make([]admission, 0, len(w.visits))
	for _, v := range w.visits {
		a := byID[v.id]
		if a == nil {
			continue // of a load that is not looked at
		}
		from := a.sent
		if a.ok() && a.attempts == 1 {
			// What the gateway calls upstream and overhead, without what the upstream
			// took, is all that lies between.
			between := a.upstream + a.overhead - v.inside + callTime
			if t := v.at.Add(-max(between, 0)); t.After(from) {
				from = t
			}
		}
		out = append(out, admission{from, v.at, a.ask})
	}
	return out
}

// of is how many requests there are now that came through a replica.
func (w *witness) of(replica int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.through[replica]
}

// most is the most of a team's requests that there have been at once.
func (w *witness) most(team string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak[team]
}

// A rule is a limit that holds for the fleet.
type rule struct {
	name   string
	rate   float64 // units a second
	burst  float64 // units
	of     func(ask) float64
	excess float64 // units that one window may have beyond it; the stated debt
}

// check fails the test if any span of time has let through more than the rule
// allows, and returns how much of what was allowed the worst span has used. Only
// what lies wholly within a span counts.
func (r rule) check(t *harness.Round, all []admission) {
	t.Helper()
	mine := make([]admission, 0, len(all))
	sum := 0.0
	for _, a := range all {
		if r.of(a.ask) > 0 {
			mine = append(mine, a)
			sum += r.of(a.ask)
		}
	}
	if len(mine) < 100 {
		t.Missed("%s: only %d admissions to judge by", r.name, len(mine))
	}
	if len(mine) == 0 {
		return
	}
	slices.SortFunc(mine, func(a, b admission) int { return a.to.Compare(b.to) })
	starts := slices.Clone(mine)
	slices.SortFunc(starts, func(a, b admission) int { return cmp.Compare(a.from.UnixNano(), b.from.UnixNano()) })
	worst, over, span := 0.0, 0.0, time.Duration(0)
	for _, s := range starts {
		n := 0.0
		for _, a := range mine {
			if a.from.Before(s.from) {
				continue
			}
			n += r.of(a.ask)
			took := a.to.Sub(s.from)
			if used := (n - r.rate*took.Seconds()) / r.burst; used > worst {
				worst, over, span = used, n-r.rate*took.Seconds()-r.burst, took
			}
		}
	}
	took := mine[len(mine)-1].to.Sub(mine[0].to)
	t.Logf("%s: %.0f in %v, %.2f of the rate; the worst span, of %v, used %.2f of the burst", r.name, sum, took.Round(time.Millisecond), sum/r.rate/took.Seconds(), span.Round(time.Millisecond), worst)
	if over > r.excess {
		t.Errorf("%s: %.0f more than %.0f and %.0f a second within %v", r.name, over, r.burst+r.excess, r.rate, span)
	}
}

// reset forgets what was seen.
func (w *witness) reset() {
	w.provider.Reset()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visits, w.peak = nil, map[string]int{}
}

// count is how many requests have been here.
func (w *witness) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.visits)
}
