package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"
)

// Teams and keys that are made while the gateway runs have the settings that the
// file gives teams and keys, as JSON. They are read and checked by the same code.

// TeamFromJSON reads the settings of a team from a JSON object with the keys that
// the file has under teams.<name>, but without its API keys, and fills the defaults
// in. Models are checked against those of c. The error is an Errors without file
// and line.
func (c *Config) TeamFromJSON(name string, settings []byte) (Team, error) {
	n, err := jsonTree(settings)
	if err != nil {
		return Team{}, err
	}
	if lookup(n, "keys") != nil {
		return Team{}, Errors{{Key: "keys", Message: "the keys of a team are made apart from it"}}
	}
	return c.teamFrom(name, n, path{"teams", name})
}

// KeyFromJSON reads the settings of a key in the same way: limits, expires and
// disabled.
func (c *Config) KeyFromJSON(name string, settings []byte) (Key, error) {
	n, err := jsonTree(settings)
	if err != nil {
		return Key{}, err
	}
	for _, given := range []string{"name", "hash", "key"} {
		if lookup(n, given) != nil {
			return Key{}, Errors{{Key: given, Message: "is not one of the settings of a key: expected limits, expires or disabled"}}
		}
	}
	if when := lookup(n, "expires"); when != nil && when.Kind == yaml.ScalarNode && when.Value == "" {
		// A variable that a script forgot to set must not make a key that lives for ever.
		return Key{}, Errors{{Key: "expires", Message: "expected a date or a time; leave it out for a key that does not end"}}
	}
	const team = "team"
	placeholder := "sha256:" + strings.Repeat("0", 64)
	n.Content = append(n.Content, textNode("name"), quotedNode(name), textNode("hash"), quotedNode(placeholder))
	keys := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{n}}
	t, err := c.teamFrom(team, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{textNode("keys"), keys}}, path{"teams", team, "keys", indexStep(0)})
	if err != nil {
		return Key{}, err
	}
	k := t.Keys[0]
	k.Hash = ""
	return k, nil
}

// teamFrom decodes and checks a team as part of a file that has what c has. Paths
// in errors begin below base.
func (c *Config) teamFrom(name string, n *yaml.Node, base path) (Team, error) {
	d := newDocument("")
	teams := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{quotedNode(name), n}}
	d.root = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{textNode("teams"), teams}}
	found, safe := d.checkTree()
	whole := *c
	whole.Teams = nil
	if safe {
		var inner faults
		if err := decode(teams, &whole.Teams); errors.As(err, &inner) {
			found = append(found, inner...)
		}
	}
	v := newValidator(&whole, d, found)
	t := whole.Teams[name]
	if safe {
		t.resolve()
		whole.Teams = map[string]Team{name: t}
		v.teams()
	}
	err := d.report(append(found, v.found...))
	var all Errors
	if !errors.As(err, &all) {
		return t, err
	}
	prefix := pathText(base)
	for i := range all {
		all[i].Line, all[i].Column = 0, 0
		all[i].Key = strings.TrimPrefix(strings.TrimPrefix(all[i].Key, prefix), ".")
	}
	return Team{}, all
}

// SettingsJSON writes the team's settings with every default, without its keys, so
// that TeamFromJSON reads them again.
func (t Team) SettingsJSON() ([]byte, error) {
	t.Keys = nil
	return settingsJSON(reflect.ValueOf(&t).Elem())
}

// SettingsJSON writes the key's settings, so that KeyFromJSON reads them again.
func (k Key) SettingsJSON() ([]byte, error) {
	k = Key{Limits: k.Limits, Expires: k.Expires, Disabled: k.Disabled}
	return settingsJSON(reflect.ValueOf(&k).Elem(), "name")
}

func settingsJSON(v reflect.Value, without ...string) ([]byte, error) {
	n, err := toNode(v)
	if err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	kept := n.Content[:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		if len(without) == 0 || n.Content[i].Value != without[0] {
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
	}
	n.Content = kept
	var out bytes.Buffer
	e := jsontext.NewEncoder(&out)
	if err := writeJSON(e, n); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func writeJSON(e *jsontext.Encoder, n *yaml.Node) error {
	begin, end := jsontext.BeginObject, jsontext.EndObject
	switch {
	case n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!bool" || n.Tag == "!!float"):
		return e.WriteValue(jsontext.Value(n.Value))
	case n.Kind == yaml.ScalarNode:
		return e.WriteToken(jsontext.String(n.Value))
	case n.Kind == yaml.SequenceNode:
		begin, end = jsontext.BeginArray, jsontext.EndArray
	}
	err := e.WriteToken(begin)
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			err = errors.Join(err, e.WriteToken(jsontext.String(child.Value)))
			continue
		}
		err = errors.Join(err, writeJSON(e, child))
	}
	return errors.Join(err, e.WriteToken(end))
}

// jsonTree reads a JSON object as the tree of nodes that the decoder takes. Names
// that are given twice are refused, and nesting is bounded.
func jsonTree(data []byte) (*yaml.Node, error) {
	malformed := Errors{{Message: "expected one JSON object"}}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	n, err := jsonNode(d, 0)
	if err != nil || n.Kind != yaml.MappingNode {
		return nil, malformed
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, malformed
	}
	return n, nil
}

func jsonNode(d *jsontext.Decoder, depth int) (*yaml.Node, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: 1, Column: int(d.InputOffset())}
	switch t.Kind() {
	case '"':
		n.Value, n.Tag, n.Style = t.String(), "!!str", yaml.DoubleQuotedStyle
		return n, nil
	case '{':
		n.Kind = yaml.MappingNode
	case '[':
		n.Kind = yaml.SequenceNode
	case 'n':
		n.Value, n.Tag = "null", "!!null"
		return n, nil
	default:
		n.Value = t.String() // a number or a boolean
		return n, nil
	}
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	for d.PeekKind() != '}' && d.PeekKind() != ']' {
		child, err := jsonNode(d, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	_, err = d.ReadToken()
	return n, err
}

// quotedNode is text that is never read as anything else.
func quotedNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
}

// ParseFlow reads a list or mapping that is written as in the file, within [ ] or
// { }. It reports false for any other text.
func ParseFlow(text string) (v any, ok bool) {
	if !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "{") {
		return nil, false
	}
	err := yaml.Unmarshal([]byte(text), &v)
	return v, err == nil
}
