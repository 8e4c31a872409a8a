package config

import (
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// A field is what the tags of a struct field say about its key in the file. The
// tags are the one description of the file: decoding, defaults, the JSON schema
// and the reference are all made from them.
type field struct {
	index       int
	key         string
	description string
	required    bool
	def         string // default, "" for none
	example     string
	enum        []string
	min, max    *int64
	inherit     bool // absent keys follow the general section of the same name
	typ         reflect.Type
}

// rootFields are the sections of the file.
var rootFields = fieldsOf(reflect.TypeFor[Config]())

// fieldCache holds the fields of the struct types of this package, by type.
var fieldCache sync.Map

// fieldsOf returns what the tags of a struct type say, in the order of its fields.
// Unexported fields are left out. The result is shared: it must not be changed.
func fieldsOf(t reflect.Type) []field {
	if all, ok := fieldCache.Load(t); ok {
		return all.([]field)
	}
	all := readFields(t)
	fieldCache.Store(t, all)
	return all
}

func readFields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key, options, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if !sf.IsExported() || key == "" {
			continue
		}
		f := field{
			index: i, key: key, typ: sf.Type,
			description: sf.Tag.Get("jsonschema_description"),
			required:    options != "omitempty",
			inherit:     sf.Tag.Get("penstock") == "inherit",
		}
		f.readKeywords(sf.Tag.Get("jsonschema"))
		all = append(all, f)
	}
	return all
}

// readKeywords reads the jsonschema tag: keyword=value, separated by commas.
func (f *field) readKeywords(tag string) {
	for part := range strings.SplitSeq(tag, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "default":
			f.def = value
		case "example":
			f.example = value
		case "enum":
			f.enum = append(f.enum, value)
		case "minimum":
			f.min = parseBound(value)
		case "maximum":
			f.max = parseBound(value)
		}
	}
}

func parseBound(text string) *int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// mayBeZero says whether 0 is allowed where the type alone would not say so.
func (f *field) mayBeZero() bool { return f.min != nil && *f.min <= 0 }
