package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

type teamsCommand struct {
	Create teamsCreateCommand `cmd:"" help:"Make a team."`
	List   teamsListCommand   `cmd:"" help:"List teams."`
	Show   teamsShowCommand   `cmd:"" help:"Show everything about a team."`
	Update teamsUpdateCommand `cmd:"" help:"Change the settings of a team."`
	Delete teamsDeleteCommand `cmd:"" help:"Delete a team."`
}

// A teamView is what the admin API says of a team.
type teamView struct {
	Name, Source, Class string
	Weight              int
	Models, Keys        []string
	Limits              json.RawMessage
}

func (t *teamView) limits() string {
	var line bytes.Buffer
	if json.Compact(&line, t.Limits) != nil || line.Len() == 0 {
		return "none"
	}
	return line.String()
}

// teamFlags are the settings that have a flag of their own.
type teamFlags struct {
	settingsFlags
	Weight *int     `help:"Share of a contended upstream, relative to other teams."`
	Class  string   `help:"Priority class: interactive, default or batch."`
	Models []string `help:"Models that it may use, with commas between them; a name may end in *."`
}

func (f *teamFlags) into(in map[string]any) error {
	if f.Weight != nil {
		in["weight"] = *f.Weight
	}
	if f.Class != "" {
		in["class"] = f.Class
	}
	if len(f.Models) > 0 {
		in["models"] = f.Models
	}
	return f.settingsFlags.into(in)
}

type teamsCreateCommand struct {
	adminFlags
	teamFlags
	Name string `arg:"" help:"Its name."`
}

// Run makes a team.
func (c *teamsCreateCommand) Run(env *environment) error {
	in := map[string]any{"name": c.Name}
	if err := c.into(in); err != nil {
		return err
	}
	var t teamView
	if done, err := c.call(env, http.MethodPost, "/admin/teams", in, &t); done {
		return err
	}
	_, err := fmt.Fprintf(env.stdout, "team %s is made; make a key for it: penstock keys create %s NAME\n", t.Name, t.Name)
	return err
}

type teamsListCommand struct{ adminFlags }

// Run lists teams.
func (c *teamsListCommand) Run(env *environment) error {
	var out struct{ Teams []teamView }
	if done, err := c.call(env, http.MethodGet, "/admin/teams", nil, &out); done {
		return err
	}
	rows := make([][]string, 0, len(out.Teams))
	for _, t := range out.Teams {
		rows = append(rows, []string{
			t.Name, t.Source, strconv.Itoa(max(1, t.Weight)), cmp.Or(t.Class, "default"), strconv.Itoa(len(t.Keys)),
			cmp.Or(strings.Join(t.Models, ","), "all"), t.limits(),
		})
	}
	return table(env.stdout, "TEAM SOURCE WEIGHT CLASS KEYS MODELS LIMITS", rows)
}

type teamsShowCommand struct {
	adminFlags
	Name string `arg:"" help:"Its name."`
}

// Run shows a team.
func (c *teamsShowCommand) Run(env *environment) error {
	c.JSON = true
	_, err := c.call(env, http.MethodGet, "/admin/teams/"+escape(c.Name), nil, nil)
	return err
}

type teamsUpdateCommand struct {
	adminFlags
	teamFlags
	Name string `arg:"" help:"Its name."`
}

// Run changes a team.
func (c *teamsUpdateCommand) Run(env *environment) error {
	in := map[string]any{}
	if err := c.into(in); err != nil {
		return err
	}
	var t teamView
	if done, err := c.call(env, http.MethodPatch, "/admin/teams/"+escape(c.Name), in, &t); done {
		return err
	}
	_, err := fmt.Fprintf(env.stdout, "team %s is changed; within a second every gateway knows\n", t.Name)
	return err
}

type teamsDeleteCommand struct {
	adminFlags
	Name string `arg:"" help:"Its name."`
	Keys bool   `help:"Revoke its keys with it; a team that has keys is not deleted without."`
}

// Run deletes a team.
func (c *teamsDeleteCommand) Run(env *environment) error {
	path := "/admin/teams/" + escape(c.Name)
	if c.Keys {
		path += "?keys=revoke"
	}
	var out struct{ Name string }
	if done, err := c.call(env, http.MethodDelete, path, nil, &out); done {
		return err
	}
	_, err := fmt.Fprintf(env.stdout, "team %s is deleted\n", out.Name)
	return err
}
