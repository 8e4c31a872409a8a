package simulate

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// docs/simulator.md names every directive, field of the configuration and field
// of the statistics, and no directive that there is not.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := func(name string) bool { return strings.Contains(string(text), "`"+name+"`") }
	for _, of := range []reflect.Type{reflect.TypeFor[LiveConfig](), reflect.TypeFor[Stats]()} {
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if !documented(name) {
				t.Errorf("%s is not documented", name)
			}
		}
	}
	_, faults, _ := strings.Cut(string(text), "| Directive |")
	faults, _, _ = strings.Cut(faults, "\n## ")
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)(=[^`]*)?` \\|").FindAllStringSubmatch(faults, -1) {
		rows[m[1]] = true
		if _, ok := directiveByName[m[1]]; !ok {
			t.Errorf("directive %s is documented, and there is none", m[1])
		}
	}
	for _, d := range directives {
		if !rows[d.name] {
			t.Errorf("directive %s has no row", d.name)
		}
	}
}
