package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/limits"
	"penstock/provider"
)

// explained returns the explanation of an answer's request, once it has ended.
func (w *world) explained(o outcome) *Explanation {
	w.t.Helper()
	synctest.Wait()
	e, ok := w.p.Explain(o.header.Get("X-Penstock-Request-Id"))
	if !ok {
		w.t.Fatalf("request %s (%d) is not remembered", o.header.Get("X-Penstock-Request-Id"), o.status)
	}
	return e
}

// header reads the explanation in an answer's header.
func (w *world) header(o outcome) *Explanation {
	w.t.Helper()
	var e Explanation
	if err := json.Unmarshal([]byte(o.header.Get("X-Penstock-Explain")), &e); err != nil {
		w.t.Fatalf("%v in %q", err, o.header.Get("X-Penstock-Explain"))
	}
	return &e
}

func text(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func line(uses []LimitUse) string {
	var all []string
	for _, u := range uses {
		all = append(all, fmt.Sprintf("%s %d/%s/%s", u.Limit, u.Reserved, text(u.Left), text(u.Settled)))
	}
	return strings.Join(all, ", ")
}

func planOf(e *Explanation) string {
	var all []string
	for _, c := range e.Plan {
		all = append(all, strings.TrimSuffix(c.Target+" "+c.State+" "+c.Detail, " "))
	}
	return strings.Join(all, ", ")
}

func TestExplainsWhatWasTakenAndUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		w.teamLimit(limits.Tokens, 1000, time.Hour)
		w.limit(limits.Requests, 50, time.Hour)
		o := w.chat(hello, "X-Penstock-Explain", "1")
		e := w.explained(o)
		reserved := e.Limits[0].Reserved
		if got, want := line(e.Limits), fmt.Sprintf("team/search/tokens %d/%d/13", reserved, 1000-reserved); got != want || reserved <= 100 {
			t.Errorf("the caller's limits: %s, want %s", got, want)
		}
		if got := line(e.Attempts[0].Limits); got != "upstream/a/requests 1/49/1" || len(e.Attempts) != 1 {
			t.Errorf("the upstream's limits: %s", got)
		}
		if e.Status != 200 || e.Outcome != "ok" || e.Team != "search" || e.Key != "prod" || e.Upstream != "a/m" || e.Queue.Seconds != 0 || len(e.Queue.For) != 0 || *e.Usage != (Usage{9, 4, 0, 0, "provider"}) {
			t.Errorf("%+v", e)
		}
		if planOf(e) != "a/m chosen" || e.Refusal != nil || e.Ended == nil {
			t.Errorf("plan %s, %+v", planOf(e), e)
		}
		// The header tells as much as is known before the answer's text.
		h := w.header(o)
		if got, want := line(h.Limits), fmt.Sprintf("team/search/tokens %d/%d/-", reserved, 1000-reserved); got != want || h.Usage != nil || h.Ended != nil || h.Upstream != "a/m" || h.ID != e.ID {
			t.Errorf("header: %s", o.header.Get("X-Penstock-Explain"))
		}
	})
}

func TestExplainsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		w.teamLimit(limits.Requests, 1, time.Hour)
		w.chat(hello)
		o := w.chat(hello, "X-Penstock-Explain", "1")
		for _, e := range []*Explanation{w.explained(o), w.header(o)} {
			if e.Refusal == nil || e.Refusal.Reason != limits.ReasonLimit || e.Refusal.Limit != "team/search/requests" || e.Refusal.RetryAfter < 3599 || e.Refusal.Requested != 1 {
				t.Errorf("refusal %+v", e.Refusal)
			}
			if len(e.Limits) != 1 || !e.Limits[0].Refused || text(e.Limits[0].Left) != "0" || planOf(e) != "a/m not_reached" {
				t.Errorf("limits %+v, plan %s", e.Limits, planOf(e))
			}
		}
		// A request without a key has no team, and is explained all the same.
		r := w.request("POST", "/v1/chat/completions", hello)
		r.Header.Del("Authorization")
		if e := w.explained(w.do(r)); e.Status != 401 || e.Reason != "invalid_api_key" || e.Team != "" {
			t.Errorf("%+v", e)
		}
	})
}

func TestExplainsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			sends(200, answerJSON)(rw, r)
		}
		w := newWorld(t, slow, nil)
		slots := &limits.Limit{ID: "upstream/a/concurrency", Scope: limits.ScopeUpstream, Owner: "a", Dimension: limits.Concurrency, Amount: 1, Wait: true}
		w.s.Upstreams["a"].Limits = []*limits.Limit{slots}
		w.p.Swap(w.s)
		first := make(chan outcome)
		go func() { first <- w.chat(hello) }()
		synctest.Wait()
		e := w.explained(w.chat(hello))
		<-first
		want := Wait{Target: "a/m", Limit: "upstream/a/concurrency"}
		if e.Queue.Seconds < 2.9 || e.Queue.Seconds > 3.1 || len(e.Queue.For) != 1 || e.Queue.For[0] != want || e.Attempts[0].Queue < 2.9 {
			t.Errorf("queue %+v, attempts %+v", e.Queue, e.Attempts)
		}
		if got := line(e.Attempts[0].Limits); got != "upstream/a/concurrency 1/0/-" {
			t.Errorf("limits %s", got)
		}
	})
}

