package simulate

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// Bounds on the sample of a schema, which comes from a request.
const (
	maxSchemaDepth = 24
	maxSchemaNodes = 2000
	maxSchemaText  = 1000
)

// schema is the part of JSON Schema that samples follow.
type schema struct {
	Type       any // a name or a list of names
	Properties map[string]json.RawMessage
	Required   []string
	Items      json.RawMessage
	MinItems   int
	MinLength  int
	Minimum    *float64
	Enum       []json.RawMessage
	Const      json.RawMessage
	AnyOf      []json.RawMessage
	Ref        string                     `json:"$ref"`
	Defs       map[string]json.RawMessage `json:"$defs"`
}

// A sampler makes the smallest value that satisfies a schema.
type sampler struct {
	root json.RawMessage
	defs map[string]json.RawMessage
	left int // nodes
}

// sampleJSON is a small JSON object that satisfies simple schemas: objects,
// arrays, enumerations and plain values, with references into $defs.
func sampleJSON(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "{}"
	}
	var root schema
	_ = json.Unmarshal(raw, &root) // an odd schema gets an empty object
	s := &sampler{root: raw, defs: root.Defs, left: maxSchemaNodes}
	return string(mustJSON(s.value(raw, 0)))
}

func (s *sampler) value(raw json.RawMessage, depth int) any {
	s.left--
	var sc schema
	if s.left < 0 || depth > maxSchemaDepth || json.Unmarshal(raw, &sc) != nil {
		return map[string]any{}
	}
	switch {
	case len(sc.Const) > 0:
		return sc.Const
	case len(sc.Enum) > 0:
		return sc.Enum[0]
	case sc.Ref == "#":
		return s.value(s.root, depth+1)
	case sc.Ref != "":
		return s.value(s.defs[strings.TrimPrefix(sc.Ref, "#/$defs/")], depth+1)
	case len(sc.AnyOf) > 0:
		return s.value(s.simplest(sc.AnyOf), depth+1)
	}
	return s.typed(&sc, depth)
}

// simplest prefers an alternative that cannot recurse.
func (s *sampler) simplest(alternatives []json.RawMessage) json.RawMessage {
	for _, raw := range alternatives {
		var sc schema
		if json.Unmarshal(raw, &sc) == nil && sc.Ref == "" && !slices.Contains([]string{"object", "array"}, sc.kind()) {
			return raw
		}
	}
	return alternatives[0]
}

func (s *sampler) typed(sc *schema, depth int) any {
	switch sc.kind() {
	case "string":
		return sampleText(sc.MinLength)
	case "integer":
		return sc.least(math.Ceil)
	case "number":
		return sc.least(func(f float64) float64 { return f })
	case "boolean":
		return true
	case "null":
		return nil
	case "array":
		list := []any{}
		for range sc.MinItems {
			if s.left <= 0 {
				break
			}
			list = append(list, s.value(orAny(sc.Items), depth+1))
		}
		return list
	}
	return s.object(sc, depth)
}

// object has the required properties, or all of them where none is required.
func (s *sampler) object(sc *schema, depth int) any {
	names := sc.Required
	if names == nil {
		for name := range sc.Properties {
			names = append(names, name)
		}
		slices.Sort(names) // so that the node budget cuts the same ones each time
	}
	object := make(map[string]any, len(names))
	for _, name := range names {
		object[name] = s.value(orAny(sc.Properties[name]), depth+1)
	}
	return object
}

// kind is the type, the first one of a list, or what the other fields imply.
func (sc *schema) kind() string {
	switch t := sc.Type.(type) {
	case string:
		return t
	case []any:
		if len(t) > 0 {
			name, _ := t[0].(string)
			return name
		}
	}
	if sc.Items != nil {
		return "array"
	}
	return "object"
}

func (sc *schema) least(round func(float64) float64) float64 {
	if sc.Minimum == nil {
		return 1
	}
	return round(*sc.Minimum)
}

func sampleText(atLeast int) string {
	text := "simulated"
	for len(text) < min(atLeast, maxSchemaText) {
		text += " simulated"
	}
	return text
}

// orAny makes an absent schema one of a string.
func orAny(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage(`{"type":"string"}`)
	}
	return raw
}
