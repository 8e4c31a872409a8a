package config

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxExpanded bounds the text that all variables of a file put into it, in bytes.
const maxExpanded = 4 << 20

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand puts environment variables into every scalar value of the tree: ${VAR},
// and ${VAR:-default}, whose default also stands in for an empty variable. $${ is
// a literal ${. It keeps the text of the file in d.raw.
func (d *document) expand(getenv func(string) (string, bool)) (found faults) {
	total := 0
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "${") {
			text, err := expandText(n.Value, getenv)
			if total += len(text); err == nil && total > maxExpanded {
				err = fmt.Errorf("the variables of this file hold more than 4 MiB in all")
			}
			if err != nil {
				found = append(found, fault{node: n, text: err.Error()})
				return
			}
			d.raw[n] = n.Value
			// The text counts as written without quotes, so that it may also be a
			// number or true, but never as null.
			n.Value, n.Style, n.Tag = text, 0, "!!str"
			return
		}
		for i, child := range n.Content {
			if n.Kind != yaml.MappingNode || i%2 == 1 {
				walk(child)
			}
		}
	}
	walk(d.root)
	return found
}

// expandText expands the variables of one text. Its errors name variables, never
// their values.
func expandText(text string, getenv func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			return out.String(), nil
		}
		if head, escaped := strings.CutSuffix(before, "$"); escaped {
			out.WriteString(head + "${")
			text = rest
			continue
		}
		inner, tail, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("${ is not closed by }; write $${ for a literal ${")
		}
		value, err := lookupVariable(inner, getenv)
		if err != nil {
			return "", err
		}
		out.WriteString(before + value)
		text = tail
	}
}

// lookupVariable returns the value of VAR or VAR:-default.
func lookupVariable(inner string, getenv func(string) (string, bool)) (string, error) {
	name, standIn, hasDefault := strings.Cut(inner, ":-")
	switch {
	case !variableName.MatchString(name):
		return "", fmt.Errorf("expected ${NAME} or ${NAME:-default}, with a name of letters, digits and underscores; write $${ for a literal ${")
	case strings.Contains(standIn, "${"):
		return "", fmt.Errorf("the default of ${%s} cannot hold another variable", name)
	}
	value, set := getenv(name)
	switch {
	case value != "":
		return value, nil
	case hasDefault:
		return standIn, nil
	case set:
		return "", fmt.Errorf("environment variable %s is empty; set it, or write ${%s:-} if it may be", name, name)
	}
	return "", fmt.Errorf("environment variable %s is not set; set it, or give a default: ${%s:-default}", name, name)
}