func TestExplainsTheChoice(t *testing.T) {
	both := strings.Replace(hello, `"m"`, `"both"`, 1)
	full := func(w *world) {
		w.limit(limits.Requests, 1, time.Hour)
		w.chat(hello)
	}
	for _, test := range []struct {
		name   string
		first  http.HandlerFunc
		before func(w *world)
		plan   string
		tries  string
	}{
		{"not needed", sends(200, answerJSON), nil, "a/m chosen, b/m not_needed", "a/m ok"},
		{"failed", sends(500, `{}`), nil, "a/m failed status_500, b/m chosen", "a/m status_500 b/m ok"},
		{"breaker open", sends(500, `{}`), func(w *world) {
			for range 5 {
				w.chat(both)
			}
		}, "a/m breaker_open, b/m chosen", "b/m ok"},
		{"parked", sends(401, `{}`), func(w *world) { w.chat(both) }, "a/m parked_credential, b/m chosen", "b/m ok"},
		{"full", sends(200, answerJSON), full, "a/m full upstream/a/requests, b/m chosen", "b/m ok"},
		{"paused", sends(200, answerJSON), func(w *world) {
			w.p.target(w.s, &provider.Target{State: "a/m", Upstream: "a"}).Pause(time.Now().Add(time.Minute))
		}, "a/m paused, b/m chosen", "b/m ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, test.first, sends(200, answerJSON))
				if test.before != nil {
					test.before(w)
				}
				o := w.chat(both, "X-Penstock-Explain", "1")
				for _, e := range []*Explanation{w.explained(o), w.header(o)} {
					var tries []string
					for _, a := range e.Attempts {
						tries = append(tries, a.Target+" "+a.Result)
					}
					if planOf(e) != test.plan || strings.Join(tries, " ") != test.tries {
						t.Errorf("plan %s, attempts %s; want %s, %s", planOf(e), tries, test.plan, test.tries)
					}
				}
			})
		})
	}
}

// What is remembered is bounded, and the many requests that went well do not wash
// away the few others.
func TestRemembersTheLastRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		bad := w.chat(`{"model":"nothing","messages":[]}`)
		var all []outcome
		for range 25 {
			all = append(all, w.chat(hello))
		}
		if e := w.explained(bad); e.Status != 404 || e.Reason != "model_not_found" {
			t.Errorf("%+v", e)
		}
		for i, o := range all {
			if _, ok := w.p.Explain(o.header.Get("X-Penstock-Request-Id")); ok != (i >= 15) {
				t.Errorf("request %d of 25: remembered %v", i, ok)
			}
		}
		for _, most := range []int{3, 5, 0} { // fewer, more, none
			w.s.Settings.ExplainRequests = most
			w.p.Swap(w.s)
			for range 12 {
				all = append(all, w.chat(hello))
			}
			synctest.Wait()
			n := 0
			for _, o := range all[len(all)-12:] {
				if _, ok := w.p.Explain(o.header.Get("X-Penstock-Request-Id")); ok {
					n++
				}
			}
			if n != most {
				t.Errorf("%d of 12 remembered, want %d", n, most)
			}
		}
	})
}

// covers SEC-03: an explanation holds neither prompt nor key, and a client gets one
// only where it is configured and asked for.
func TestExplanationsHoldNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		o := w.chat(hello, "X-Penstock-Explain", "1")
		b, err := json.Marshal(w.explained(o))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{clientKey, upstreamKey, "hello there", "Bearer"} {
			if strings.Contains(string(b), secret) || strings.Contains(o.header.Get("X-Penstock-Explain"), secret) {
				t.Errorf("%q is in %s", secret, b)
			}
		}
		if o := w.chat(hello); o.header.Get("X-Penstock-Explain") != "" {
			t.Error("explained without being asked")
		}
		w.s.Settings.ExplainHeader = false
		w.p.Swap(w.s)
		if o := w.chat(hello, "X-Penstock-Explain", "1"); o.header.Get("X-Penstock-Explain") != explainOff {
			t.Errorf("explained although it is not configured: %s", o.header.Get("X-Penstock-Explain"))
		}
	})
}

