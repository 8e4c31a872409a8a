package simulate

import (
	"encoding/json"
	"net/http"
	"time"
)

type responseRequest struct {
	Model           string
	Input           json.RawMessage
	Instructions    *string
	Stream          bool
	MaxOutputTokens *int `json:"max_output_tokens"`
	Tools           []json.RawMessage
	ToolChoice      json.RawMessage `json:"tool_choice"`
	Text            struct{ Format *responseFormat }
	Store           *bool
	Previous        *string `json:"previous_response_id"`
	Metadata        json.RawMessage
}

func (r *responseRequest) promptTokens() int {
	n := textBytes(r.Input)
	if r.Instructions != nil {
		n += len(*r.Instructions)
	}
	for _, t := range r.Tools {
		n += len(t)
	}
	return countTokens(n)
}

// wantsTool says whether the input ends with a user who says "tool".
func (r *responseRequest) wantsTool() bool {
	if text := rawString(r.Input); text != "" {
		return mentionsTool(text)
	}
	var items []struct {
		Role    string
		Content json.RawMessage
	}
	if json.Unmarshal(r.Input, &items) != nil || len(items) == 0 {
		return false
	}
	last := items[len(items)-1]
	return last.Role == "user" && mentionsTool(plainText(last.Content))
}

// respond answers POST /responses.
func (c *call) respond() {
	var req responseRequest
	if !c.decode(&req) {
		return
	}
	c.stream = req.Stream
	if req.Model == "" {
		req.Model = c.p.models[0]
	}
	limit, err := smallestLimit(limitField{"max_output_tokens", req.MaxOutputTokens})
	if err != nil {
		c.fail(err)
		return
	}
	if req.Previous != nil && c.p.responses.get(*req.Previous) == nil {
		e := invalid("previous_response_id", "Previous response %q is not stored.", clip(*req.Previous))
		e.code = "previous_response_not_found"
		c.fail(e)
		return
	}
	tool := chooseTool(req.Tools, req.ToolChoice, len(req.Tools) > 0 && req.wantsTool())
	out := c.newOutput(limit, req.Text.Format.sample(), tool)
	if !c.admit(req.Model, req.promptTokens(), product(out.reserve(limit), 1)) {
		return
	}
	a := &responseAnswer{c: c, req: &req, out: out, created: time.Now().Unix()}
	if req.Stream {
		s := c.newEventStream(responseError)
		s.close(a.events(s))
	} else if c.think(out, 1) {
		c.json(http.StatusOK, a.finished())
	}
}

// A responseAnswer makes the objects of one response.
type responseAnswer struct {
	c       *call
	req     *responseRequest
	out     *output
	created int64
}

func (a *responseAnswer) id() string { return "resp_" + a.c.id }

func (a *responseAnswer) itemID() string {
	if a.out.call != nil {
		return "fc_" + a.c.id
	}
	return "msg_" + a.c.id
}

// status is the final one.
func (a *responseAnswer) status() string {
	if a.out.capped {
		return "incomplete"
	}
	return "completed"
}

// object is the response in a state; output and usage are there at the end.
func (a *responseAnswer) object(status string) map[string]any {
	final := status == a.status()
	o := map[string]any{
		"id": a.id(), "object": "response", "created_at": a.created, "status": status, "model": a.req.Model,
		"error": nil, "incomplete_details": nil, "instructions": a.req.Instructions,
		"max_output_tokens": a.req.MaxOutputTokens, "previous_response_id": a.req.Previous,
		"parallel_tool_calls": true, "reasoning": map[string]any{"effort": nil, "summary": nil},
		"store": a.stored(), "temperature": 1.0, "top_p": 1.0, "truncation": "disabled",
		"text":        map[string]any{"format": map[string]any{"type": "text"}},
		"tool_choice": orRaw(a.req.ToolChoice, `"auto"`), "metadata": orRaw(a.req.Metadata, "{}"),
		"tools": []json.RawMessage{}, "output": []any{}, "usage": nil,
	}
	if len(a.req.Tools) > 0 {
		o["tools"] = a.req.Tools
	}
	if !final {
		return o
	}
	o["output"] = []any{a.item(status, a.out.text(0))}
	if !a.c.faults.NoUsage {
		o["usage"] = a.c.usage(a.out, 1).responses()
	}
	if a.out.capped {
		o["incomplete_details"] = map[string]string{"reason": "max_output_tokens"}
	}
	return o
}

func orRaw(raw json.RawMessage, def string) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage(def)
	}
	return raw
}

// item is the message or function call, with the text that it has so far.
func (a *responseAnswer) item(status, text string) map[string]any {
	if a.out.call != nil {
		return map[string]any{"id": a.itemID(), "type": "function_call", "status": status,
			"call_id": a.c.toolCallID(0), "name": a.out.call.name, "arguments": text}
	}
	content := []any{}
	if status != "in_progress" {
		content = append(content, textPart(text))
	}
	return map[string]any{"id": a.itemID(), "type": "message", "status": status, "role": "assistant", "content": content}
}

func textPart(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

func (a *responseAnswer) stored() bool { return a.req.Store == nil || *a.req.Store }

// finished is the final object, which it stores unless the request forbids it.
func (a *responseAnswer) finished() []byte {
	body := mustJSON(a.object(a.status()))
	if a.stored() {
		a.c.p.responses.put(a.id(), body)
	}
	return body
}

// getResponse answers GET /responses/{id}.
func (c *call) getResponse() {
	if body := c.p.responses.get(c.pathID); body != nil {
		c.json(http.StatusOK, body)
		return
	}
	c.fail(notFound("Response %q is not stored.", clip(c.pathID)))
}

// deleteResponse answers DELETE /responses/{id}.
func (c *call) deleteResponse() {
	if !c.p.responses.remove(c.pathID) {
		c.fail(notFound("Response %q is not stored.", clip(c.pathID)))
		return
	}
	c.json(http.StatusOK, mustJSON(map[string]any{"id": c.pathID, "object": "response", "deleted": true}))
}
