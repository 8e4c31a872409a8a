package route

import (
	"errors"
	"fmt"
	"testing"

	"penstock/provider"
)

func idle(string) float64 { return 0 }

func table() *Table {
	a := provider.Target{Upstream: "a", State: "a/*", Label: Other}
	b := provider.Target{Upstream: "b", State: "b/*", Label: Other}
	return &Table{
		Routes: map[string]Route{
			"gpt": {Targets: []provider.Target{
				{Upstream: "a", Model: "gpt-x", State: "a/gpt-x", Label: "gpt", Weight: 3},
				{Upstream: "b", State: "b/gpt", Label: "gpt", Weight: 1},
			}},
			Any: {Targets: []provider.Target{a}},
		},
		Default: b, Upstreams: map[string]provider.Target{"a": a, "b": b}, Seen: NewSeen(),
	}
}

func TestPlan(t *testing.T) {
	tab := table()
	for _, c := range []struct {
		model   string
		allowed []string
		want    string
		err     error
	}{
		{"gpt", nil, "a:gpt-x:a/gpt-x b::b/gpt ", nil},
		{"new", nil, "a::a/* ", nil},
		{"b/new", nil, "b:new:b/* ", nil},
		{"c/new", nil, "a::a/* ", nil},
		{"*", nil, "a::a/* ", nil},
		{"gpt", []string{"gpt"}, "a:gpt-x:a/gpt-x b::b/gpt ", nil},
		{"GPT", []string{"gpt"}, "", ErrNotAllowed},
		{"b/gpt", []string{"gpt"}, "", ErrNotAllowed},
		{"gpt ", []string{"gpt"}, "", ErrNotAllowed},
		{"b/x", []string{"gpt", "b/*"}, "b:x:b/* ", nil},
		{"gpt", []string{}, "", ErrNotAllowed},
	} {
		plan, err := tab.Plan(c.model, c.allowed, idle)
		got := ""
		for _, p := range plan {
			got += fmt.Sprintf("%s:%s:%s ", p.Upstream, p.Model, p.State)
		}
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q allowed %q: got %q, %v; want %q, %v", c.model, c.allowed, got, err, c.want, c.err)
		}
	}
	delete(tab.Routes, Any)
	if _, err := tab.Plan("b/new", nil, idle); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("without a route for any model, got %v", err)
	}
}

func TestWeightedDrawsByWeight(t *testing.T) {
	tab := table()
	r := tab.Routes["gpt"]
	r.Strategy = Weighted
	tab.Routes["gpt"] = r
	first := 0
	for range 4000 {
		plan, _ := tab.Plan("gpt", nil, idle)
		if len(plan) != 2 || plan[0] == plan[1] {
			t.Fatal("a target is missing from the plan")
		}
		if plan[0].Upstream == "a" {
			first++
		}
	}
	if first < 2800 || first > 3200 {
		t.Errorf("first %d of 4000 times, want about 3000", first)
	}
}

func TestLeastLoaded(t *testing.T) {
	tab := table()
	r := tab.Routes["gpt"]
	r.Strategy = LeastLoaded
	tab.Routes["gpt"] = r
	plan, _ := tab.Plan("gpt", nil, func(s string) float64 { return map[string]float64{"a/gpt-x": 0.5, "b/gpt": 0.2}[s] })
	if plan[0].Upstream != "b" {
		t.Error("the busier target comes first")
	}
}

// covers RES-01
func TestSeenIsBounded(t *testing.T) {
	tab := table()
	for i := range 10_000 {
		tab.Seen.Served("a", fmt.Sprint("m", i))
	}
	states := map[string]bool{}
	for i := range 10_000 {
		plan, _ := tab.Plan(fmt.Sprint("m", i), nil, idle)
		states[plan[0].State] = true
		if plan[0].Label != Other {
			t.Fatalf("label %q", plan[0].Label)
		}
	}
	if len(states) != maxSeen+1 || !states["a/m0"] {
		t.Errorf("%d states", len(states))
	}
}
