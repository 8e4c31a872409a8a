package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"
)

// A schemaCheck checks values against a JSON Schema, as far as ours goes. It
// refuses keywords that it does not know.
type schemaCheck struct{ root map[string]any }

func (v schemaCheck) check(schema map[string]any, value any, at string) error {
	if day, ok := value.(time.Time); ok {
		value = day.Format(time.DateOnly) // an editor takes a date for text
	}
	for keyword, arg := range schema {
		if err := v.keyword(keyword, arg, schema, value, at); err != nil {
			return err
		}
	}
	return nil
}

func (v schemaCheck) keyword(keyword string, arg any, schema map[string]any, value any, at string) error {
	object, isObject := value.(map[string]any)
	number, isNumber := numberOf(value)
	text, isText := value.(string)
	switch keyword {
	case "$schema", "$defs", "title", "description", "default", "examples":
	case "$ref":
		name := arg.(string)[len("#/$defs/"):]
		return v.check(v.root["$defs"].(map[string]any)[name].(map[string]any), value, at)
	case "oneOf":
		matches := 0
		var last error
		for _, one := range arg.([]any) {
			if err := v.check(one.(map[string]any), value, at); err == nil {
				matches++
			} else {
				last = err
			}
		}
		if matches != 1 {
			return fmt.Errorf("%s: %d forms match, last: %w", at, matches, last)
		}
	case "type":
		names, several := arg.([]any)
		if !several {
			names = []any{arg}
		}
		if !slices.ContainsFunc(names, func(name any) bool { return hasType(value, name.(string)) }) {
			return fmt.Errorf("%s: %v is no %v", at, value, arg)
		}
	case "properties":
		for key, inner := range arg.(map[string]any) {
			if item, ok := object[key]; ok {
				if err := v.check(inner.(map[string]any), item, at+"."+key); err != nil {
					return err
				}
			}
		}
	case "additionalProperties":
		known, _ := schema["properties"].(map[string]any)
		for key, item := range object {
			if _, ok := known[key]; ok {
				continue
			}
			inner, ok := arg.(map[string]any)
			if !ok {
				return fmt.Errorf("%s: unknown key %s", at, key)
			}
			if err := v.check(inner, item, at+"."+key); err != nil {
				return err
			}
		}
	case "required":
		for _, key := range arg.([]any) {
			if _, ok := object[key.(string)]; isObject && !ok {
				return fmt.Errorf("%s: %s is missing", at, key)
			}
		}
	case "items":
		list, _ := value.([]any)
		for i, item := range list {
			if err := v.check(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "enum":
		if !slices.Contains(arg.([]any), value) {
			return fmt.Errorf("%s: %v is none of %v", at, value, arg)
		}
	case "pattern":
		if isText && !regexp.MustCompile(arg.(string)).MatchString(text) {
			return fmt.Errorf("%s: %s does not match", at, text)
		}
	case "minimum":
		if isNumber && number < arg.(float64) {
			return fmt.Errorf("%s: %v is below %v", at, value, arg)
		}
	case "maximum":
		if isNumber && number > arg.(float64) {
			return fmt.Errorf("%s: %v is above %v", at, value, arg)
		}
	default:
		return fmt.Errorf("%s: keyword %s is not known to this test", at, keyword)
	}
	return nil
}

func numberOf(value any) (float64, bool) {
	switch n := value.(type) {
	case int:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

func hasType(value any, name string) bool {
	number, isNumber := numberOf(value)
	switch name {
	case "object":
		_, ok := value.(map[string]any)
		return ok
	case "array":
		_, ok := value.([]any)
		return ok
	case "string":
		_, ok := value.(string)
		return ok
	case "boolean":
		_, ok := value.(bool)
		return ok
	case "number":
		return isNumber
	case "integer":
		return isNumber && number == math.Trunc(number)
	case "null":
		return value == nil
	}
	return false
}
