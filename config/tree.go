package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// checkTree finds what no configuration may hold, whatever its keys mean:
// duplicate keys, merge keys, tags, deep nesting, and aliases that multiply the
// file. It says whether the tree is safe to walk through.
func (d *document) checkTree() (found faults, safe bool) {
	safe = true
	var walk func(n *yaml.Node, depth int)
	walk = func(n *yaml.Node, depth int) {
		if depth > maxDepth {
			found = append(found, fault{node: n, text: fmt.Sprintf("nested more than %d levels deep", maxDepth)})
			safe = false
			return
		}
		if n.Style&yaml.TaggedStyle != 0 {
			found = append(found, fault{node: n, text: "tags are not supported; put text that begins with ! in quotes"})
		}
		if n.Kind == yaml.MappingNode {
			found = append(found, checkKeys(n)...)
		}
		for _, child := range n.Content {
			walk(child, depth+1)
		}
	}
	walk(d.root, 0)
	if safe {
		if f := checkAliases(d.root); f != nil {
			return append(found, *f), false
		}
	}
	return found, safe
}

// checkKeys checks the keys of one mapping.
func checkKeys(n *yaml.Node) (found faults) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := fault{node: value, onKey: true}
		switch {
		case key.Kind != yaml.ScalarNode:
			f = fault{node: key, text: "a key must be plain text"}
		case key.ShortTag() == "!!merge":
			f.text = "merge keys (<<) are not supported; use an alias for a whole value, or repeat the keys"
		case strings.Contains(key.Value, "${"):
			f.text = "variables are put into values only, not into keys"
		case first[key.Value] != nil:
			f.text = fmt.Sprintf("is given twice, first on line %d", first[key.Value].Line)
		default:
			first[key.Value] = key
			continue
		}
		found = append(found, f)
	}
	return found
}

// checkAliases finds an alias that stands within what it refers to, or a tree that
// grows beyond maxNodes when its aliases are followed.
func checkAliases(root *yaml.Node) *fault {
	const open = -1
	sizes := map[*yaml.Node]int{} // nodes below and with an anchor; open while it is counted
	var bad *yaml.Node
	var size func(n *yaml.Node) int
	size = func(n *yaml.Node) int {
		if n.Kind == yaml.AliasNode {
			total, known := sizes[n.Alias]
			if known && total != open {
				return total
			}
			bad = n // an anchor always comes before its aliases, so it is still open
			return 1
		}
		if n.Anchor != "" {
			sizes[n] = open
		}
		total := 1
		for _, child := range n.Content {
			total = min(total+size(child), maxNodes+1)
		}
		if n.Anchor != "" {
			sizes[n] = total
		}
		return total
	}
	total := size(root)
	switch {
	case bad != nil:
		return &fault{node: bad, text: "this alias refers to a value that it is itself a part of"}
	case total > maxNodes:
		return &fault{node: root, text: "the aliases of this file multiply it beyond all bounds; write fewer of them"}
	}
	return nil
}