func TestExplainHeaderFitsAHeader(t *testing.T) {
	if got, want := headerJSON("gpt-☃😀\n"), `"gpt-\u2603\ud83d\ude00\n"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON), nil)
		for i := range 60 {
			l := w.teamLimit(limits.Requests, 100, time.Hour)
			l.ID = fmt.Sprint("team/search/", strings.Repeat("x", 40), i)
		}
		o := w.chat(hello, "X-Penstock-Explain", "1")
		if n := len(o.header.Get("X-Penstock-Explain")); n == 0 || n > maxExplainHeader {
			t.Errorf("%d bytes", n)
		}
		if e := w.header(o); !e.Clipped || e.Limits != nil || planOf(e) != "a/m chosen" {
			t.Errorf("%+v", e)
		}
	})
}

// GET /admin/limits shows configured, learned and adaptive limits, and the state of
// every target.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sends(200, answerJSON, "X-Ratelimit-Limit-Tokens", "5000", "X-Ratelimit-Remaining-Tokens", "4000", "X-Ratelimit-Reset-Tokens", "12s"), nil)
		w.teamLimit(limits.Tokens, 1000, time.Hour)
		w.s.Teams["search"].Keys = map[string][]*limits.Limit{"prod": {{ID: "key/search/prod/requests", Scope: limits.ScopeKey, Owner: "prod", Dimension: limits.Requests, Amount: 9, Window: time.Hour, Burst: 9}}}
		w.s.Gateway = []*limits.Limit{{ID: "gateway/concurrency", Scope: limits.ScopeGateway, Owner: "gateway", Dimension: limits.Concurrency, Amount: 7, Wait: true}}
		w.limit(limits.Requests, 50, time.Hour)
		w.chat(hello)
		w.p.parking.park("a")
		if w.metric("upstream_credential_parked", "upstream", "a", "model", "m") != 1 {
			t.Error("the parked credential is in no metric")
		}
		w.p.target(w.s, &provider.Target{State: "a/m", Upstream: "a"}).Pause(time.Now().Add(time.Minute))
		show := func(f LiveFilter) (string, *Live) {
			t.Helper()
			live, err := w.p.Live(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, l := range live.Limits {
				all = append(all, fmt.Sprintf("%s %d/%d %s %s", l.ID, l.Remaining, l.Capacity, l.Source, l.OnLimit))
			}
			return strings.Join(all, "\n"), live
		}
		got, live := show(LiveFilter{})
		want := `gateway/concurrency 7/7 configured wait
key/search/prod/requests 8/9 configured refuse
target/a/m/learned/tokens 4000/5000 learned wait
team/search/tokens 987/1000 configured refuse
upstream/a/requests 49/50 configured wait`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if len(live.Targets) != 1 || live.Targets[0] != (LiveTarget{Target: "a/m", Upstream: "a", Scale: 1, Paused: 60, Breaker: "closed", Parked: true}) {
			t.Errorf("targets %+v", live.Targets)
		}
		if _, err := w.p.Live(t.Context(), LiveFilter{Team: "nobody"}); !errors.Is(err, ErrUnknownTeam) {
			t.Errorf("of no team: %v", err)
		}
		if _, err := w.p.Live(t.Context(), LiveFilter{Upstream: "nobody"}); !errors.Is(err, ErrUnknownUpstream) {
			t.Errorf("of no upstream: %v", err)
		}
		if got, _ := show(LiveFilter{Team: "search"}); strings.Count(got, "\n") != 1 || !strings.Contains(got, "team/search") {
			t.Errorf("of the team:\n%s", got)
		}
		if got, live := show(LiveFilter{Upstream: "a"}); strings.Count(got, "\n") != 1 || strings.Contains(got, "team/") || len(live.Queues) != 3 {
			t.Errorf("of the upstream:\n%s", got)
		}
	})
}

func BenchmarkRemember(b *testing.B) {
	store := limits.NewMemory()
	team := []*limits.Limit{
		{ID: "team/t/requests", Dimension: limits.Requests, Amount: 1e9, Window: time.Second, Burst: 1e9},
		{ID: "team/t/tokens", Dimension: limits.Tokens, Amount: 1e12, Window: time.Second, Burst: 1e12},
	}
	lease, err := limits.Reserve(b.Context(), store, team, limits.Cost{Requests: 1, Input: 100, Output: 100})
	if err != nil {
		b.Fatal(err)
	}
	lease.Release()
	target := &provider.Target{State: "a/m"}
	x := &exchange{rec: record{ID: "req_0", Outcome: "ok", Attempts: 1}}
	x.notes.plan, x.notes.lease = []*provider.Target{target}, lease
	x.notes.try(target, &limits.Grant{Lease: lease})
	x.notes.tell(nil)
	var r recent
	b.ReportAllocs()
	for b.Loop() {
		r.keep(x, time.Second, 1000)
	}
}
