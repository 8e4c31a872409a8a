//go:build race

package openai

import "time"

// limitForRace allows for the race detector, which slows scanning down tenfold.
func limitForRace(d time.Duration) time.Duration { return 15 * d }
