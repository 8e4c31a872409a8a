package simulate

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

type chatRequest struct {
	Model               string
	Messages            []chatMessage
	Stream              bool
	StreamOptions       streamOptions `json:"stream_options"`
	N                   *int
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`
	Tools               []json.RawMessage
	ToolChoice          json.RawMessage `json:"tool_choice"`
	ResponseFormat      *responseFormat `json:"response_format"`
}

type chatMessage struct {
	Role      string
	Content   json.RawMessage
	ToolCalls json.RawMessage `json:"tool_calls"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// promptTokens is the estimate for messages and tool definitions.
func (r *chatRequest) promptTokens() int {
	n := 0
	for _, m := range r.Messages {
		n += textBytes(m.Content) + len(m.ToolCalls)
	}
	for _, t := range r.Tools {
		n += len(t)
	}
	return countTokens(n)
}

// wantsTool says whether the request ends with a user who says "tool".
func (r *chatRequest) wantsTool() bool {
	if len(r.Tools) == 0 || len(r.Messages) == 0 {
		return false
	}
	last := r.Messages[len(r.Messages)-1]
	return last.Role == "user" && mentionsTool(plainText(last.Content))
}

// chat answers POST /chat/completions.
func (c *call) chat() {
	var req chatRequest
	if !c.decode(&req) {
		return
	}
	c.stream = req.Stream
	if req.Model == "" || len(req.Messages) == 0 {
		c.fail(invalid("", "A chat completion needs a model and messages."))
		return
	}
	n, err := choices(req.N)
	if err != nil {
		c.fail(err)
		return
	}
	limit, err := smallestLimit(limitField{"max_completion_tokens", req.MaxCompletionTokens}, limitField{"max_tokens", req.MaxTokens})
	if err != nil {
		c.fail(err)
		return
	}
	tool := chooseTool(req.Tools, req.ToolChoice, req.wantsTool())
	out := c.newOutput(limit, req.ResponseFormat.sample(), tool)
	if !c.admit(req.Model, req.promptTokens(), product(out.reserve(limit), n)) {
		return
	}
	if req.Stream {
		c.streamChat(req.Model, n, out, req.StreamOptions.IncludeUsage)
	} else if c.think(out, n) {
		c.json(http.StatusOK, c.chatBody(req.Model, n, out))
	}
}

// product multiplies without overflow; what is above maxLimit fits nowhere anyway.
func product(tokens, choices int) int64 { return min(int64(tokens), maxLimit) * int64(choices) }

func (c *call) chatBody(model string, n int, out *output) []byte {
	b := make([]byte, 0, 1024+8*out.tokens*n)
	b = append(b, `{"id":"chatcmpl-`+c.id+`","object":"chat.completion","created":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	b = append(b, `,"model":`+quote(model)+`,"service_tier":"default","system_fingerprint":"fp_simulated","choices":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = c.appendMessage(append(b, `,"message":`...), i, out)
		b = append(b, `,"logprobs":null,"finish_reason":"`+out.finish()+`"}`...)
	}
	b = append(b, ']')
	if !c.faults.NoUsage {
		b = c.usage(out, n).appendChat(append(b, `,"usage":`...))
	}
	return append(b, '}')
}

func (c *call) appendMessage(b []byte, choice int, out *output) []byte {
	if out.call == nil {
		b = append(b, `{"role":"assistant","content":"`...)
		b = out.appendJSON(b, choice, 0, out.tokens)
		return append(b, `","refusal":null,"annotations":[]}`...)
	}
	b = append(b, `{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"`+c.toolCallID(choice)+
		`","type":"function","function":{"name":`+quote(out.call.name)+`,"arguments":"`...)
	b = out.appendJSON(b, choice, 0, out.tokens)
	return append(b, `"}}]}`...)
}

func (c *call) toolCallID(choice int) string { return "call_" + c.id + "_" + strconv.Itoa(choice) }

// chatError is the in-band error of chat completions and completions.
func chatError(int) []byte {
	return []byte(`data: {"error":{"message":"The simulated server had an error while streaming.","type":"server_error","param":null,"code":"server_error"}}` + "\n\n")
}

var doneEvent = []byte("data: [DONE]\n\n")

// A chunker builds the events of one chat or completions stream around parts
// that stay the same.
type chunker struct {
	s          *stream
	head, tail string
	buf        []byte
}

// newChunker starts a stream whose chunks have an id, object and model.
func (c *call) newChunker(id, object, model string, withUsage bool) *chunker {
	k := &chunker{s: c.newEventStream(chatError), buf: make([]byte, 0, 512)}
	k.head = `data: {"id":"` + id + `","object":"` + object + `","created":` + strconv.FormatInt(time.Now().Unix(), 10) +
		`,"model":` + quote(model) + `,"service_tier":"default","system_fingerprint":"fp_simulated","choices":[`
	k.tail = "]}\n\n"
	if withUsage {
		k.tail = "],\"usage\":null}\n\n"
	}
	return k
}

// send sends the event that has a choice between the constant parts. choice
// appends to what it is given.
func (k *chunker) send(choice func(b []byte) []byte) error {
	k.buf = append(choice(append(k.buf[:0], k.head...)), k.tail...)
	return k.s.event(k.buf)
}

// end sends usage, if asked for, and [DONE].
func (k *chunker) end(withUsage bool, u usage) error {
	c := k.s.c
	if withUsage && !c.faults.NoUsage {
		k.buf = append(append(k.buf[:0], k.head...), `],"usage":`...)
		if err := k.s.event(append(u.appendChat(k.buf), "}\n\n"...)); err != nil {
			return err
		}
	}
	if c.faults.NoDone {
		return nil
	}
	return k.s.event(doneEvent)
}

func (c *call) streamChat(model string, n int, out *output, withUsage bool) {
	k := c.newChunker("chatcmpl-"+c.id, "chat.completion.chunk", model, withUsage)
	k.s.close(c.chatEvents(k, n, out, withUsage))
}

// chatEvents sends the role of each choice, the tokens, the finish reasons and the end.
func (c *call) chatEvents(k *chunker, n int, out *output, withUsage bool) error {
	if err := k.s.first(out.hidden, n); err != nil {
		return err
	}
	open, shut := `"content":"`, `"`
	if out.call != nil {
		open, shut = `"tool_calls":[{"index":0,"function":{"arguments":"`, `"}}]`
	}
	shut += `},"logprobs":null,"finish_reason":null}`
	for i := range n {
		if err := k.send(func(b []byte) []byte { return c.appendRole(b, i, out) }); err != nil {
			return err
		}
	}
	err := k.s.tokens(out, n, func(from, count int) error {
		for i := range n {
			err := k.send(func(b []byte) []byte {
				b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
				b = append(append(b, `,"delta":{`...), open...)
				return append(out.appendJSON(b, i, from, count), shut...)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range n {
		err := k.send(func(b []byte) []byte {
			b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
			return append(b, `,"delta":{},"logprobs":null,"finish_reason":"`+out.finish()+`"}`...)
		})
		if err != nil {
			return err
		}
	}
	return k.end(withUsage, c.usage(out, n))
}

func (c *call) appendRole(b []byte, choice int, out *output) []byte {
	b = strconv.AppendInt(append(b, `{"index":`...), int64(choice), 10)
	if out.call == nil {
		b = append(b, `,"delta":{"role":"assistant","content":"","refusal":null}`...)
	} else {
		b = append(b, `,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"`+c.toolCallID(choice)+
			`","type":"function","function":{"name":`+quote(out.call.name)+`,"arguments":""}}]}`...)
	}
	return append(b, `,"logprobs":null,"finish_reason":null}`...)
}
