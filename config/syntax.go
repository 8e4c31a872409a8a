package config

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// syntaxTexts says in plain words what the messages of the YAML library mean. Any
// other message becomes a general one, since some repeat text of the file, which
// may be a secret.
var syntaxTexts = map[string]string{
	"mapping values are not allowed in this context":               "a colon cannot stand here; check the indentation, and put text that holds a colon in quotes",
	"mapping keys are not allowed in this context":                 "a key cannot stand here; check the indentation",
	"block sequence entries are not allowed in this context":       "a list entry cannot stand here; begin the list on a line of its own",
	"did not find expected key":                                    "expected a key here; check the indentation",
	"did not find expected '-' indicator":                          "expected a list entry, which begins with -; check the indentation",
	"did not find expected node content":                           "expected a value here",
	"did not find expected ',' or ']'":                             "expected , or ] in this list; within [ ] and { }, a variable such as ${VAR} must be in quotes",
	"did not find expected ',' or '}'":                             "expected , or } in this mapping; within [ ] and { }, a variable such as ${VAR} must be in quotes",
	"could not find expected ':'":                                  "expected a colon after this key; check the indentation",
	"found unexpected end of stream":                               "this quote is never closed",
	"found unexpected document indicator":                          "this quote is not closed before the end of the document",
	"found unknown escape character":                               `a backslash in double quotes begins no known escape here; use single quotes, or \\`,
	"did not find expected hexadecimal number":                     "expected hexadecimal digits after this escape",
	"did not find expected alphabetic or numeric character":        "text that begins with * or & must be in quotes",
	"found undefined tag handle":                                   "text that begins with ! must be in quotes",
	"exceeded max depth of 10000":                                  "nested too deeply",
	"found a tab character that violates indentation":              "a tab cannot indent; use spaces",
	"found a tab character where an indentation space is expected": "a tab cannot indent; use spaces",
	"did not find expected <document start>":                       "expected the end of the file here; check the indentation",
	"found incompatible YAML document":                             "expected YAML version 1.1 or 1.2",
	"found unknown directive name":                                 "text that begins with % must be in quotes",
	"could not find expected directive name":                       "text that begins with % must be in quotes",
}

// syntaxFault turns an error of the YAML library into a fault.
func syntaxFault(err error, data []byte) fault {
	at := &yaml.Node{Kind: yaml.ScalarNode, Line: 1, Column: 1}
	f := fault{node: at, text: "this is not valid YAML"}
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return f
	}
	if e.Mark.Line > 0 {
		at.Line, at.Column = e.Mark.Line, max(1, e.Mark.Column)
	}
	if text, ok := syntaxTexts[e.Message]; ok {
		f.text = text
	}
	switch {
	case e.ContextMsg == "while scanning a quoted scalar" && e.Message != "found unknown escape character" && e.ContextMark.Line > 0:
		// Where the quote opens helps more than where the file ends.
		at.Line, at.Column = e.ContextMark.Line, max(1, e.ContextMark.Column)
	case e.Message == "found character that cannot start any token":
		switch c := charAt(data, at.Line, at.Column); c {
		case '\t':
			f.text = "a tab cannot indent; use spaces"
		case utf8.RuneError:
		default:
			f.text = fmt.Sprintf("text that begins with %c must be in quotes", c)
		}
	case e.Stage == yaml.ComposerStage:
		f.text = "no anchor has this name; put text that begins with * in quotes"
	}
	return f
}

// charAt returns the character at a line and column, both from 1.
func charAt(data []byte, line, column int) rune {
	for ; line > 1; line-- {
		_, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			return utf8.RuneError
		}
		data = rest
	}
	for ; column > 1; column-- {
		_, size := utf8.DecodeRune(data)
		data = data[size:]
	}
	r, _ := utf8.DecodeRune(data)
	return r
}
