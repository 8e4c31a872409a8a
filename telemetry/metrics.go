// Package telemetry holds the metrics of Penstock, in base units and with bounded
// labels: configured names of upstreams, models and teams, and closed sets. Keys,
// users and names that only clients mention never become labels.
package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// buckets of durations reach from overhead to the longest answers, in seconds.
var buckets = []float64{0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// tokenBuckets are for the time of one output token, in seconds.
var tokenBuckets = []float64{0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5}

// storeBuckets are for calls to the shared store, in seconds.
var storeBuckets = []float64{0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1}

// A Request is what is counted of one finished request.
type Request struct {
	Upstream, Model, Team, Class, Outcome string

	Duration, Queue, TTFT, Upstreamed, Overhead time.Duration // 0 where it does not apply

	Session                       bool // a WebSocket, which lasts as long as its client likes
	Stream                        bool
	End                           string // how a stream ended; empty when it was none
	Input, Output                 int64
	Cached, CacheWrite, Reasoning int64
	Source                        string  // "provider" or "estimated"; empty without tokens
	Estimated                     int64   // tokens that had been reserved
	USD                           float64 // cost
	Unpriced                      bool    // no price was known for what was used
}

// Metrics are the collectors. They are safe for concurrent use.
type Metrics struct {
	requests  *prometheus.CounterVec
	request   *prometheus.HistogramVec
	queue     *prometheus.HistogramVec
	ttft      *prometheus.HistogramVec
	upstream  *prometheus.HistogramVec
	overhead  prometheus.Histogram
	perToken  *prometheus.HistogramVec
	tokens    *prometheus.CounterVec
	estimated *prometheus.CounterVec
	delta     *prometheus.CounterVec
	streams   *prometheus.CounterVec
	cost      *prometheus.CounterVec
	unpriced  *prometheus.CounterVec

	ledgerRows, ledgerDropped, ledgerErrors prometheus.Counter

	decisions   *prometheus.CounterVec
	attempts    *prometheus.CounterVec
	transitions *prometheus.CounterVec
	credential  *prometheus.CounterVec
	panics      prometheus.Counter
	reloads     *prometheus.CounterVec
	reloaded    prometheus.Gauge
	shadow      *prometheus.CounterVec
	store       *prometheus.HistogramVec

	series  sync.Map // labels → *series
	nSeries atomic.Int64

	models, upstreams, teams names // models by upstream

	tried    sync.Map // attempt → prometheus.Counter
	inFlight prometheus.Gauge
}

// New registers the collectors.
func New(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, b []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "penstock_" + name, Help: help, Buckets: b,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		requests:    counter("requests_total", "Finished requests.", "upstream", "model", "team", "class", "outcome"),
		request:     histogram("request_seconds", "Time from the arrival of a request to the end of its answer.", buckets, "upstream", "model"),
		queue:       histogram("queue_seconds", "Time that a request waited in the queue.", buckets, "class"),
		ttft:        histogram("ttft_seconds", "Time from the arrival of a streamed request to its first token.", buckets, "upstream", "model"),
		upstream:    histogram("upstream_seconds", "Time from sending a request to the end of the upstream's answer.", buckets, "upstream", "model"),
		perToken:    histogram("output_token_seconds", "Time per output token after the first.", tokenBuckets, "upstream", "model"),
		tokens:      counter("tokens_total", "Tokens used, by kind: input, output, and of these cached, cache_write, reasoning.", "upstream", "model", "team", "kind"),
		estimated:   counter("estimated_requests_total", "Requests whose tokens were counted here because the provider did not report them.", "upstream", "model"),
		delta:       counter("settle_delta_tokens_total", "Tokens by which what was used differed from what was reserved.", "upstream", "direction"),
		streams:     counter("streams_total", "Finished streams by how they ended.", "upstream", "end"),
		cost:        counter("cost_usd_total", "Cost of requests in US dollars, by the prices in force.", "upstream", "model", "team"),
		unpriced:    counter("unpriced_requests_total", "Requests whose cost is not known because no price is.", "upstream", "model"),
		decisions:   counter("limit_refusals_total", "Requests that a limit or the queue refused.", "scope", "dimension", "reason", "team"),
		shadow:      counter("limit_shadow_refusals_total", "Requests that a limit in shadow mode would have refused.", "scope", "dimension", "team"),
		attempts:    counter("attempts_total", "Attempts at upstreams by result: ok, or the class and code of the failure.", "upstream", "result", "code"),
		transitions: counter("breaker_transitions_total", "Changes of state of circuit breakers.", "upstream", "to"),
		credential:  counter("upstream_credential_failures_total", "Answers 401 or 403 to a key of ours.", "upstream"),
		store:       histogram("store_call_seconds", "Time of calls to the shared store by result: ok, or the kind of the failure.", storeBuckets, "result"),
		reloads:     counter("config_reloads_total", "Reloads of the configuration.", "result"),
	}
	m.overhead = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "penstock_overhead_seconds", Help: "Time that the gateway itself added before the answer.", Buckets: buckets[:8],
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	})
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_panics_total", Help: "Panics caught while serving a request."})
	m.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_config_last_reload_success", Help: "1 if the last reload of the configuration succeeded."})
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_requests_in_flight", Help: "Requests that are being served, waiting ones included."})
	single := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_" + name, Help: help})
	}
	m.ledgerRows = single("ledger_rows_total", "Rows written to the usage ledger.")
	m.ledgerDropped = single("ledger_dropped_rows_total", "Rows that the usage ledger lost, because the database could not be written for too long.")
	m.ledgerErrors = single("ledger_errors_total", "Failed attempts to write to the usage ledger; they are repeated.")
	reg.MustRegister(m.overhead, m.panics, m.reloaded, m.inFlight, m.ledgerRows, m.ledgerDropped, m.ledgerErrors)
	m.reloaded.Set(1)
	return m
}

