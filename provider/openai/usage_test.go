package openai

import (
	"encoding/json"
	"fmt"
	"testing"

	"penstock/provider"
	"penstock/sse"
)

func TestReadUsage(t *testing.T) {
	for body, want := range map[string]provider.Usage{
		`{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`:                                    {Input: 9, Output: 4, Reported: true},
		`{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5}}}`:          {Input: 9, Output: 4, Cached: 5, Reported: true},
		`{"usage":{"prompt_tokens":9,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":3}}}`:   {Input: 9, Output: 4, Reasoning: 3, Reported: true},
		`{"response":{"usage" : {"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":5}}}}`: {Input: 9, Output: 4, Cached: 5, Reported: true},
		`{"object":"list","usage":{"prompt_tokens":8,"total_tokens":8}}`:                                           {Input: 8, Reported: true},
		`{"usage":{"total_tokens":8}}`:                                           {Input: 8, Reported: true},
		`{"usage":null,"x":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}`: {Input: 1, Output: 1, Reported: true},
		`{"content":"\"usage\":{\"prompt_tokens\":7}"}`:                          {},
		`{"usage":{}}`: {}, `{"usage":5}`: {}, `{"usage":`: {}, `"usage"`: {}, `{"usage":{"prompt_tokens"`: {},
		`{"usage":{"prompt_tokens":"12","completion_tokens":"4.0","prompt_tokens_details":null}}`:                            {Input: 12, Output: 4, Reported: true},
		`{"usage":{"prompt_tokens":"12","completion_tokens":"NaN"}}`:                                                         {},
		`{"usage":{"prompt_tokens":12,"completion_tokens":-4}}`:                                                              {},
		`{"usage":{"prompt_tokens":-12,"completion_tokens":4}}`:                                                              {},
		`{"usage":{"prompt_tokens":12,"completion_tokens":{}}}`:                                                              {},
		`{"usage":{"prompt_tokens":12,"completion_tokens":""}}`:                                                              {},
		`{"usage":{"prompt_tokens":12,"completion_tokens":-0}}`:                                                              {Input: 12, Reported: true},
		`{"usage":{"input_tokens":-1e400,"output_tokens":4}}`:                                                                {},
		`{"usage":{"total_tokens":-8}}`:                                                                                      {},
		`{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":-1,"prompt_tokens_details":{"cached_tokens":-5}}}`: {Input: 9, Output: 4, Reported: true},
		`{"usage":{"prompt_tokens":12.0,"completion_tokens":1e2,"completion_tokens_details":{"x":{},"reasoning_tokens":1}}}`: {Input: 12, Output: 100, Reasoning: 1, Reported: true},
		`{"usage":{"prompt_tokens":null,"completion_tokens":null}}`:                                                          {},
		`{"usage":{"prompt_tokens":null,"total_tokens":8}}`:                                                                  {Input: 8, Reported: true},
		`{"usage":{"prompt_tokens":-9,"completion_tokens":"x"}}`:                                                             {},
		`{"usage":{"prompt_tokens":1e300,"completion_tokens":9223372036854775807,"total_tokens":99999999999999999999999}}`:   {},
		`{"usage":{"prompt_tokens":1,"completion_tokens":100000000}}`:                                                        {Input: 1, Output: maxUsage, Reported: true},
		`{"usage":{"prompt_tokens":1,"completion_tokens":100000001}}`:                                                        {},
		`{"usage":{"prompt_tokens":1,"completion_tokens":1.1e8}}`:                                                            {},
	} {
		got, _ := usageIn([]byte(body))
		if got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

// Whatever an answer says, usage is within bounds; and where encoding/json reads
// a plain usage object at the top, the same is read here.
// covers CL-03
func FuzzUsage(f *testing.F) {
	for _, body := range []string{
		`{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}`, `{"usage":{"input_tokens":1e3}}`, `{"usage":{"prompt_tokens":-1}}`,
		`{"choices":[],"usage":null}`, `{"usage":{"usage":{"total_tokens":5}}}`, `{"a":"\"usage\":{","usage":{"total_tokens":1}}`, `"usage":{`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		tap := newTap(&provider.Call{Op: operations["POST /chat/completions"]})
		tap.see(&sse.Event{Data: body, HasData: true})
		use := tap.current()
		for _, n := range []int64{use.Input, use.Output, use.Cached, use.CacheWrite, use.Reasoning} {
			if n < 0 || n > max(maxUsage, int64(len(body))) {
				t.Fatalf("%q: %+v", body, use)
			}
		}
		var plain struct {
			Usage struct {
				Input  *int64 `json:"prompt_tokens"`
				Output *int64 `json:"completion_tokens"`
			} `json:"usage"`
		}
		var top map[string]json.RawMessage
		if json.Unmarshal(body, &top) != nil || len(top) != 1 || json.Unmarshal(body, &plain) != nil || plain.Usage.Input == nil || plain.Usage.Output == nil {
			return
		}
		if string(top["usage"]) != fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d}`, *plain.Usage.Input, *plain.Usage.Output) {
			return
		}
		in, out := *plain.Usage.Input, *plain.Usage.Output
		if use.Reported != (in >= 0 && out >= 0 && in <= maxUsage && out <= maxUsage) || use.Reported && (use.Input != in || use.Output != out) {
			t.Fatalf("%q: %+v", body, use)
		}
	})
}
