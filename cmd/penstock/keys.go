package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"penstock/auth"
	"penstock/config"
)

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Make a key of a team. It is shown once."`
	List   keysListCommand   `cmd:"" help:"List keys."`
	Update keysUpdateCommand `cmd:"" help:"Change the settings of a key."`
	Rotate keysRotateCommand `cmd:"" help:"Give a key another secret, which is shown once. The former one stays good for a while."`
	Revoke keysRevokeCommand `cmd:"" help:"End a key for good."`
	New    keysNewCommand    `cmd:"" help:"Make a key for the configuration file. It is shown once: keep it, and put its hash into the file."`
	Hash   keysHashCommand   `cmd:"" help:"Print the hash of a key read from standard input, for the configuration file."`
}

// A keyView is what the admin API says of a key.
type keyView struct {
	ID, Team, Name, Source    string
	Key                       string // once, where it was made
	Expires, Revoked, Created string
	FormerValidUntil          string `json:"former_valid_until"`
	Disabled                  bool
}

func (k *keyView) state() string {
	at, err := time.Parse(time.RFC3339, k.Expires)
	if day, dayErr := time.Parse(time.DateOnly, k.Expires); dayErr == nil {
		at, err = day.AddDate(0, 0, 1), nil
	}
	switch {
	case k.Revoked != "":
		return "revoked " + k.Revoked
	case k.Disabled:
		return "disabled"
	case err == nil && time.Now().After(at):
		return "expired"
	case k.FormerValidUntil != "":
		return "rotated, former until " + k.FormerValidUntil
	}
	return "active"
}

// show prints a key that was just made, or rotated.
func (k *keyView) show(w io.Writer) error {
	_, err := fmt.Fprintf(w, "key:  %s\nid:   %s\n", k.Key, k.ID)
	if err == nil && k.FormerValidUntil != "" {
		_, err = fmt.Fprintf(w, "The former key stays good until %s.\n", k.FormerValidUntil)
	}
	if err == nil {
		_, err = fmt.Fprintln(w, "The key is shown this once: keep it.")
	}
	return err
}

type keysCreateCommand struct {
	adminFlags
	settingsFlags
	Team     string  `arg:"" help:"Its team, of the database or of the configuration file."`
	Name     string  `arg:"" help:"Its name in logs and reports."`
	Expires  *string `placeholder:"WHEN" help:"When it ends: a duration such as 90d, a date, or a time in RFC 3339."`
	Disabled bool    `help:"Refuse it until it is enabled."`
}

// Run makes a key.
func (c *keysCreateCommand) Run(env *environment) error {
	in := map[string]any{"team": c.Team, "name": c.Name}
	if err := c.into(in); err != nil {
		return err
	}
	if c.Disabled {
		in["disabled"] = true
	}
	if err := expiry(in, c.Expires); err != nil {
		return err
	}
	var k keyView
	if done, err := c.call(env, http.MethodPost, "/admin/keys", in, &k); done {
		return err
	}
	return k.show(env.stdout)
}