// Begin counts a request as in flight, until End.
func (m *Metrics) Begin() { m.inFlight.Inc() }

// End is the end of a request in flight.
func (m *Metrics) End() { m.inFlight.Dec() }

// Finished counts a request.
func (m *Metrics) Finished(r *Request) {
	s := m.children(labels{r.Upstream, r.Model, r.Team, r.Class, r.Outcome})
	s.requests.Inc()
	s.queue.Observe(r.Queue.Seconds())
	if s.request == nil {
		return
	}
	if !r.Session {
		s.request.Observe(r.Duration.Seconds())
		s.upstream.Observe(r.Upstreamed.Seconds())
	}
	m.overhead.Observe(r.Overhead.Seconds())
	if r.Stream {
		m.streams.WithLabelValues(s.labels.upstream, r.End).Inc()
		if r.TTFT > 0 {
			s.ttft.Observe(r.TTFT.Seconds())
		}
		if r.Output > 1 && r.TTFT > 0 && r.Duration > r.TTFT {
			s.token.Observe((r.Duration - r.TTFT).Seconds() / float64(r.Output-1))
		}
	}
	m.count(r, s)
}

func (m *Metrics) count(r *Request, s *series) {
	l := &s.labels
	if r.USD > 0 {
		m.cost.WithLabelValues(l.upstream, l.model, l.team).Add(r.USD)
	}
	if r.Unpriced {
		m.unpriced.WithLabelValues(l.upstream, l.model).Inc()
	}
	if r.Source == "" {
		return
	}
	s.input.Add(float64(r.Input))
	s.output.Add(float64(r.Output))
	for _, k := range [...]struct {
		kind string
		n    int64
	}{{"cached", r.Cached}, {"cache_write", r.CacheWrite}, {"reasoning", r.Reasoning}} {
		if k.n > 0 {
			m.tokens.WithLabelValues(l.upstream, l.model, l.team, k.kind).Add(float64(k.n))
		}
	}
	if r.Source == "estimated" {
		m.estimated.WithLabelValues(l.upstream, l.model).Inc()
	}
	switch d := r.Input + r.Output - r.Estimated; {
	case d > 0:
		s.over.Add(float64(d))
	case d < 0:
		s.under.Add(float64(-d))
	}
}

// Refused counts a refusal by a limit or by the queue.
func (m *Metrics) Refused(scope, dimension, reason, team string) {
	m.decisions.WithLabelValues(scope, dimension, reason, m.team(team)).Inc()
}

// ShadowRefused counts what a limit in shadow mode would have refused.
func (m *Metrics) ShadowRefused(scope, dimension, team string) {
	m.shadow.WithLabelValues(scope, dimension, m.team(team)).Inc()
}

type attempt struct{ upstream, result, code string }

// attempt is the counter of attempts of one kind. Upstreams are configured, results
// and codes are closed sets.
func (m *Metrics) attempt(a attempt) prometheus.Counter {
	if c, ok := m.tried.Load(a); ok {
		return c.(prometheus.Counter)
	}
	c := m.attempts.WithLabelValues(a.upstream, a.result, a.code)
	m.tried.Store(a, c)
	return c
}

// Attempt counts an attempt by its result.
func (m *Metrics) Attempt(upstream, result, code string) {
	m.attempt(attempt{upstream, result, code}).Inc()
	if result == "credential" {
		m.credential.WithLabelValues(upstream).Inc()
	}
}

// BreakerChanged counts a transition.
func (m *Metrics) BreakerChanged(upstream, to string) {
	m.transitions.WithLabelValues(upstream, to).Inc()
}

// LedgerWrote counts rows of the usage ledger that are in the database.
func (m *Metrics) LedgerWrote(rows int) { m.ledgerRows.Add(float64(rows)) }

// LedgerDropped counts rows that are lost.
func (m *Metrics) LedgerDropped(rows int) { m.ledgerDropped.Add(float64(rows)) }

// LedgerFailed counts an attempt to write that failed.
func (m *Metrics) LedgerFailed() { m.ledgerErrors.Inc() }

// StoreCalled counts a call to the shared store by the kind of its failure, "" for
// none.
func (m *Metrics) StoreCalled(took time.Duration, failure string) {
	if failure == "" {
		failure = "ok"
	}
	m.store.WithLabelValues(failure).Observe(took.Seconds())
}

// Panicked counts a panic.
func (m *Metrics) Panicked() { m.panics.Inc() }

// Reloaded counts a reload of the configuration.
func (m *Metrics) Reloaded(err error) {
	if err != nil {
		m.reloads.WithLabelValues("error").Inc()
		m.reloaded.Set(0)
		return
	}
	m.reloads.WithLabelValues("ok").Inc()
	m.reloaded.Set(1)
}

// A Gauge is one value read when metrics are scraped.
type Gauge struct {
	Name, Help string
	Labels     []string
	Values     []string
	Value      float64
}

// A Reader collects gauges from the parts that know them, when scraped, so that
// those parts need not know of metrics. It must always give the same labels for a
// name.
type Reader func() []Gauge

// Describe implements prometheus.Collector; the collector is unchecked.
func (r Reader) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (r Reader) Collect(ch chan<- prometheus.Metric) {
	for _, g := range r() {
		desc := prometheus.NewDesc("penstock_"+g.Name, g.Help, g.Labels, nil)
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, g.Value, g.Values...)
	}
}
