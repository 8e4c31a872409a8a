package simulate

import (
	"encoding/json"
	"strconv"
)

// responseError is the in-band error of a responses stream.
func responseError(sequence int) []byte {
	return []byte("event: error\n" + `data: {"type":"error","sequence_number":` + strconv.Itoa(sequence) +
		`,"code":"server_error","message":"The simulated server had an error while streaming.","param":null}` + "\n\n")
}

// events sends the events of a response in the order of OpenAI's API: created
// and in_progress at once, the item with its content from the first token on,
// and at the end the whole response with its usage.
func (a *responseAnswer) events(s *stream) error {
	for _, kind := range []string{"response.created", "response.in_progress"} {
		if err := a.send(s, kind, map[string]any{"response": a.object("in_progress")}); err != nil {
			return err
		}
	}
	if err := s.first(a.out.hidden, 1); err != nil {
		return err
	}
	err := a.send(s, "response.output_item.added", map[string]any{"output_index": 0, "item": a.item("in_progress", "")})
	if err != nil {
		return err
	}
	if a.out.call != nil {
		err = a.argumentEvents(s)
	} else {
		err = a.textEvents(s)
	}
	if err != nil {
		return err
	}
	item := a.item(a.status(), a.out.text(0))
	if err := a.send(s, "response.output_item.done", map[string]any{"output_index": 0, "item": item}); err != nil {
		return err
	}
	return a.send(s, "response."+a.status(), map[string]any{"response": json.RawMessage(a.finished())})
}

func (a *responseAnswer) textEvents(s *stream) error {
	at := func(more map[string]any) map[string]any {
		more["item_id"], more["output_index"], more["content_index"] = a.itemID(), 0, 0
		return more
	}
	if err := a.send(s, "response.content_part.added", at(map[string]any{"part": textPart("")})); err != nil {
		return err
	}
	err := a.deltas(s, "response.output_text.delta", `,"content_index":0`, `,"logprobs":[]`)
	if err != nil {
		return err
	}
	text := a.out.text(0)
	if err := a.send(s, "response.output_text.done", at(map[string]any{"text": text, "logprobs": []any{}})); err != nil {
		return err
	}
	return a.send(s, "response.content_part.done", at(map[string]any{"part": textPart(text)}))
}

func (a *responseAnswer) argumentEvents(s *stream) error {
	if err := a.deltas(s, "response.function_call_arguments.delta", "", ""); err != nil {
		return err
	}
	return a.send(s, "response.function_call_arguments.done", map[string]any{
		"item_id": a.itemID(), "output_index": 0, "name": a.out.call.name, "arguments": a.out.text(0)})
}

// deltas sends the tokens. before and after are further members around the delta.
func (a *responseAnswer) deltas(s *stream, kind, before, after string) error {
	head := "event: " + kind + "\n" + `data: {"type":"` + kind + `","sequence_number":`
	middle := `,"item_id":"` + a.itemID() + `","output_index":0` + before + `,"delta":"`
	tail := `"` + after + "}\n\n"
	buf := make([]byte, 0, 512)
	return s.tokens(a.out, 1, func(from, n int) error {
		buf = strconv.AppendInt(append(buf[:0], head...), int64(s.events), 10)
		buf = a.out.appendJSON(append(buf, middle...), 0, from, n)
		buf = append(buf, tail...)
		return s.event(buf)
	})
}

// send sends one event with its type and sequence number.
func (a *responseAnswer) send(s *stream, kind string, fields map[string]any) error {
	fields["type"], fields["sequence_number"] = kind, s.events
	return s.event([]byte("event: " + kind + "\ndata: " + string(mustJSON(fields)) + "\n\n"))
}
