package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Effective writes the whole configuration as YAML, with every default and with
// secrets masked. It loads again to the same configuration, apart from secrets.
func (c *Config) Effective() ([]byte, error) {
	n, err := toNode(reflect.ValueOf(c).Elem())
	if err != nil {
		return nil, fmt.Errorf("write the effective configuration: %w", err)
	}
	return yaml.Dump(n)
}

// toNode writes a value as a node. Unlike the YAML library it leaves out only what
// has no default: a 0 that was chosen in place of a default has to be seen.
func toNode(v reflect.Value) (*yaml.Node, error) {
	if m, ok := v.Interface().(yaml.Marshaler); ok && v.Kind() != reflect.Pointer {
		text, err := m.MarshalYAML()
		if err != nil {
			return nil, err
		}
		return textNode(fmt.Sprint(text)), nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		return toNode(v.Elem())
	case reflect.Struct:
		return structNode(v)
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range sortedKeys(keySet(v)) {
			value, err := toNode(v.MapIndex(reflect.ValueOf(key)))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, textNode(key), value)
		}
		return n, nil
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item, err := toNode(v.Index(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	case reflect.String:
		// A literal ${ would be read as a variable.
		return textNode(strings.ReplaceAll(v.String(), "${", "$${")), nil
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}, nil
	case reflect.Int, reflect.Int64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}, nil
	case reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(v.Float(), 'g', -1, 64)}, nil
	}
	return nil, fmt.Errorf("no form in YAML for %v", v.Type())
}

// structNode writes a struct. Limits stand on one line each.
func structNode(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	switch v.Interface().(type) {
	case Rate, Slots, Budget, Price:
		n.Style = yaml.FlowStyle
	}
	for _, f := range fieldsOf(v.Type()) {
		item := v.Field(f.index)
		if isEmpty(item) && (f.def == "" || item.Kind() == reflect.Pointer) {
			continue
		}
		value, err := toNode(item)
		if err != nil {
			return nil, err
		}
		if value.Kind == yaml.MappingNode && len(value.Content) == 0 && item.Kind() == reflect.Struct {
			continue
		}
		n.Content = append(n.Content, textNode(f.key), value)
	}
	return n, nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	}
	return v.IsZero()
}

// textNode writes text, without quotes where it is a number of bytes or a count.
func textNode(text string) *yaml.Node {
	if isDigits(text) && (text[0] != '0' || text == "0") {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: text}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

func keySet(m reflect.Value) map[string]bool {
	set := make(map[string]bool, m.Len())
	for _, key := range m.MapKeys() {
		set[key.String()] = true
	}
	return set
}
