//go:build !race

package openai

import "time"

func limitForRace(d time.Duration) time.Duration { return d }
