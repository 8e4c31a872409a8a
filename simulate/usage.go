package simulate

import "strconv"

// usage is what an answer reports. input includes cached, output includes hidden.
type usage struct{ input, cached, output, hidden int }

// usage of a call whose choices all have the length of o.
func (c *call) usage(o *output, choices int) usage {
	cached := c.set.cachedTokens
	if c.faults.Cached != nil {
		cached = *c.faults.Cached
	}
	return usage{
		input:  c.input,
		cached: min(cached, c.input),
		output: o.total() * choices,
		hidden: o.hidden * choices,
	}
}

// appendChat appends u as chat completions and completions write it.
func (u usage) appendChat(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"prompt_tokens":`...), int64(u.input), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(u.output), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(u.input+u.output), 10)
	b = strconv.AppendInt(append(b, `,"prompt_tokens_details":{"cached_tokens":`...), int64(u.cached), 10)
	b = strconv.AppendInt(append(b, `,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":`...), int64(u.hidden), 10)
	return append(b, `,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`...)
}

// responses is u as the Responses API writes it.
func (u usage) responses() map[string]any {
	return map[string]any{
		"input_tokens":          u.input,
		"input_tokens_details":  map[string]int{"cached_tokens": u.cached},
		"output_tokens":         u.output,
		"output_tokens_details": map[string]int{"reasoning_tokens": u.hidden},
		"total_tokens":          u.input + u.output,
	}
}
