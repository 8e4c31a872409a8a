package config

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A document is a file as a tree of nodes, with what is needed to speak about it.
type document struct {
	file string
	root *yaml.Node // never nil; an empty mapping for an empty file
	// raw is the text of the scalars that held variables, as it stands in the file.
	raw map[*yaml.Node]string
	// entries finds the values of the mappings that locate went through.
	entries map[*yaml.Node]map[string]*yaml.Node
	// variables names the environment variables that stand in for nodes of the
	// file when there is none.
	variables map[*yaml.Node]string
}

// newDocument returns the document of an empty file.
func newDocument(file string) *document {
	return &document{
		file:      file,
		root:      &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1},
		raw:       map[*yaml.Node]string{},
		entries:   map[*yaml.Node]map[string]*yaml.Node{},
		variables: map[*yaml.Node]string{},
	}
}

// A path leads from the root of the file to a value: names of keys, and indexes of
// lists as "[0]".
type path []string

func (p path) key(name string) path { return append(p[:len(p):len(p)], name) }

func (p path) index(i int) path { return p.key(indexStep(i)) }

func indexStep(i int) string { return "[" + strconv.Itoa(i) + "]" }

// under says whether p is q or lies below it.
func (p path) under(q path) bool {
	if len(p) < len(q) {
		return false
	}
	for i := range q {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// maxPath is how many steps of a path are written. No key lies deeper.
const maxPath = 10

// pathText joins a path as upstreams.openai.limits.requests[0].per. A name that
// would be hard to read stands in quotes.
func pathText(p path) string {
	var b strings.Builder
	for i, step := range p {
		if i == maxPath {
			b.WriteString("...")
			break
		}
		if _, ok := stepIndex(step); ok {
			b.WriteString(step)
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		if isPlain(step) {
			b.WriteString(step)
		} else {
			b.WriteString(quote(step))
		}
	}
	return b.String()
}

func isPlain(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"'[]\`, c) >= 0 {
			return false
		}
	}
	return name != "" && len(name) <= 60
}

func stepIndex(step string) (int, bool) {
	inner, ok := strings.CutPrefix(step, "[")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(inner, "]"))
	return n, err == nil && n >= 0 && step == indexStep(n)
}

// locate returns the node at the end of a path through the decoded configuration,
// or the last one that exists on the way; its path in the file; and the rest of the
// path. Steps that a short form leaves out are skipped: the index where one entry
// stands in place of a list, the key where a bare value or list stands in place of
// a mapping.
func (d *document) locate(p path) (n *yaml.Node, inFile, rest path) {
	n = d.root
	for i, step := range p {
		index, isIndex := stepIndex(step)
		switch {
		case n.Kind == yaml.SequenceNode && isIndex && index < len(n.Content):
			n = resolve(n.Content[index])
			inFile = append(inFile, step)
		case n.Kind == yaml.SequenceNode && !isIndex:
			continue
		case n.Kind == yaml.ScalarNode && !isNull(n):
			return n, inFile, nil
		case n.Kind == yaml.MappingNode:
			value := d.entry(n, step)
			if value == nil && isIndex {
				continue
			}
			if value == nil {
				return n, inFile, p[i:]
			}
			n = resolve(value)
			inFile = append(inFile, step)
		default:
			return n, inFile, p[i:]
		}
	}
	return n, inFile, nil
}

// entry is lookup with an index, which the tree must not outgrow.
func (d *document) entry(mapping *yaml.Node, name string) *yaml.Node {
	entries, ok := d.entries[mapping]
	if !ok {
		entries = make(map[string]*yaml.Node, len(mapping.Content)/2)
		for i := len(mapping.Content) - 2; i >= 0; i -= 2 { // the first of equal keys counts
			if k := mapping.Content[i]; k.Kind == yaml.ScalarNode {
				entries[k.Value] = mapping.Content[i+1]
			}
		}
		d.entries[mapping] = entries
	}
	return entries[name]
}

// find returns the path of a node as it stands in the file, and the node of the
// key it belongs to; that is nil for the root and for the entries of a list.
func (d *document) find(target *yaml.Node) (p path, key *yaml.Node) {
	// The path is put together on the way back, from its end.
	var walk func(n *yaml.Node) bool
	walk = func(n *yaml.Node) bool {
		if n == target {
			return true
		}
		for i, child := range n.Content {
			if !walk(child) {
				continue
			}
			if n.Kind == yaml.SequenceNode {
				p = append(p, indexStep(i))
				return true
			}
			name := n.Content[i&^1]
			if child == target {
				key = name
			}
			p = append(p, name.Value)
			return true
		}
		return false
	}
	walk(d.root)
	slices.Reverse(p)
	return p, key
}

// lookup returns the value of a mapping's entry, nil when there is none.
func lookup(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if k := mapping.Content[i]; k.Kind == yaml.ScalarNode && k.Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// resolve returns the node that an alias stands for. The checks of the tree have
// made sure that this ends.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// isNull says whether nothing stands at a node: no text, ~ or null.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && n.Style&quoted == 0
}

const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
