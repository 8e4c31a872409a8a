//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A plan says how long and how much.
type plan struct {
	limit   time.Duration // of the whole run; a round that would not fit is left out
	rounds  int
	slice   time.Duration // one measurement under closed load
	window  time.Duration // of paced streams
	warm    time.Duration // before either
	rated   time.Duration // at a fixed rate
	workers int           // connections under closed load
	bursts  int           // streams at once in bursts
	streams int           // paced streams
	waiting int           // requests in flight
	idle    int           // idle streams
	rate    int           // requests a second
}

var (
	full = plan{
		limit: 280 * time.Second, rounds: 4, slice: 1500 * time.Millisecond, window: 2 * time.Second, warm: 200 * time.Millisecond, rated: 2500 * time.Millisecond,
		workers: 16, bursts: 8, streams: 500, waiting: 1000, idle: 2000, rate: 500,
	}
	short = plan{
		limit: 55 * time.Second, rounds: 2, slice: 500 * time.Millisecond, window: 700 * time.Millisecond, warm: 100 * time.Millisecond, rated: 700 * time.Millisecond,
		workers: 16, bursts: 8, streams: 500, waiting: 1000, idle: 2000, rate: 500,
	}
)

// A measurement is made on one system in one round.
type measurement struct {
	plan
	*results
	system   string
	target   *process // whose CPU time counts; the upstream itself for "direct"
	upstream string   // address
	redis    string   // address, or empty
}

// loads are what each system is put under, in order.
var loads = []struct {
	name  string
	fresh bool // needs processes that have done nothing yet
	run   func(*measurement, context.Context) error
}{
	{"small", false, func(m *measurement, ctx context.Context) error { return m.answers(ctx, "small", 300) }},
	{"large", false, func(m *measurement, ctx context.Context) error { return m.answers(ctx, "large", 32<<10) }},
	{"burst", false, (*measurement).burst},
	{"paced", false, (*measurement).paced},
	{"rate", false, (*measurement).rated},
	{"waiting", false, (*measurement).inFlight},
	{"idle", true, (*measurement).idling},
}

func loadNames() []string {
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = l.name
	}
	return names
}

// closed runs exchanges back to back, after a short warm-up, and returns what was
// done, and the CPU time that the target used.
func (m *measurement) closed(ctx context.Context, f fleet, exchange func(*conn) error) (t tally, cpu time.Duration, err error) {
	if t, err = f.repeat(ctx, m.warm, exchange); err != nil {
		return t, 0, err
	}
	m.broken(t)
	before, err := m.target.cpu()
	if err != nil {
		return t, 0, err
	}
	if t, err = f.repeat(ctx, m.slice, exchange); err != nil {
		return t, 0, err
	}
	after, err := m.target.cpu()
	m.broken(t)
	if t.n == 0 && err == nil {
		err = fmt.Errorf("no exchange was made within %s", m.slice)
	}
	return t, after - before, err
}

// answers measures CPU per request with bodies of a size.
func (m *measurement) answers(ctx context.Context, figure string, size int) error {
	f, err := connect(ctx, m.target.addr, kindAnswer, m.workers, size)
	if err != nil {
		return err
	}
	defer f.close()
	t, cpu, err := m.closed(ctx, f, (*conn).answer)
	if err != nil {
		return err
	}
	m.add(figure, m.system, float64(cpu.Microseconds())/float64(t.n))
	return nil
}

// burst measures CPU per chunk of streams at full speed.
func (m *measurement) burst(ctx context.Context) error {
	f, err := connect(ctx, m.target.addr, kindBurst, m.bursts, 300)
	if err != nil {
		return err
	}
	defer f.close()
	t, cpu, err := m.closed(ctx, f, (*conn).burst)
	if err != nil {
		return err
	}
	m.add("burst", m.system, float64(cpu.Nanoseconds())/1e3/float64(t.n*burstChunks))
	return nil
}

// paced measures CPU and delay per chunk of many slow streams.
func (m *measurement) paced(ctx context.Context) error {
	f, err := connect(ctx, m.target.addr, kindPaced, m.streams, 300)
	if err != nil {
		return err
	}
	defer f.close()
	delays, cpu, err := m.watchStreams(ctx, f)
	if err != nil {
		return err
	}
	if len(delays) == 0 {
		return fmt.Errorf("no chunk came within %s", m.window)
	}
	m.add("paced", m.system, float64(cpu.Nanoseconds())/1e3/float64(len(delays)))
	m.add("delay50", m.system, quantile(delays, 0.50))
	m.add("delay99", m.system, quantile(delays, 0.99))
	return m.released(ctx, f)
}

// settle is how long many streams get to be open before they are measured.
const settle = 500 * time.Millisecond