// expiry puts the end of a key into its settings, and makes a time of a duration.
func expiry(in map[string]any, when *string) error {
	if when == nil {
		return nil
	}
	in["expires"] = *when
	if d, err := config.ParseDuration(*when); err == nil {
		if d == 0 {
			return errors.New("--expires: expected more than 0")
		}
		in["expires"] = time.Now().Add(time.Duration(d)).UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	return nil
}

type keysListCommand struct {
	adminFlags
	Team    string `help:"Of this team alone."`
	Revoked bool   `help:"Those that were revoked, too."`
}

// Run lists keys.
func (c *keysListCommand) Run(env *environment) error {
	var out struct{ Keys []keyView }
	query := url.Values{"team": {c.Team}}
	if c.Revoked {
		query.Set("revoked", "true")
	}
	if done, err := c.call(env, http.MethodGet, "/admin/keys?"+query.Encode(), nil, &out); done {
		return err
	}
	rows := make([][]string, 0, len(out.Keys))
	for _, k := range out.Keys {
		rows = append(rows, []string{k.Team, k.Name, k.ID, k.Source, cmp.Or(k.Created, "-"), cmp.Or(k.Expires, "never"), k.state()})
	}
	return table(env.stdout, "TEAM KEY ID SOURCE CREATED EXPIRES STATE", rows)
}

// keyPath is the path of a key that was given by its id or as team/name.
func (f *adminFlags) keyPath(env *environment, given string) (string, error) {
	team, name, ok := strings.Cut(given, "/")
	if !ok {
		if strings.HasPrefix(given, auth.Prefix) {
			return "", errors.New("that is a key itself, which does not belong on a command line; give its id or team/name, as penstock keys list shows them")
		}
		return "/admin/keys/" + escape(given), nil
	}
	var out struct{ Keys []keyView }
	quiet := adminFlags{Admin: f.Admin}
	if _, err := quiet.call(env, http.MethodGet, "/admin/keys?"+url.Values{"team": {team}}.Encode(), nil, &out); err != nil {
		return "", err
	}
	i := slices.IndexFunc(out.Keys, func(k keyView) bool { return k.Name == name })
	if i < 0 {
		return "", fmt.Errorf("team %s has no key %s; see penstock keys list", team, name)
	}
	return "/admin/keys/" + escape(out.Keys[i].ID), nil
}

type keysUpdateCommand struct {
	adminFlags
	settingsFlags
	Key     string  `arg:"" placeholder:"ID" help:"Id of the key, or team/name."`
	Expires *string `placeholder:"WHEN" help:"When it ends: a duration such as 90d, a date, or a time in RFC 3339."`
	Disable bool    `xor:"able" help:"Refuse it until it is enabled."`
	Enable  bool    `xor:"able" help:"Accept it again."`
}

// Run changes a key.
func (c *keysUpdateCommand) Run(env *environment) error {
	in := map[string]any{}
	if err := c.into(in); err != nil {
		return err
	}
	if c.Disable || c.Enable {
		in["disabled"] = c.Disable
	}
	if err := expiry(in, c.Expires); err != nil {
		return err
	}
	path, err := c.keyPath(env, c.Key)
	if err != nil {
		return err
	}
	var k keyView
	if done, err := c.call(env, http.MethodPatch, path, in, &k); done {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "key %s of team %s: %s\n", k.Name, k.Team, k.state())
	return err
}

type keysRotateCommand struct {
	adminFlags
	Key   string        `arg:"" placeholder:"ID" help:"Id of the key, or team/name."`
	Grace time.Duration `default:"24h" help:"How long the former key stays good, at most 720h; 0s to end it at once."`
}

// Run rotates a key.
func (c *keysRotateCommand) Run(env *environment) error {
	path, err := c.keyPath(env, c.Key)
	if err != nil {
		return err
	}
	var k keyView
	if done, err := c.call(env, http.MethodPost, path+"/rotate", map[string]any{"grace": c.Grace.String()}, &k); done {
		return err
	}
	return k.show(env.stdout)
}

type keysRevokeCommand struct {
	adminFlags
	Key string `arg:"" placeholder:"ID" help:"Id of the key, or team/name."`
}

// Run revokes a key.
func (c *keysRevokeCommand) Run(env *environment) error {
	path, err := c.keyPath(env, c.Key)
	if err != nil {
		return err
	}
	var k keyView
	if done, err := c.call(env, http.MethodPost, path+"/revoke", struct{}{}, &k); done {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "key %s of team %s is revoked; within a second every gateway refuses it\n", k.Name, k.Team)
	return err
}

type keysNewCommand struct{}

// Run prints a key and its hash.
func (keysNewCommand) Run(env *environment) error {
	key := auth.NewKey()
	_, err := fmt.Fprintf(env.stdout, "key:  %s\nhash: %s\n", key, auth.HashOf(key))
	return err
}

type keysHashCommand struct{}

// Run reads the key from standard input, so that it stays out of the shell's
// history and the process list.
func (keysHashCommand) Run(env *environment) error {
	line, err := bufio.NewReader(io.LimitReader(env.stdin, 4096)).ReadString('\n')
	key := strings.TrimRight(line, "\r\n")
	if key == "" {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the key: %w", err)
		}
		return errors.New("no key on standard input; use: penstock keys hash < file-with-key")
	}
	_, err = fmt.Fprintln(env.stdout, auth.HashOf(key))
	return err
}
