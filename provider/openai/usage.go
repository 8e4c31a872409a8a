package openai

import (
	"bytes"

	"github.com/tidwall/gjson"

	"penstock/provider"
)

// usageKey is looked for before anything is parsed: few events carry it.
var usageKey = []byte(`"usage"`)

// usageObject finds the value of the first "usage" that is an object. Names and
// values inside strings are escaped, so a quoted name cannot be mistaken for one.
func usageObject(json []byte) (gjson.Result, bool) {
	for {
		at := bytes.Index(json, usageKey)
		if at < 0 {
			return gjson.Result{}, false
		}
		json = json[at+len(usageKey):]
		rest := bytes.TrimLeft(json, " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) > 0 && rest[0] == '{' {
			return gjson.ParseBytes(rest), true
		}
	}
}

// readUsage reads a usage object in any of the shapes that OpenAI's endpoints and
// compatible servers use.
func readUsage(u gjson.Result) (provider.Usage, bool) {
	var prompt, promptDetails, completion, completionDetails gjson.Result
	var input, details, output, outDetails, total, hit gjson.Result
	u.ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "prompt_tokens":
			prompt = value
		case "prompt_tokens_details":
			promptDetails = value
		case "prompt_cache_hit_tokens":
			hit = value
		case "completion_tokens":
			completion = value
		case "completion_tokens_details":
			completionDetails = value
		case "input_tokens":
			input = value
		case "input_tokens_details":
			details = value
		case "output_tokens":
			output = value
		case "output_tokens_details":
			outDetails = value
		case "total_tokens":
			total = value
		}
		return true
	})
	if prompt.Exists() {
		input, details = prompt, promptDetails
	}
	if completion.Exists() {
		output, outDetails = completion, completionDetails
	}
	if !input.Exists() && !output.Exists() && !total.Exists() {
		return provider.Usage{}, false
	}
	use := provider.Usage{
		Input:      tokens(input),
		Output:     tokens(output),
		Cached:     max(tokens(details.Get("cached_tokens")), tokens(hit)),
		CacheWrite: tokens(details.Get("cache_write_tokens")),
		Reasoning:  tokens(outDetails.Get("reasoning_tokens")),
		Reported:   true,
	}
	if !input.Exists() && !output.Exists() {
		use.Input = tokens(total)
	}
	return use, true
}

// maxUsage bounds what is believed of one answer, so that one broken report cannot
// put a team into debt for ever.
const maxUsage = 100_000_000

// tokens reads a number of tokens.
func tokens(r gjson.Result) int64 {
	if r.Num >= maxUsage { // also what no int64 holds
		return maxUsage
	}
	return min(max(0, r.Int()), maxUsage)
}
