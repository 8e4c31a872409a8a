package openai

import (
	"bytes"
	"strconv"

	"penstock/provider"
)

// usageKey is looked for before anything is parsed: few events carry it.
var usageKey = []byte(`"usage"`)

// usageObject is JSON from the value of the first "usage" on that is an object. Names
// and values inside strings are escaped, so a quoted name cannot be mistaken for one.
func usageObject(json []byte) (from []byte, ok bool) {
	for {
		at := bytes.Index(json, usageKey)
		if at < 0 {
			return nil, false
		}
		json = json[at+len(usageKey):]
		i := skipSpace(json, 0)
		if i == len(json) || json[i] != ':' {
			continue
		}
		if i = skipSpace(json, i+1); i < len(json) && json[i] == '{' {
			return json[i:], true
		}
	}
}

// readUsage reads the usage object that b begins with, in any of the shapes that
// OpenAI's endpoints and compatible servers use.
func readUsage(b []byte) (provider.Usage, bool) {
	c := checker{b: b, depth: maxNesting}
	if c.value(0, 0) < 0 {
		return provider.Usage{}, false
	}
	var prompt, promptDetails, completion, completionDetails []byte
	var input, details, output, outDetails, total, hit []byte
	members(b, 0, func(name []byte, at provider.Span) bool {
		value := b[at.Start:at.End]
		if string(value) == "null" {
			return true // says nothing, so what it stands for is estimated
		}
		switch string(name) {
		case `"prompt_tokens"`:
			prompt = value
		case `"prompt_tokens_details"`:
			promptDetails = value
		case `"prompt_cache_hit_tokens"`:
			hit = value
		case `"completion_tokens"`:
			completion = value
		case `"completion_tokens_details"`:
			completionDetails = value
		case `"input_tokens"`:
			input = value
		case `"input_tokens_details"`:
			details = value
		case `"output_tokens"`:
			output = value
		case `"output_tokens_details"`:
			outDetails = value
		case `"total_tokens"`:
			total = value
		}
		return true
	})
	if prompt != nil {
		input, details = prompt, promptDetails
	}
	if completion != nil {
		output, outDetails = completion, completionDetails
	}
	if input == nil && output == nil && total == nil {
		return provider.Usage{}, false
	}
	if input == nil && output == nil {
		input = total
	}
	in, ok1 := tokens(input)
	out, ok2 := tokens(output)
	if !ok1 || !ok2 {
		return provider.Usage{}, false // believed in part, it would make the rest free
	}
	return provider.Usage{
		Input:      in,
		Output:     out,
		Cached:     max(detail(details, `"cached_tokens"`), known(hit)),
		CacheWrite: detail(details, `"cache_write_tokens"`),
		Reasoning:  detail(outDetails, `"reasoning_tokens"`),
		Reported:   true,
	}, true
}

// detail is a number of tokens in an object, 0 where there is none that can be one.
func detail(object []byte, quoted string) int64 { return known(member(object, quoted)) }

func known(value []byte) int64 {
	n, _ := tokens(value)
	return n
}

// member is the value of an object's member of a quoted name, or nil.
func member(object []byte, quoted string) (value []byte) {
	if len(object) == 0 || object[0] != '{' {
		return nil
	}
	members(object, 0, func(name []byte, at provider.Span) bool {
		if string(name) == quoted {
			value = object[at.Start:at.End]
		}
		return value == nil
	})
	return value
}

// maxUsage bounds what is believed of one answer, so that one broken report cannot
// put a team into debt for ever. No model takes or gives nearly as much.
const maxUsage = 100_000_000

// tokens reads a number of tokens, which some servers write as a string. It is not ok
// where the value cannot be one: a negative number, or one beyond maxUsage.
func tokens(value []byte) (n int64, ok bool) {
	text := bytes.Trim(value, `"`)
	if len(bytes.TrimLeft(text, "0123456789")) == 0 { // as almost all are written
		if len(text) == 0 {
			return 0, len(value) == 0
		}
		if n = number(text, maxUsage+1); n > maxUsage {
			return 0, false
		}
		return n, true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= maxUsage) { // nor is NaN one
		return 0, false
	}
	return int64(f), true
}