// watchStreams reads all streams until the window has passed, and returns the
// delays of the chunks within it, and the CPU time that the target used.
func (m *measurement) watchStreams(ctx context.Context, f fleet) (delays []time.Duration, cpu time.Duration, err error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	from := time.Now().Add(m.warm + settle)
	to := from.Add(m.window)
	var measured error
	var clock sync.WaitGroup
	clock.Go(func() {
		defer stop()
		pause(ctx, time.Until(from))
		before, err1 := m.target.cpu()
		pause(ctx, time.Until(to))
		after, err2 := m.target.cpu()
		cpu, measured = after-before, errors.Join(err1, err2)
	})
	var mu sync.Mutex
	t, err := f.each(func(c *conn, t *tally) error {
		for reading.Err() == nil {
			var own []time.Duration
			broke := c.delays(reading, func(d time.Duration) {
				if now := time.Now(); now.After(from) && now.Before(to) {
					own = append(own, d)
				}
			})
			mu.Lock()
			delays = append(delays, own...)
			mu.Unlock()
			if broke == nil {
				break
			}
			if err := t.broke(ctx, c, broke); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	stop()
	clock.Wait()
	m.broken(t)
	return delays, cpu, errors.Join(err, measured)
}

// rated measures the time of an exchange at a fixed rate.
func (m *measurement) rated(ctx context.Context) error {
	f, err := connect(ctx, m.target.addr, kindAnswer, 64, 300)
	if err != nil {
		return err
	}
	defer f.close()
	if m.target.shares {
		// A limit in Redis is withdrawn from in advance once it has been in use for a while.
		_, _, err = f.atRate(ctx, redisWarm, m.rate, (*conn).answer)
	} else {
		_, err = f.repeat(ctx, m.warm, (*conn).answer)
	}
	if err != nil {
		return err
	}
	calls, err := m.calls(ctx)
	if err != nil {
		return err
	}
	times, t, err := f.atRate(ctx, m.plan.rated, m.rate, (*conn).answer)
	if err != nil {
		return err
	}
	m.broken(t)
	m.add("p50", m.system, quantile(times, 0.50))
	m.add("p99", m.system, quantile(times, 0.99))
	return m.shared(ctx, calls, len(times))
}

// inFlight measures requests a second with many slow requests at once.
func (m *measurement) inFlight(ctx context.Context) error {
	f, err := connect(ctx, m.target.addr, kindSlow, m.waiting, 300)
	if err != nil {
		return err
	}
	defer f.close()
	t, _, err := m.closed(ctx, f, (*conn).answer)
	if err != nil {
		return err
	}
	m.add("waiting", m.system, float64(t.n)/t.took.Seconds())
	return nil
}

// idling measures memory: of a process that has just started, and of each stream
// that is open and silent, its connections included.
func (m *measurement) idling(ctx context.Context) error {
	start, err := m.target.rss()
	if err != nil {
		return err
	}
	m.add("start", m.system, float64(start)/(1<<20))
	f, err := connect(ctx, m.target.addr, kindIdle, m.idle, 300)
	if err != nil {
		return err
	}
	defer f.close()
	var t tally
	for _, c := range f {
		for {
			err := c.first()
			if err == nil {
				break
			}
			if err = t.broke(ctx, c, err); err != nil {
				return err
			}
		}
	}
	m.broken(t)
	after, err := m.target.rss()
	if err != nil {
		return err
	}
	m.add("idle", m.system, float64(after-start)/1024/float64(len(f)))
	return m.released(ctx, f)
}

// broken adds what was not whole to the count of the round.
func (m *measurement) broken(t tally) { m.count("broken", m.system, t.broken) }

// released hangs up on all streams and waits until the upstream has lost them all.
func (m *measurement) released(ctx context.Context, f fleet) error {
	began := time.Now()
	f.close()
	for {
		open, err := openStreams(ctx, m.upstream)
		if err != nil {
			return err
		}
		if open == 0 {
			break
		}
		if time.Since(began) > 5*time.Second {
			return fmt.Errorf("%d streams are still open at the upstream 5 s after their clients left", open)
		}
		pause(ctx, time.Millisecond)
	}
	if len(f) <= m.streams { // thousands at once measure the machine
		m.add("release", m.system, float64(time.Since(began).Microseconds())/1e3)
	}
	return nil
}

func openStreams(ctx context.Context, upstream string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+upstream+openPath, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the upstream for its open streams: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 20))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

// quantile is in milliseconds. It sorts its argument.
func quantile(d []time.Duration, q float64) float64 {
	slices.Sort(d)
	return float64(d[min(len(d)-1, int(q*float64(len(d))))].Nanoseconds()) / 1e6
}
