package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A Problem is one fault of the configuration. It never holds a secret, nor the
// value of an environment variable.
type Problem struct {
	File    string // path of the file as given to Load; "environment" for a variable
	Line    int    // from 1; 0 for a variable
	Column  int    // from 1, in characters; 0 for a variable
	Key     string // path of the key, such as upstreams.openai.base_url, or name of the variable; may be empty
	Message string // what is wrong and what was expected
}

// String writes the problem on one line: file:line:column: key: message.
func (p Problem) String() string {
	text := p.File
	if p.Line > 0 {
		text += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	if p.Key != "" {
		text += ": " + p.Key
	}
	return text + ": " + p.Message
}

// Errors are all problems of a configuration, in the order of the file. Load and
// FromEnvironment return it as their error, never empty.
type Errors []Problem

// Error writes one problem on each line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// A fault is a problem at a node of the YAML tree.
type fault struct {
	node  *yaml.Node
	rest  path // what is meant below node, but does not stand there
	text  string
	got   got    // whether the message goes on to what stands at the node
	hint  string // end of the message, after that
	onKey bool   // the fault lies in the node's key, not in its value
}

// got says how a message speaks of what stands at a node.
type got int

const (
	gotSilent got = iota // not at all: it is a secret, or says nothing
	gotKind              // text, a list, a mapping or nothing
	gotValue             // the text itself, as it is in the file
)

// faults is the error that UnmarshalYAML methods of this package return.
type faults []fault

// Error writes the faults without their place in the file, for callers who decode
// a single value of this package with the YAML library.
func (f faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = fmt.Sprintf("line %d: %s", one.node.Line, one.text)
	}
	return strings.Join(lines, "\n")
}

// maxProblems bounds the work and the text for a file that is wrong throughout.
const maxProblems = 100

// report turns faults into the error of Load. It returns nil when there are none.
func (d *document) report(found faults) error {
	if len(found) == 0 {
		return nil
	}
	slices.SortStableFunc(found, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.node.Line, b.node.Line), cmp.Compare(a.node.Column, b.node.Column))
	})
	var all Errors
	for _, f := range found[:min(len(found), maxProblems)] {
		all = append(all, d.problem(f))
	}
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	all = slices.Compact(all)
	if len(found) > maxProblems {
		last := all[len(all)-1]
		all = append(all, Problem{
			File: last.File, Line: last.Line, Column: last.Column,
			Message: "more problems are not shown; mend these first",
		})
	}
	return all
}

// problem says where a fault lies.
func (d *document) problem(f fault) Problem {
	if name := d.variables[f.node]; name != "" {
		return Problem{File: "environment", Key: name, Message: f.text}
	}
	path, key := d.find(f.node)
	at := f.node
	if key != nil && (f.onKey || f.node.Kind != yaml.ScalarNode) {
		at = key
	}
	path = append(path, f.rest...)
	p := Problem{
		File: d.file, Line: at.Line, Column: at.Column,
		Key: pathText(path), Message: f.text,
	}
	if f.got != gotSilent {
		p.Message += ", got " + d.describe(f.node, f.got)
	}
	p.Message += f.hint
	return p
}

// describe says what stands at a node. Text is shown as it is in the file, before
// any variable was put in.
func (d *document) describe(n *yaml.Node, how got) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case how == gotKind:
		return "text"
	}
	return quote(d.text(n))
}

// text returns a scalar as it stands in the file.
func (d *document) text(n *yaml.Node) string {
	if raw, ok := d.raw[n]; ok {
		return raw
	}
	return n.Value
}

// quote writes text in quotes, shortened.
func quote(text string) string {
	if runes := []rune(text); len(runes) > 60 {
		text = string(runes[:57]) + "..."
	}
	return fmt.Sprintf("%q", text)
}
