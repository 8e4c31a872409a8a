package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels come from the configuration, which is finite. The bounds here hold whatever
// it says, and whatever mistake lets other names in: what is beyond them is counted
// under "other".
const (
	other = "other"
	// maxModels bounds the models of all upstreams, each of which has histograms.
	maxModels = 300
	// maxUpstreams bounds the upstreams that have models beyond that.
	maxUpstreams = 100
	// maxTeams bounds the teams.
	maxTeams = 500
	// maxSeries bounds the combinations of all labels of a request.
	maxSeries = 2000
)

type labels struct{ upstream, model, team, class, outcome string }

// series are the children of one combination of labels, looked up once.
type series struct {
	labels                         // those that it is counted under
	requests                       prometheus.Counter
	request, ttft, upstream, token prometheus.Observer
	queue                          prometheus.Observer
	input, output, over, under     prometheus.Counter
}

// names are the first so many names that were mentioned. They are safe for concurrent
// use; a few more may be kept when many come at once.
type names struct {
	known sync.Map
	n     atomic.Int64
}

// keep reports whether the name is one of them, or may become one.
func (s *names) keep(name any, most int64) bool {
	if _, ok := s.known.Load(name); ok {
		return true
	}
	if s.n.Load() >= most {
		return false
	}
	if _, ok := s.known.LoadOrStore(name, nil); !ok {
		s.n.Add(1)
	}
	return true
}

// children are those that a request of these labels is counted by.
func (m *Metrics) children(l labels) *series {
	if s, ok := m.series.Load(l); ok {
		return s.(*series)
	}
	if l.upstream != "" && !m.models.keep([2]string{l.upstream, l.model}, maxModels) {
		l.model = other
		if !m.upstreams.keep(l.upstream, maxUpstreams) {
			l.upstream = other
		}
	}
	l.team = m.team(l.team)
	s, ok := m.series.Load(l)
	if !ok && m.nSeries.Load() >= maxSeries {
		l.upstream, l.model, l.team = other, other, other
		s, ok = m.series.Load(l)
	}
	if ok {
		return s.(*series)
	}
	s, ok = m.series.LoadOrStore(l, m.newSeries(l))
	if !ok {
		m.nSeries.Add(1)
	}
	return s.(*series)
}

// team is the label of a team.
func (m *Metrics) team(name string) string {
	if m.teams.keep(name, maxTeams) {
		return name
	}
	return other
}

func (m *Metrics) newSeries(l labels) *series {
	s := &series{
		labels:   l,
		requests: m.requests.WithLabelValues(l.upstream, l.model, l.team, l.class, l.outcome),
		queue:    m.queue.WithLabelValues(l.class),
	}
	if l.upstream == "" {
		return s
	}
	s.request = m.request.WithLabelValues(l.upstream, l.model)
	s.ttft = m.ttft.WithLabelValues(l.upstream, l.model)
	s.upstream = m.upstream.WithLabelValues(l.upstream, l.model)
	s.token = m.perToken.WithLabelValues(l.upstream, l.model)
	s.input = m.tokens.WithLabelValues(l.upstream, l.model, l.team, "input")
	s.output = m.tokens.WithLabelValues(l.upstream, l.model, l.team, "output")
	s.over = m.delta.WithLabelValues(l.upstream, "over")
	s.under = m.delta.WithLabelValues(l.upstream, "under")
	return s
}
