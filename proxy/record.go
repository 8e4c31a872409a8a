package proxy

import (
	"context"
	"log/slog"
	"time"

	"penstock/limits"
	"penstock/provider"
	"penstock/telemetry"
)

// A record is what is known of a request when it has ended. It holds neither keys
// nor anything that a client or model wrote.
type record struct {
	ID, UpstreamID          string
	Team, Key, Class        string
	Operation, Method       string
	Model, Upstream         string
	Stream                  bool
	Status, Attempts        int
	Outcome, Error          string
	Failures, Shadow        []string
	Queue, TTFT, Upstreamed time.Duration
	Overhead                time.Duration
	Usage                   provider.Usage
	Source                  string
	Reserved                limits.Cost
	Nano                    int64 // cost in billionths of a US dollar
	Unpriced                bool  // no price was known for what was used

	target *provider.Target                  // of the last attempt
	sent   time.Time                         // when the attempt that succeeded was sent
	cut    func(code, message string) []byte // how the answer's stream tells of a failure
}

// record turns the record into metrics and one log line.
func (x *exchange) record() {
	r := &x.rec
	if r.Outcome == "" {
		r.Outcome = "internal"
	}
	if r.Outcome == "client_closed" {
		r.Status = 499
	}
	model := r.Model
	if model == "" {
		model = "other"
	}
	took := time.Since(x.begin)
	end, ttft := "", time.Duration(0)
	if r.cut != nil {
		end, ttft = r.Outcome, r.TTFT
	}
	x.p.metrics.Finished(&telemetry.Request{
		Upstream: r.Upstream, Model: model, Team: r.Team, Class: r.Class, Outcome: r.Outcome,
		Duration: took, Queue: r.Queue, TTFT: ttft, Upstreamed: r.Upstreamed, Overhead: r.Overhead,
		Stream: r.cut != nil, Session: x.call != nil && x.call.Upgrade, End: end, Input: r.Usage.Input, Output: r.Usage.Output,
		Cached: r.Usage.Cached, CacheWrite: r.Usage.CacheWrite, Reasoning: r.Usage.Reasoning,
		Source: r.Source, Estimated: r.Reserved.Input + r.Reserved.Output, USD: float64(r.Nano) / 1e9, Unpriced: r.Unpriced,
	})
	if x.p.ledger != nil && r.Team != "" {
		x.p.ledger.Record(x.row(took, ttft, model))
	}
	x.p.recent.keep(x, took, x.s.Settings.ExplainRequests)
	if x.s.Settings.AccessLog {
		x.log(took, model)
	}
}

func (x *exchange) log(took time.Duration, model string) {
	r := &x.rec
	attrs := make([]slog.Attr, 0, 24)
	attrs = append(attrs,
		slog.String("request_id", r.ID), slog.String("operation", r.Operation), slog.String("team", r.Team), slog.String("key", r.Key),
		slog.String("model", model), slog.String("upstream", r.Upstream), slog.Int("status", r.Status), slog.String("outcome", r.Outcome),
		slog.Int("attempts", r.Attempts), slog.Bool("stream", r.Stream), slog.Float64("seconds", took.Seconds()),
		slog.Float64("queue_seconds", r.Queue.Seconds()), slog.Float64("ttft_seconds", r.TTFT.Seconds()),
		slog.Int64("input_tokens", r.Usage.Input), slog.Int64("output_tokens", r.Usage.Output),
		slog.Int64("cached_tokens", r.Usage.Cached), slog.Int64("reasoning_tokens", r.Usage.Reasoning), slog.String("usage_source", r.Source),
		slog.Float64("cost_usd", float64(r.Nano)/1e9),
	)
	if r.Error != "" {
		attrs = append(attrs, slog.String("reason", r.Error))
	}
	if len(r.Failures) > 0 {
		attrs = append(attrs, slog.Any("failures", r.Failures))
	}
	if len(r.Shadow) > 0 {
		attrs = append(attrs, slog.Any("shadow_refusals", r.Shadow))
	}
	if r.UpstreamID != "" {
		attrs = append(attrs, slog.String("upstream_request_id", clip(r.UpstreamID, 128)))
	}
	x.p.log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
