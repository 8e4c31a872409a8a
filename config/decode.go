package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decode fills the value that v points to from a node, strictly: unknown keys,
// wrong types, missing keys and values outside of what the tags allow are faults.
// What the node does not mention keeps its value. The error is nil or a faults
// with everything that is wrong.
//
// It stands in for the decoder of the YAML library, whose errors name Go types and
// repeat values.
func decode(n *yaml.Node, v any) error {
	var d decoder
	d.value(n, reflect.ValueOf(v).Elem())
	if len(d.found) == 0 {
		return nil
	}
	return d.found
}

type decoder struct{ found faults }

// full says whether more faults would not be shown.
func (d *decoder) full() bool { return len(d.found) > maxProblems }

// expected notes that another value stands at n.
func (d *decoder) expected(n *yaml.Node, text string) {
	d.found = append(d.found, fault{node: n, text: "expected " + text, got: gotValue})
}

// expectedKind notes that something of another kind stands at n. Text there is not
// shown: it may be a secret in the wrong place.
func (d *decoder) expectedKind(n *yaml.Node, text string) {
	d.found = append(d.found, fault{node: n, text: "expected " + text, got: gotKind})
}

// value decodes one node into v, which is addressable.
func (d *decoder) value(n *yaml.Node, v reflect.Value) {
	n = resolve(n)
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(yaml.Unmarshaler); ok {
		var inner faults
		if err := u.UnmarshalYAML(n); errors.As(err, &inner) {
			d.found = append(d.found, inner...)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.Slice:
		d.list(n, v)
	default:
		d.scalar(n, v)
	}
}

// structure decodes a mapping whose keys are the fields of a struct. Nothing at
// all is an empty mapping.
func (d *decoder) structure(n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	if n.Kind != yaml.MappingNode && !isNull(n) {
		d.expectedKind(n, "a mapping with "+keyList(fields))
		return
	}
	meant := map[string]bool{} // keys that a misspelt one stands for
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind != yaml.ScalarNode {
			continue // known to be wrong from the check of the tree
		}
		if d.full() {
			return
		}
		name := n.Content[i].Value
		at := slices.IndexFunc(fields, func(f field) bool { return f.key == name })
		if at < 0 {
			text, near := unknownKey(name, fields)
			meant[near] = true
			d.found = append(d.found, fault{node: n.Content[i+1], onKey: true, text: text})
			continue
		}
		before := len(d.found)
		d.value(n.Content[i+1], v.Field(fields[at].index))
		if len(d.found) == before {
			d.bounds(n.Content[i+1], v.Field(fields[at].index), fields[at])
		}
	}
	for _, f := range fields {
		if f.required && !meant[f.key] && lookup(n, f.key) == nil {
			text := "is missing"
			if f.example != "" {
				text += "; for example " + f.key + ": " + f.example
			}
			d.found = append(d.found, fault{node: n, rest: path{f.key}, text: text})
		}
	}
}

// mapping decodes a mapping whose keys are names that the user gives.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		if !isNull(n) {
			d.expectedKind(n, "a mapping of names to their settings")
		}
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind != yaml.ScalarNode {
			continue // known to be wrong from the check of the tree
		}
		if d.full() {
			return
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], item)
		// A name whose settings are wrong still exists, for what refers to it.
		v.SetMapIndex(reflect.ValueOf(n.Content[i].Value), item)
	}
}

// list decodes a list. One entry may stand in its place where it can be told from
// a list: text, and what has a short form.
func (d *decoder) list(n *yaml.Node, v reflect.Value) {
	item := v.Type().Elem()
	_, short := reflect.New(item).Interface().(yaml.Unmarshaler)
	entries := n.Content
	switch {
	case isNull(n):
		return
	case n.Kind == yaml.SequenceNode:
	case short || item.Kind() == reflect.String && n.Kind == yaml.ScalarNode:
		entries = []*yaml.Node{n}
	default:
		d.expectedKind(n, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(entries), len(entries)))
	for i, entry := range entries {
		if d.full() {
			return
		}
		d.value(entry, v.Index(i))
	}
}

// scalar decodes text, a boolean or a number.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value) {
	plain := n.Kind == yaml.ScalarNode && n.Style&quoted == 0
	switch v.Kind() {
	case reflect.String:
		if n.Kind != yaml.ScalarNode || isNull(n) {
			d.expected(n, "text")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if !plain || n.Value != "true" && n.Value != "false" {
			d.expected(n, "true or false"+withoutQuotes(n))
			return
		}
		v.SetBool(n.Value == "true")
	case reflect.Int, reflect.Int64:
		digits := strings.TrimPrefix(n.Value, "-")
		switch {
		case !plain || !isDigits(digits):
			d.expected(n, "a whole number"+withoutQuotes(n))
			return
		case len(digits) > 1 && digits[0] == '0':
			d.expected(n, "a whole number without a leading 0")
			return
		}
		number, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil || v.OverflowInt(number) {
			d.expected(n, "a whole number below 2^63")
			return
		}
		v.SetInt(number)
	case reflect.Float64:
		number, err := strconv.ParseFloat(n.Value, 64)
		if !plain || err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
			d.expected(n, "a number"+withoutQuotes(n))
			return
		}
		v.SetFloat(number)
	default:
		panic("config: no decoding for " + v.Type().String())
	}
}

func withoutQuotes(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Style&quoted != 0 {
		return " without quotes"
	}
	return ""
}

// bounds checks a decoded value against the enum, minimum and maximum of its tags.
// Durations, sizes and amounts must be more than 0 unless the tags say otherwise.
func (d *decoder) bounds(n *yaml.Node, v reflect.Value, f field) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	n = resolve(n)
	if len(f.enum) > 0 {
		if !slices.Contains(f.enum, v.String()) {
			d.expected(n, anyOf(f.enum))
		}
		return
	}
	switch v.Interface().(type) {
	case Duration, Size, Amount:
		if v.Int() == 0 && !f.mayBeZero() {
			d.expected(n, "more than 0")
		}
		return
	}
	if v.Kind() != reflect.Int && v.Kind() != reflect.Int64 {
		return
	}
	low, high := f.min != nil && v.Int() < *f.min, f.max != nil && v.Int() > *f.max
	switch {
	case (low || high) && f.max != nil && f.min != nil:
		d.expected(n, fmt.Sprintf("a whole number from %d to %d", *f.min, *f.max))
	case low:
		d.expected(n, fmt.Sprintf("a whole number of at least %d", *f.min))
	case high:
		d.expected(n, fmt.Sprintf("a whole number of at most %d", *f.max))
	}
}

// anyOf joins alternatives: a, b or c.
func anyOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func keyList(fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	if len(names) > 6 {
		return "keys such as " + anyOf(names[:4])
	}
	return anyOf(names)
}
