package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"
)

// The checked-in schema is the one that the types make. Mend it with -update.
func TestSchema(t *testing.T) {
	got := makeSchema(t)
	if *update {
		if err := os.WriteFile("schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Schema()) {
		t.Error("schema.json is stale: run go test ./config -run 'TestSchema|TestReference' -update")
	}
}

// makeSchema makes the schema from the types. The library reads types and tags;
// what it cannot know are the short forms, variables, and defaults of our own types.
func makeSchema(t *testing.T) []byte {
	r := jsonschema.Reflector{FieldNameTag: "yaml", Mapper: valueSchema, Anonymous: true}
	s := r.Reflect(&Config{})
	s.Title = "Penstock configuration"
	s.Definitions["Variable"] = &jsonschema.Schema{
		Type: "string", Pattern: `\$\{`, Description: "Text with environment variables: ${VAR} or ${VAR:-default}.",
	}
	for _, typ := range structTypes() {
		def := s.Definitions[typ.Name()]
		for _, f := range fieldsOf(typ) {
			property, ok := def.Properties.Get(f.key)
			if !ok {
				t.Fatalf("no schema for %v.%s", typ, f.key)
			}
			def.Properties.Set(f.key, finishProperty(property, f))
		}
	}
	for _, name := range []string{"Rates", "Budgets"} { // written out where they are used
		delete(s.Definitions, name)
	}
	price := &jsonschema.Schema{Ref: "#/$defs/Price"}
	s.Definitions["Prices"] = &jsonschema.Schema{OneOf: []*jsonschema.Schema{price, {Type: "array", Items: price}}}
	name := &jsonschema.Schema{Type: "string", Description: "The name of one upstream."}
	target := &jsonschema.Schema{Ref: "#/$defs/RouteTarget"}
	for name, short := range map[string][]*jsonschema.Schema{
		"Slots":       {{Type: "integer", Minimum: "1"}, variable()},
		"Rate":        {{Type: "string", Pattern: ratePattern}, variable()},
		"Budget":      {{Type: "string", Pattern: budgetPattern}, variable()},
		"Price":       {{Type: "number", Minimum: "0"}, {Type: "string", Pattern: moneyPattern}, variable()},
		"RouteTarget": {name},
		"Route":       {name, {Type: "array", Items: target}},
	} {
		s.Definitions[name] = &jsonschema.Schema{OneOf: append(short, s.Definitions[name])}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	// A section may be empty.
	return bytes.ReplaceAll(append(text, '\n'), []byte(`"type": "object"`), []byte(`"type": ["object", "null"]`))
}

const (
	durationPattern = `[0-9]+d([0-9]+(\.[0-9]+)?(ms|s|m|h))*|([0-9]+(\.[0-9]+)?(ms|s|m|h))+`
	amountPattern   = `[0-9]+(\.[0-9]+)?[kKMB]?`
	moneyPattern    = `^[$]?[0-9]+([.][0-9]+)?( USD)?$`
	budgetPattern   = `^[$]?[0-9]+([.][0-9]+)?( USD)?(/| per )(month|week|day|[1-9][0-9]*d)$`
	ratePattern     = `^` + amountPattern + `/(s|second|min|minute|h|hour|d|day|` + durationPattern + `)$`
)

func variable() *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/Variable"} }

// valueSchema returns the schemas of the types that are not what they seem.
func valueSchema(t reflect.Type) *jsonschema.Schema {
	number := &jsonschema.Schema{Type: "integer", Minimum: "0"}
	var pattern string
	switch t {
	case reflect.TypeFor[Secret]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[Money]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "number", Minimum: "0"}, {Type: "string", Pattern: moneyPattern}, variable()}}
	case reflect.TypeFor[Duration]():
		pattern, number.Maximum = durationPattern, "0"
	case reflect.TypeFor[Size]():
		pattern = `[0-9]+(\.[0-9]+)?([kKMGT]B|[KMGT]iB)?`
	case reflect.TypeFor[Amount]():
		pattern = amountPattern
	default:
		return nil
	}
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "string", Pattern: "^(" + pattern + ")$"}, number, variable(),
	}}
}

// finishProperty adds the forms that a value may have besides its own, and the
// default and example in the form of the file.
func finishProperty(s *jsonschema.Schema, f field) *jsonschema.Schema {
	outer := &jsonschema.Schema{Description: s.Description}
	s.Description, s.Default, s.Examples = "", nil, nil
	kind := f.typ
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	single := kind.Kind() == reflect.Slice && kind.Elem() != reflect.TypeFor[Key]()
	switch {
	case single:
		item := &jsonschema.Schema{Type: "string"}
		if kind.Elem().Kind() == reflect.Struct {
			item = &jsonschema.Schema{Ref: "#/$defs/" + kind.Elem().Name()}
		}
		outer.OneOf = []*jsonschema.Schema{item, {Type: "array", Items: item}}
	case len(s.Enum) > 0 || s.Type == "integer" || s.Type == "number" || s.Type == "boolean":
		outer.OneOf = []*jsonschema.Schema{s, variable()}
	default:
		s.Description = outer.Description
		outer = s
	}
	if f.def != "" {
		outer.Default = valueOf(f.def, kind)
	}
	if f.example != "" && kind.Kind() != reflect.Map {
		outer.Examples = []any{valueOf(f.example, kind)}
	}
	return outer
}

// valueOf reads the text of a tag as the JSON value that it stands for.
func valueOf(text string, t reflect.Type) any {
	switch t.Kind() {
	case reflect.Bool, reflect.Float64:
		return json.RawMessage(text)
	}
	if isDigits(text) {
		return json.RawMessage(text)
	}
	return text
}

// structTypes returns the struct types of the file, in the order of their first
// appearance.
func structTypes() []reflect.Type {
	var all []reflect.Type
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			visit(t.Elem())
		case reflect.Struct:
			if seen[t] {
				return
			}
			seen[t] = true
			all = append(all, t)
			for _, f := range fieldsOf(t) {
				visit(f.typ)
			}
		}
	}
	visit(reflect.TypeFor[Config]())
	return all
}

// What Load accepts, the schema accepts; what is wrong in form, both refuse.
func TestSchemaAgreesWithLoad(t *testing.T) {
	var root any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	v := schemaCheck{root.(map[string]any)}
	check := func(name string) error {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var content any
		if err := yaml.Load(data, &content); err != nil && !strings.Contains(err.Error(), "no documents") {
			t.Fatal(err)
		}
		return v.check(v.root, content, "")
	}
	good, err := filepath.Glob("testdata/good-*.yaml")
	if err != nil || len(good) == 0 {
		t.Fatal("no files: ", err)
	}
	for _, name := range good {
		if err := check(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"unknown-key", "unknown-key-within", "unknown-section", "misspelt-key", "wrong-type-number", "wrong-type-bool",
		"wrong-type-text", "wrong-type-mapping", "wrong-type-list", "wrong-type-team", "number-fraction", "enum", "duration-unit",
		"duration-negative", "duration-text", "size", "max-attempts", "negative-number", "ceiling-range", "base-url-missing",
		"upstream-type", "route-strategy", "route-weight", "route-target-key", "rate-text", "rate-mapping", "rate-amount-letter",
		"slots", "slots-negative", "slots-text", "team-class", "keys-as-text", "secret-mapping", "root-list", "root-text",
	} {
		if err := check("testdata/invalid-" + name + ".yaml"); err == nil {
			t.Errorf("the schema accepts invalid-%s.yaml", name)
		}
	}
}
