// Package usage says what a request used and what that costs. It knows nothing of
// databases: rows are kept by usage/ledger.
package usage

import "time"

// Tokens are what an answer used. Input includes Cached and CacheWrite, Output
// includes Reasoning.
type Tokens struct {
	Input, Output, Cached, CacheWrite, Reasoning int64
}

// A Row is one finished request. It holds neither keys nor anything that a model
// wrote; Model is what the client asked for, cut to a bounded length.
type Row struct {
	ID    string    // unique: a row that is written twice counts once
	Began time.Time // when the request came; its day and budget window

	Team, Key       string
	Model           string
	Label           string // bounded name of the model, under which it is reported
	Upstream        string // empty when none was reached
	Operation       string
	Class           string
	Status          int
	Outcome         string
	Attempts        int
	Stream          bool
	Queue, Duration time.Duration
	TTFT            time.Duration // 0 when it was no stream
	Tokens          Tokens
	Source          string // "provider" or "estimated"; empty without tokens
	Nano            int64  // cost in billionths of a US dollar
	Unpriced        bool   // what was used has no known price, and Nano leaves it out
}
