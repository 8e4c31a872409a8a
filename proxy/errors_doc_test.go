package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/auth"
	"penstock/breaker"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
	"penstock/route"
)

// everyError has one error for each code that a client can be told.
func everyError() []error {
	all := []error{
		errTooLarge, errEncoding, errBodyTimeout, errFraming, errMethod, errCrossOrigin, errUncheckedModel, errUpgrade, errAdminAPI,
		errDescriptors, errPath, errUnpriced, errInternal, errTotal, errCut, errGone, auth.ErrMissing, auth.ErrUnknown, route.ErrUnknownModel, route.ErrNotAllowed,
		unavailable("memory_full", "", time.Second), &breaker.OpenError{After: time.Second},
		&limits.Unavailable{Limit: &limits.Limit{}, RetryAfter: time.Second},
	}
	limit := &limits.Limit{Dimension: limits.Requests, Amount: 1, Window: time.Minute}
	for _, reason := range []limits.Reason{limits.ReasonLimit, limits.ReasonQueueFull, limits.ReasonPredicted, limits.ReasonTimeout, limits.ReasonTooLarge} {
		all = append(all, &limits.Exceeded{Limit: limit, Reason: reason, RetryAfter: time.Second})
	}
	all = append(all, &limits.Exceeded{Limit: &limits.Limit{Dimension: limits.Spend, Amount: 1, Monthly: true}, Reason: limits.ReasonLimit, RetryAfter: time.Hour})
	for _, code := range []string{openai.CodeInvalidJSON, openai.CodeInvalidMultipart, openai.CodeDuplicateKey, openai.CodeAmbiguousKey,
		openai.CodeInvalidValue, openai.CodeMissingModel} {
		all = append(all, &openai.RequestError{Code: code})
	}
	for code := range timeLimits {
		all = append(all, &provider.Error{Kind: provider.KindHealth, Code: code})
	}
	for _, code := range []string{"connect", "dns", "tls", "reset", "truncated", "not_json", "protocol"} {
		all = append(all, &provider.Error{Kind: provider.KindHealth, Code: code})
	}
	return append(all,
		&provider.Error{Kind: provider.KindHealth, Status: 500, Code: "status_500"},
		&provider.Error{Kind: provider.KindCredential, Status: 401, Code: "status_401"},
		&provider.Error{Kind: provider.KindCapacity, Status: 429, Code: "status_429"},
		&provider.Error{Kind: provider.KindBilling, Status: 429, Code: "billing"})
}

// docs/errors.md has a row for every code, with its status, and no others; and
// everyError has all the codes that stand in the source.
func TestErrorsAreDocumented(t *testing.T) {
	told := map[string]string{}
	for _, err := range everyError() {
		e := describe(err)
		told[e.Code] = strconv.Itoa(e.Status)
	}
	text, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d+) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	for _, code := range slices.Sorted(maps.Keys(told)) {
		if documented[code] != told[code] {
			t.Errorf("docs/errors.md: %s has status %q, want %s", code, documented[code], told[code])
		}
	}
	for code := range documented {
		if told[code] == "" {
			t.Errorf("docs/errors.md has %s, which nobody is told", code)
		}
	}
	for _, code := range codesInSource(t) {
		if told[code] == "" {
			t.Errorf("%s stands in the source and not in everyError", code)
		}
	}
}

// codesInSource finds the codes of errors as literals: fields and variables called
// Code, arguments of invalid and unavailable, and constants whose names begin with
// Code.
func codesInSource(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	adapters, err := filepath.Glob("../provider/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := literals{}
	for _, name := range append(files, adapters...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				found.inStruct(n)
			case *ast.AssignStmt:
				found.assigned(n)
			case *ast.CallExpr:
				found.passed(n)
			case *ast.ValueSpec:
				found.constants(n)
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}

type literals map[string]bool

func (l literals) add(e ast.Expr, prefix string) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return
	}
	code := strings.Trim(lit.Value, `"`)
	if _, timeLimit := timeLimits[code]; !timeLimit {
		code = prefix + code
	}
	l[code] = true
}

// inStruct takes the Code of an apiError, which has a Message, and of an upstream's
// failure, which the client is told with a prefix.
func (l literals) inStruct(n *ast.CompositeLit) {
	var code ast.Expr
	ours, health := false, false
	for _, elt := range n.Elts {
		kv, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			return
		}
		key, _ := kv.Key.(*ast.Ident)
		kind, _ := kv.Value.(*ast.SelectorExpr)
		ours = ours || key != nil && key.Name == "Message"
		health = health || kind != nil && kind.Sel.Name == "KindHealth"
		if key != nil && key.Name == "Code" {
			code = kv.Value
		}
	}
	switch {
	case ours:
		l.add(code, "")
	case health:
		l.add(code, "upstream_")
	}
}

func (l literals) assigned(n *ast.AssignStmt) {
	for i, left := range n.Lhs {
		s, ok := left.(*ast.SelectorExpr)
		if !ok || s.Sel.Name != "Code" || len(n.Rhs) != len(n.Lhs) {
			continue
		}
		if of, ok := s.X.(*ast.Ident); ok && of.Name == "out" {
			l.add(n.Rhs[i], "")
		}
	}
}

func (l literals) passed(n *ast.CallExpr) {
	f, ok := n.Fun.(*ast.Ident)
	switch {
	case ok && f.Name == "invalid":
		l.add(n.Args[1], "")
	case ok && f.Name == "unavailable":
		l.add(n.Args[0], "")
	}
}

func (l literals) constants(n *ast.ValueSpec) {
	for i, id := range n.Names {
		if strings.HasPrefix(id.Name, "Code") && i < len(n.Values) {
			l.add(n.Values[i], "")
		}
	}
}
