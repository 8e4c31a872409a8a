package config

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const referenceFile = "../docs/configuration.md"

// The checked-in reference is the one that the tags make. Mend it with -update.
func TestReference(t *testing.T) {
	got := makeReference(t)
	if *update {
		if err := os.WriteFile(referenceFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(referenceFile)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale (%v): run go test ./config -run 'TestSchema|TestReference' -update", referenceFile, err)
	}
}

func makeReference(t *testing.T) []byte {
	intro, err := os.ReadFile("testdata/configuration-intro.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("testdata/good-example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var variables strings.Builder
	for _, p := range providers {
		fmt.Fprintf(&variables, "| `%s` | key of the upstream `%s`, %s |\n", p.keyVariable, p.name, p.baseURL)
	}
	variables.WriteString("| `OPENAI_UPSTREAM_URL` | base URL of `openai`; `OPENAI_BASE_URL` is where clients look for Penstock |\n")
	for _, s := range settingVariables {
		fmt.Fprintf(&variables, "| `%s` | `%s` |\n", s.variable, pathText(s.key))
	}
	text := strings.NewReplacer("{{example}}", string(example), "{{variables}}", variables.String()).Replace(string(intro))
	var out bytes.Buffer
	out.WriteString("<!-- Made from the tags in config/config.go: go test ./config -run TestReference -update -->\n\n")
	out.WriteString(text)
	out.WriteString("## Keys\n")
	for _, typ := range structTypes() {
		writeSection(&out, typ)
	}
	return out.Bytes()
}

// writeSection writes the table of one struct type: for each key form, default,
// meaning and example.
func writeSection(out *bytes.Buffer, typ reflect.Type) {
	places := placesOf(typ)
	fmt.Fprintf(out, "\n### %s\n\nWhere: %s.\n", titleOf(typ), code(places))
	if typ == reflect.TypeFor[Timeouts]() {
		out.WriteString("Under an upstream, a key that is left out follows the general section.\n")
	}
	if short := shortForms[typ]; short != "" {
		fmt.Fprintf(out, "Short form: %s.\n", short)
	}
	out.WriteString("\n| key | form | default | meaning | example |\n|---|---|---|---|---|\n")
	for _, f := range fieldsOf(typ) {
		def := "–"
		switch {
		case f.required:
			def = "required"
		case f.def != "":
			def = "`" + f.def + "`"
		}
		example := "–"
		if text := exampleOf(f); text != "" {
			example = "`" + text + "`"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", f.key, formOf(f), def, cell(f.description), example)
	}
}

var shortForms = map[reflect.Type]string{
	reflect.TypeFor[Slots]():       "the number alone, `concurrency: 20`",
	reflect.TypeFor[Rate]():        "`requests: 500/min`; windows are `s`, `min`, `hour`, `day` or a duration; `[10/s, 500/min]` for several",
	reflect.TypeFor[Budget]():      "`budget: $100/month`; `[$10/day, $100/month]` for several",
	reflect.TypeFor[Price]():       "the price of input alone, `text-embedding-3-small: 0.02`; a list of entries for several, of which the last one that applies counts",
	reflect.TypeFor[Route]():       "the name of an upstream, `gpt-4o: openai`, or a list, `gpt-4o: [openai, azure]`",
	reflect.TypeFor[RouteTarget](): "the name of the upstream alone",
}

// placesOf returns the paths at which a struct type stands, NAME for names that
// users give.
func placesOf(typ reflect.Type) []string {
	switch typ {
	case reflect.TypeFor[Config]():
		return []string{"top level"}
	case reflect.TypeFor[Rate]():
		return []string{"limits.requests", "limits.tokens", "limits.input_tokens", "limits.output_tokens"}
	case reflect.TypeFor[Budget]():
		return []string{"limits.budget"}
	}
	var places []string
	var visit func(t reflect.Type, at string)
	visit = func(t reflect.Type, at string) {
		switch t.Kind() {
		case reflect.Pointer:
			visit(t.Elem(), at)
		case reflect.Slice:
			visit(t.Elem(), at+"[]")
		case reflect.Map:
			visit(t.Elem(), at+".NAME")
		case reflect.Struct:
			if t == typ && at != "" {
				places = append(places, strings.TrimPrefix(at, "."))
			}
			for _, f := range fieldsOf(t) {
				visit(f.typ, at+"."+f.key)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
	return places
}

// titleOf returns the heading of a type: its place, or the key that its places
// share.
func titleOf(typ reflect.Type) string {
	places := placesOf(typ)
	switch {
	case typ == reflect.TypeFor[Rate]():
		return "rate"
	case typ == reflect.TypeFor[Budget]():
		return "budget"
	case typ == reflect.TypeFor[Price]():
		return "price"
	case len(places) == 1:
		return strings.TrimSuffix(places[0], "[]")
	}
	return places[0][strings.LastIndex(places[0], ".")+1:]
}

func formOf(f field) string {
	if len(f.enum) > 0 {
		return anyOf(quoteAll(f.enum))
	}
	return formOfType(f.typ, f)
}

func formOfType(t reflect.Type, f field) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Amount]():
		return "amount"
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[Money]():
		return "money"
	case reflect.TypeFor[Budgets]():
		return "budget or list of [budgets](#budget)"
	case reflect.TypeFor[Rates]():
		return "rate or list of [rates](#rate)"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return formOfType(t.Elem(), f)
	case reflect.Slice:
		return "list of " + formOfType(t.Elem(), f)
	case reflect.Map:
		return "mapping of names to " + formOfType(t.Elem(), f)
	case reflect.Struct:
		return "[" + titleOf(t) + "](#" + anchors()[t] + ")"
	case reflect.Bool:
		return "`true` or `false`"
	case reflect.String:
		return "text"
	}
	switch {
	case f.min != nil && f.max != nil:
		return fmt.Sprintf("number from %d to %d", *f.min, *f.max)
	case f.min != nil:
		return fmt.Sprintf("number, at least %d", *f.min)
	}
	return "number"
}

var notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// anchors returns the fragments under which the headings of the types are found, by
// the rule of common Markdown renderers.
func anchors() map[reflect.Type]string {
	all := map[reflect.Type]string{}
	for _, t := range structTypes() {
		all[t] = anchorOf(titleOf(t))
	}
	return all
}

func anchorOf(title string) string {
	return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

// exampleOf returns a line of the file, or "" for a section.
func exampleOf(f field) string {
	value := f.example
	switch kind := f.typ; {
	case value != "" && kind.Kind() == reflect.Map:
		value = "{" + value + "}"
	case value != "":
	case len(f.enum) > 0:
		value = f.enum[len(f.enum)-1]
	case f.def == "true":
		value = "false"
	case f.def == "false":
		value = "true"
	default:
		value = f.def
	}
	if value == "" {
		return ""
	}
	return f.key + ": " + value
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func quoteAll(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "`" + w + "`"
	}
	return quoted
}

func code(places []string) string {
	if len(places) == 1 && strings.Contains(places[0], " ") {
		return places[0]
	}
	return strings.Join(quoteAll(places), ", ")
}

// Every example of the reference is a line that the file may hold.
func TestReferenceExamples(t *testing.T) {
	env := func(string) (string, bool) { return "0123456789abcdef", true }
	count := 0
	for _, typ := range structTypes() {
		for _, f := range fieldsOf(typ) {
			text := exampleOf(f)
			if text == "" {
				continue
			}
			count++
			d, err := parseTree([]byte(text), "example.yaml")
			if err != nil {
				t.Errorf("%v: %v", typ, err)
				continue
			}
			found := d.expand(env)
			var dec decoder
			value := lookup(d.root, f.key)
			if value == nil || value.Kind == yaml.MappingNode && f.typ.Kind() != reflect.Map {
				t.Errorf("%v: %q is no line of the file", typ, text)
				continue
			}
			item := reflect.New(f.typ).Elem()
			dec.value(value, item)
			dec.bounds(value, item, f)
			if found = append(found, dec.found...); len(found) > 0 {
				t.Errorf("%v: %q: %v", typ, text, found)
			}
		}
	}
	if count < 80 {
		t.Errorf("only %d examples", count)
	}
}

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)]+)\)`)
	headingPattern = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// Every link of the reference leads to a heading of it, or to a file.
func TestReferenceLinks(t *testing.T) {
	text := string(makeReference(t))
	headings := map[string]bool{}
	prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	for _, m := range headingPattern.FindAllStringSubmatch(prose, -1) {
		if headings[anchorOf(m[1])] {
			t.Errorf("two headings %q", m[1])
		}
		headings[anchorOf(m[1])] = true
	}
	links := linkPattern.FindAllStringSubmatch(text, -1)
	if len(links) < 20 {
		t.Errorf("only %d links", len(links))
	}
	for _, m := range links {
		target := m[1]
		if fragment, ok := strings.CutPrefix(target, "#"); ok {
			if !headings[fragment] {
				t.Errorf("no heading for %s", target)
			}
			continue
		}
		if _, err := os.Stat("../docs/" + target); err != nil {
			t.Error(err)
		}
	}
}
