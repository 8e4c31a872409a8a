package config

import (
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Default returns the configuration of an empty file, but without upstreams. Every
// key that has a default holds it.
func Default() Config {
	var c Config
	applyDefaults(reflect.ValueOf(&c).Elem())
	return c
}

// applyDefaults sets every zero field within v to the default in its tags. It
// enters structs and lists, not maps.
func applyDefaults(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			applyDefaults(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			applyDefaults(v.Index(i))
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			item := v.Field(f.index)
			if f.def == "" || !item.IsZero() {
				applyDefaults(item)
				continue
			}
			n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.def}
			if err := decode(n, item.Addr().Interface()); err != nil {
				panic("config: default of " + f.key + ": " + err.Error())
			}
		}
	}
}

// Or returns t with the times of base where t says nothing. The result shares its
// pointers with both.
func (t Timeouts) Or(base Timeouts) Timeouts {
	or := func(a, b *Duration) *Duration {
		if a == nil {
			return b
		}
		return a
	}
	return Timeouts{
		Connect:    or(t.Connect, base.Connect),
		Headers:    or(t.Headers, base.Headers),
		FirstToken: or(t.FirstToken, base.FirstToken),
		Idle:       or(t.Idle, base.Idle),
		Total:      or(t.Total, base.Total),
		Attempts:   or(t.Attempts, base.Attempts),
		Session:    or(t.Session, base.Session),
	}
}

// resolve fills in what the named parts of a decoded configuration leave out, so
// that every upstream, model, route, team and key is complete.
func (c *Config) resolve() {
	if c.Redis != nil {
		applyDefaults(reflect.ValueOf(c.Redis).Elem())
	}
	for name, u := range c.Upstreams {
		u.BaseURL = strings.TrimRight(u.BaseURL, "/")
		u.Timeouts = u.Timeouts.Or(c.Timeouts)
		applyDefaults(reflect.ValueOf(&u).Elem())
		if u.Accounting.Output == "" {
			u.Accounting.Output = outputCounted(u.BaseURL)
		}
		u.Limits.resolve("wait")
		for model, m := range u.Models {
			applyDefaults(reflect.ValueOf(&m).Elem())
			m.Limits.resolve("wait")
			u.Models[model] = m
		}
		c.Upstreams[name] = u
	}
	for name, r := range c.Models {
		applyDefaults(reflect.ValueOf(&r).Elem())
		c.Models[name] = r
	}
	for name, t := range c.Teams {
		t.resolve()
		c.Teams[name] = t
	}
	if c.DefaultUpstream == "" && len(c.Upstreams) > 0 {
		c.DefaultUpstream = sortedKeys(c.Upstreams)[0]
	}
}

func (t *Team) resolve() {
	applyDefaults(reflect.ValueOf(t).Elem())
	t.Limits.resolve("refuse")
	for i := range t.Keys {
		t.Keys[i].Limits.resolve("refuse")
	}
}

// resolve fills in burst and on_limit of all rates.
func (l *Limits) resolve(onLimit string) {
	for _, rates := range []Rates{l.Requests, l.Tokens, l.InputTokens, l.OutputTokens} {
		for i := range rates {
			r := &rates[i]
			if r.OnLimit == "" {
				r.OnLimit = onLimit
			}
			if r.Burst == 0 && r.Limit > 0 && r.Per > 0 {
				r.Burst = r.defaultBurst()
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
