package teams

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type object = map[string]jsontext.Value

// merge applies a JSON merge patch (RFC 7396) to an object. Both are strict JSON:
// no name twice.
func merge(target, patch []byte) ([]byte, error) {
	var change object
	if err := json.Unmarshal(patch, &change); err != nil || change == nil {
		return nil, &Invalid{Message: "expected one JSON object"}
	}
	return merged(target, change)
}

func merged(target []byte, patch object) ([]byte, error) {
	var out object
	if err := json.Unmarshal(target, &out); err != nil || out == nil {
		out = object{} // not an object: the patch takes its place
	}
	for name, value := range patch {
		var inner object
		switch {
		case value.Kind() == 'n':
			delete(out, name)
			continue
		case value.Kind() == '{' && json.Unmarshal(value, &inner) == nil:
			m, err := merged(out[name], inner)
			if err != nil {
				return nil, err
			}
			value = m
		}
		out[name] = value
	}
	return json.Marshal(out, json.Deterministic(true))
}
