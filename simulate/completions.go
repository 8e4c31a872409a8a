package simulate

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

type completionRequest struct {
	Model         string
	Prompt        json.RawMessage
	Stream        bool
	StreamOptions streamOptions `json:"stream_options"`
	N             *int
	MaxTokens     *int `json:"max_tokens"`
}

// prompts is how many prompts the request has: one, or the length of a list
// of texts or of token lists.
func (r *completionRequest) prompts() int {
	var list []json.RawMessage
	if json.Unmarshal(r.Prompt, &list) != nil || len(list) == 0 {
		return 1
	}
	if first := list[0][0]; first == '"' || first == '[' {
		return len(list)
	}
	return 1
}

// completions answers POST /completions.
func (c *call) completions() {
	var req completionRequest
	if !c.decode(&req) {
		return
	}
	c.stream = req.Stream
	if req.Model == "" {
		c.fail(invalid("model", "A completion needs a model."))
		return
	}
	n, err := choices(req.N)
	if err != nil {
		c.fail(err)
		return
	}
	if n *= req.prompts(); n > maxChoices {
		c.fail(invalid("prompt", "Prompts times n is %d, above the maximum of %d.", n, maxChoices))
		return
	}
	limit, err := smallestLimit(limitField{"max_tokens", req.MaxTokens})
	if err != nil {
		c.fail(err)
		return
	}
	out := c.newOutput(limit, "", nil)
	if !c.admit(req.Model, countTokens(textBytes(req.Prompt)), product(out.reserve(limit), n)) {
		return
	}
	if req.Stream {
		withUsage := req.StreamOptions.IncludeUsage
		k := c.newChunker("cmpl-"+c.id, "text_completion", req.Model, withUsage)
		k.s.close(c.completionEvents(k, n, out, withUsage))
	} else if c.think(out, n) {
		c.json(http.StatusOK, c.completionBody(req.Model, n, out))
	}
}

func (c *call) completionBody(model string, n int, out *output) []byte {
	b := append([]byte(nil), `{"id":"cmpl-`+c.id+`","object":"text_completion","created":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	b = append(b, `,"model":`+quote(model)+`,"choices":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendCompletion(b, i, out, 0, out.tokens, `"`+out.finish()+`"`)
	}
	b = append(b, ']')
	if !c.faults.NoUsage {
		b = c.usage(out, n).appendChat(append(b, `,"usage":`...))
	}
	return append(b, '}')
}

func appendCompletion(b []byte, choice int, out *output, from, n int, finish string) []byte {
	b = out.appendJSON(append(b, `{"text":"`...), choice, from, n)
	b = strconv.AppendInt(append(b, `","index":`...), int64(choice), 10)
	b = append(append(b, `,"logprobs":null,"finish_reason":`...), finish...)
	return append(b, '}')
}

func (c *call) completionEvents(k *chunker, n int, out *output, withUsage bool) error {
	if err := k.s.first(out.hidden, n); err != nil {
		return err
	}
	each := func(from, count int, finish string) error {
		for i := range n {
			err := k.send(func(b []byte) []byte { return appendCompletion(b, i, out, from, count, finish) })
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := k.s.tokens(out, n, func(from, count int) error { return each(from, count, "null") })
	if err != nil {
		return err
	}
	if err := each(out.tokens, 0, `"`+out.finish()+`"`); err != nil {
		return err
	}
	return k.end(withUsage, c.usage(out, n))
}
