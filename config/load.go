package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFile is the largest configuration file, in bytes, and maxDepth its deepest
// nesting. maxNodes bounds what aliases may multiply it to.
const (
	maxFile  = 1 << 20
	maxDepth = 32
	maxNodes = 1 << 20
)

// Load reads the file at path: strictly decoded, with variables and secret files
// put in, defaults filled in, and checked. getenv looks up environment variables,
// as os.LookupEnv does; nil stands for an empty environment. A file without
// upstreams gets those that FromEnvironment would make.
//
// The error is an Errors with all problems of the file at once, or, when the file
// cannot be read at all, the error of the operating system.
func Load(path string, getenv func(string) (string, bool)) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return parse(data, path, getenv)
}

// Reload is Load for a process that runs. A file without content is one that is
// about to be written, and no wish to go on without keys, teams and upstreams: it is
// an error.
func Reload(path string, getenv func(string) (string, bool)) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if d, err := parseTree(data, path); err == nil && len(d.root.Content) == 0 {
		return nil, d.report(faults{{node: d.root, text: "the file is empty; to go on without a configuration, start again without it"}})
	}
	return parse(data, path, getenv)
}

// readFile reads one byte more than a file may have, so that parse can tell.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// parse is Load for the content of a file. Paths of secret files are relative to
// the directory of name.
func parse(data []byte, name string, getenv func(string) (string, bool)) (*Config, error) {
	if getenv == nil {
		getenv = emptyEnvironment
	}
	d, err := parseTree(data, name)
	if err != nil {
		return nil, err
	}
	found, safe := d.checkTree()
	if !safe {
		return nil, d.report(found)
	}
	found = append(found, d.expand(getenv)...)
	found = append(found, d.addEnvironment(getenv)...)
	return d.config(found, filepath.Dir(name))
}

// config decodes and checks a tree whose variables are expanded. found are the
// faults known so far. Secret files are read relative to dir; an empty dir means
// that secrets are literal.
func (d *document) config(found faults, dir string) (*Config, error) {
	c := Default()
	var inner faults
	if err := decode(d.root, &c); errors.As(err, &inner) {
		// What is known to be wrong already is not reported twice.
		known := map[*yaml.Node]bool{}
		for _, f := range found {
			known[f.node] = true
		}
		inner = slices.DeleteFunc(inner, func(f fault) bool { return known[f.node] })
		found = append(found, inner...)
	}
	if len(found) > maxProblems {
		return nil, d.report(found) // the rest has not been read
	}
	v := newValidator(&c, d, found)
	v.secrets(dir)
	c.resolve()
	v.validate()
	if err := d.report(append(found, v.found...)); err != nil {
		return nil, err
	}
	return &c, nil
}

func emptyEnvironment(string) (string, bool) { return "", false }

// parseTree parses the one document of a file.
func parseTree(data []byte, name string) (*document, error) {
	d := newDocument(name)
	if len(data) > maxFile {
		return nil, d.report(faults{{node: d.root, text: "the file is larger than 1 MiB"}})
	}
	if f := checkText(data); f != nil {
		return nil, d.report(faults{*f})
	}
	var doc yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = loader.Load(&doc)
	}
	if errors.Is(err, io.EOF) {
		return d, nil
	}
	if err != nil {
		return nil, d.report(faults{syntaxFault(err, data)})
	}
	var second yaml.Node
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, d.report(faults{{node: &second, text: "a second document begins here; the file must be a single one"}})
	case !errors.Is(err, io.EOF):
		return nil, d.report(faults{syntaxFault(err, data)})
	}
	if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
		d.root = doc.Content[0]
	}
	return d, nil
}

// checkText finds the first byte that no YAML file may hold. The library refuses
// them too, but does not say where.
func checkText(data []byte) *fault {
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		text := ""
		switch {
		case r == utf8.RuneError && size == 1:
			text = "the file is not UTF-8 text here"
		case r < ' ' && r != '\n' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			text = "a control character stands here"
		}
		if text != "" {
			return &fault{node: &yaml.Node{Kind: yaml.ScalarNode, Line: line, Column: column}, text: text}
		}
		i, column = i+size, column+1
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return nil
}
