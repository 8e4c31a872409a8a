package telemetry

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// covers RES-01: a label that takes more values than it should costs no more than a
// bound, and nothing that is counted is lost.
func TestSeriesAreBounded(t *testing.T) {
	const requests = 20_000
	request := func() *Request {
		return &Request{
			Upstream: "up", Model: "m", Team: "search", Class: "default", Outcome: "ok", Duration: 3 * time.Second, TTFT: time.Second, Stream: true, End: "ok",
			Input: 2, Output: 3, Cached: 1, CacheWrite: 1, Reasoning: 1, Source: "estimated", Estimated: 6, USD: 0.5, Unpriced: true,
		}
	}
	for _, c := range []struct {
		name string
		vary func(r *Request, name string)
		most int // samples
	}{
		{"nothing", func(*Request, string) {}, 150},
		{"models", func(r *Request, name string) { r.Model = name }, 40_000},
		{"models of requests that reach no upstream", func(r *Request, name string) { r.Model, r.Upstream = name, "" }, maxSeries + 200},
		{"teams", func(r *Request, name string) { r.Team = name }, 10*maxTeams + 200},
		{"models and teams", func(r *Request, name string) { r.Model, r.Team = name, name }, 40_000},
		{"upstreams", func(r *Request, name string) { r.Upstream = name }, 40_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			m := New(reg)
			for i := range requests {
				r := request()
				c.vary(r, fmt.Sprint("made-up-", i))
				m.Finished(r)
				m.Refused("team", "requests", "rate", r.Team)
				m.ShadowRefused("team", "requests", r.Team)
			}
			samples, sums := gather(t, reg)
			if samples > c.most {
				t.Errorf("%d samples, want at most %d", samples, c.most)
			}
			t.Logf("%d samples", samples)
			want := map[string]float64{"requests_total": requests, "limit_refusals_total": requests, "limit_shadow_refusals_total": requests}
			if r := request(); c.name != "models of requests that reach no upstream" {
				for name, each := range map[string]float64{
					"request_seconds": 1, "ttft_seconds": 1, "output_token_seconds": 1, "streams_total": 1, "estimated_requests_total": 1,
					"unpriced_requests_total": 1, "cost_usd_total": r.USD, "settle_delta_tokens_total": 1, "tokens_total": 2 + 3 + 1 + 1 + 1,
				} {
					want[name] = each * requests
				}
			}
			for name, n := range want {
				if sums["penstock_"+name] != n {
					t.Errorf("%s adds up to %v, want %v", name, sums["penstock_"+name], n)
				}
			}
		})
	}
}

// gather counts the samples as they are scraped, and adds up each metric's counts.
func gather(t *testing.T, reg *prometheus.Registry) (samples int, sums map[string]float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums = make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			samples++
			if h := m.GetHistogram(); h != nil {
				samples += len(h.GetBucket()) + 2
			}
			sums[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return samples, sums
}
