package simulate

import "encoding/json"

// A toolCall is the call that an answer makes in place of text.
type toolCall struct {
	name      string
	arguments string // JSON
}

// A tool is a function in either form: nested (chat) or flat (responses).
type tool struct {
	Type     string
	Function *function
	function
}

type function struct {
	Name       string
	Parameters json.RawMessage
}

// chooseTool is the call that a request asks for, or nil. mentioned says
// whether the user's last words ask for a tool.
func chooseTool(rawTools []json.RawMessage, rawChoice json.RawMessage, mentioned bool) *toolCall {
	mode := rawString(rawChoice)
	var named tool
	if mode == "" && len(rawChoice) > 0 {
		_ = json.Unmarshal(rawChoice, &named) // another form names no function
	}
	want := named.flat().Name
	if mode == "none" || (want == "" && mode != "required" && !mentioned) {
		return nil
	}
	for _, raw := range rawTools {
		var t tool
		if json.Unmarshal(raw, &t) != nil || t.Type != "function" {
			continue
		}
		if f := t.flat(); f.Name != "" && (want == "" || want == f.Name) {
			return &toolCall{name: f.Name, arguments: sampleJSON(f.Parameters)}
		}
	}
	return nil
}

func (t *tool) flat() function {
	if t.Function != nil {
		return *t.Function
	}
	return t.function
}

// responseFormat is response_format of chat, or text.format of responses,
// where the schema stands beside the type.
type responseFormat struct {
	Type       string
	JSONSchema struct{ Schema json.RawMessage } `json:"json_schema"`
	Schema     json.RawMessage
}

// sample is the text that satisfies f, or "" if it asks for no JSON.
func (f *responseFormat) sample() string {
	switch {
	case f == nil:
		return ""
	case f.Type == "json_object":
		return `{"answer": "simulated"}`
	case f.Type != "json_schema":
		return ""
	case len(f.Schema) > 0:
		return sampleJSON(f.Schema)
	}
	return sampleJSON(f.JSONSchema.Schema)
}
