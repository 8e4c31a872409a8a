package config

import (
	"reflect"
	"strings"
)

// unknownKey says that a key is unknown, and which one was probably meant: one of
// the same mapping, or one of a mapping within it. It returns the message and the
// key of this mapping that was meant, "" when none comes to mind.
func unknownKey(name string, fields []field) (text, meant string) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	if near := nearest(name, names); near != "" {
		return "unknown key, did you mean " + near + "?", near
	}
	for _, f := range fields {
		t := f.typ
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			continue
		}
		for _, inner := range fieldsOf(t) {
			if inner.key == name {
				return "unknown key, did you mean " + f.key + "." + name + "?", f.key
			}
		}
	}
	return "unknown key, expected " + anyOf(names), ""
}

// maxCandidates bounds the work for one suggestion.
const maxCandidates = 1000

// nearest returns the candidate that a misspelt name most likely stands for, or ""
// when none is near.
func nearest(name string, candidates []string) string {
	best, bestDistance := "", len(name)/3+1
	if len(name) > 64 || len(candidates) > maxCandidates {
		return ""
	}
	for _, c := range candidates {
		if d := distance(plainKey(name), plainKey(c)); d < bestDistance || d == bestDistance && best == "" && d <= 2 {
			best, bestDistance = c, d
		}
	}
	return best
}

// plainKey makes apiKey, api-key and API_KEY the same.
func plainKey(name string) string {
	return strings.ToLower(separators.Replace(name))
}

var separators = strings.NewReplacer("-", "", "_", "", " ", "")

// distance is the number of letters to insert, delete, replace or swap with their
// neighbour that turns a into b (optimal string alignment).
func distance(a, b string) int {
	older, old := []int{}, make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old = old, row
	}
	return old[len(b)]
}
