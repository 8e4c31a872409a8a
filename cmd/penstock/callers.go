package main

import (
	"errors"
	"fmt"
	"time"

	"penstock/auth"
	"penstock/config"
	"penstock/limits"
	"penstock/proxy"
	"penstock/teams"
)

// anonymous is the team of everybody where no key is asked for.
const anonymous = "default"

// callers are the keys and teams of the configuration file and of the database
// together, ready for use.
type callers struct {
	keys  *auth.Keys
	teams map[string]*proxy.Team
	open  bool // no key is asked for
	// problems are what could not be used as it stands in the database.
	problems []error
}

// A reader reads the settings of teams and keys of the database. It keeps what it
// has read, so that a change costs what has changed, and so that settings that a
// newer gateway on the same database wrote leave the team as it was.
type reader struct {
	teams map[string]readTeam
	keys  map[string]readKey // by id
}

type readTeam struct {
	settings string
	team     config.Team
}

type readKey struct {
	settings string
	key      config.Key
}

// any configuration may use the settings: which models there are was checked when
// they were made, and a model that is gone since is just not served.
var anyConfig = &config.Config{}

func (r *reader) team(t *teams.Team) (config.Team, error) {
	old, known := r.teams[t.Name]
	if known && old.settings == string(t.Settings) {
		return old.team, nil
	}
	read, err := anyConfig.TeamFromJSON(t.Name, t.Settings)
	if err == nil {
		r.teams[t.Name] = readTeam{string(t.Settings), read}
		return read, nil
	}
	if known {
		return old.team, fmt.Errorf("team %s: its settings in the database cannot be read, the former ones stay in force: %w", t.Name, err)
	}
	return read, fmt.Errorf("team %s: its settings in the database cannot be read, so its keys are refused: %w", t.Name, err)
}

func (r *reader) key(k *teams.Key) (config.Key, error) {
	old, known := r.keys[k.ID]
	if known && old.settings == string(k.Settings) {
		return old.key, nil
	}
	read, err := anyConfig.KeyFromJSON(k.Name, k.Settings)
	if err == nil {
		r.keys[k.ID] = readKey{string(k.Settings), read}
		return read, nil
	}
	// Its former settings may be those of a key that was not disabled yet.
	return read, fmt.Errorf("key %s of team %s: its settings in the database cannot be read, so it is refused: %w", k.Name, k.Team, err)
}

// forget drops what is no longer in the set.
func (r *reader) forget(set *teams.Set) {
	if len(r.teams) > len(set.Teams) {
		kept := make(map[string]readTeam, len(set.Teams))
		for _, t := range set.Teams {
			if read, ok := r.teams[t.Name]; ok {
				kept[t.Name] = read
			}
		}
		r.teams = kept
	}
	if len(r.keys) > len(set.Keys) {
		kept := make(map[string]readKey, len(set.Keys))
		for _, k := range set.Keys {
			if read, ok := r.keys[k.ID]; ok {
				kept[k.ID] = read
			}
		}
		r.keys = kept
	}
}

// callers puts the teams of the file and of the database together. Where a name is
// in both, the file counts.
func (b *builder) callers(c *config.Config, set *teams.Set) *callers {
	out := &callers{teams: map[string]*proxy.Team{anonymous: newTeam(anonymous, config.Team{})}}
	var all []auth.Key
	for name, t := range c.Teams {
		out.teams[name] = newTeam(name, t)
		for _, k := range t.Keys {
			digest, ok := k.Digest()
			if !ok {
				continue // Load has refused it
			}
			all = append(all, newKey(name, k, digest, time.Time{}))
			out.teams[name].Keys[k.Name] = keyLimits(name, k)
		}
	}
	inFile := len(all) > 0
	for i := range set.Teams {
		t := &set.Teams[i]
		if _, taken := c.Teams[t.Name]; taken {
			continue // the registry has complained
		}
		read, err := b.reader.team(t)
		out.problem(err)
		if _, ok := b.reader.teams[t.Name]; ok {
			out.teams[t.Name] = newTeam(t.Name, read)
		}
	}
	for i := range set.Keys {
		all = append(all, b.storedKey(&set.Keys[i], out)...)
	}
	b.reader.forget(set)
	var everybody auth.Caller
	if out.open = !inFile && !keysNeeded(c, set); out.open {
		everybody.Team = anonymous
	}
	out.keys = auth.NewKeys(all, everybody)
	return out
}

// storedKey is a key of the database, once for each of its secrets.
func (b *builder) storedKey(k *teams.Key, out *callers) []auth.Key {
	team := out.teams[k.Team]
	if team == nil {
		out.problem(fmt.Errorf("key %s of team %s: there is no such team, so it is refused", k.Name, k.Team))
		return nil
	}
	if _, taken := team.Keys[k.Name]; taken {
		return nil // by a key of the file; the registry has complained
	}
	read, err := b.reader.key(k)
	if err != nil {
		out.problem(err)
		return nil
	}
	team.Keys[k.Name] = keyLimits(k.Team, read)
	var all []auth.Key
	for _, s := range k.Secrets {
		all = append(all, newKey(k.Team, read, s.Hash, s.Expires))
	}
	return all
}

func (c *callers) problem(err error) {
	if err != nil {
		c.problems = append(c.problems, err)
	}
}

// keysNeeded reports whether requests need a key although the file has none: a team
// or key was made once, even if it is gone since; or the listener is open to other
// machines, and its keys are to come.
func keysNeeded(c *config.Config, set *teams.Set) bool {
	return set.Version > 0 || c.Database.URL != "" && !c.InsecureNoAuth && !c.Loopback()
}

// newKey is a key by one of its secrets, which may expire before it.
func newKey(team string, k config.Key, hash auth.Hash, until time.Time) auth.Key {
	expires, _ := k.ExpiresAt()
	if expires.IsZero() || !until.IsZero() && until.Before(expires) {
		expires = until
	}
	return auth.Key{Hash: hash, Caller: auth.Caller{Team: team, Key: k.Name}, Expires: expires, Disabled: k.Disabled}
}

func newTeam(name string, t config.Team) *proxy.Team {
	class, _ := limits.ParseClass(t.Class)
	return &proxy.Team{
		Name: name, Weight: max(1, t.Weight), Class: class, Models: t.Models, Strict: t.Output == "strict", Unpriced: t.Unpriced,
		Limits: buildLimits("team/"+name, limits.ScopeTeam, name, t.Limits),
		Keys:   make(map[string][]*limits.Limit, len(t.Keys)),
	}
}

func keyLimits(team string, k config.Key) []*limits.Limit {
	own := buildLimits("key/"+team+"/"+k.Name, limits.ScopeKey, k.Name, k.Limits)
	for _, l := range own {
		l.Group = "team/" + team
	}
	return own
}

// fileTeams are the teams of the configuration file, as the registry lists them.
func fileTeams(c *config.Config) (teams.File, error) {
	file := make(teams.File, len(c.Teams))
	for name, t := range c.Teams {
		settings, err := t.SettingsJSON()
		if err != nil {
			return nil, fmt.Errorf("team %s: %w", name, err)
		}
		f := teams.FileTeam{Settings: settings, Keys: make(map[string][]byte, len(t.Keys))}
		for _, k := range t.Keys {
			if f.Keys[k.Name], err = k.SettingsJSON(); err != nil {
				return nil, fmt.Errorf("key %s of team %s: %w", k.Name, name, err)
			}
		}
		file[name] = f
	}
	return file, nil
}

// Team and Key check settings under the configuration in force.
func (p *parts) Team(name string, settings []byte) error {
	_, err := p.config.Load().TeamFromJSON(name, settings)
	return invalid(err)
}

func (p *parts) Key(name string, settings []byte) error {
	_, err := p.config.Load().KeyFromJSON(name, settings)
	return invalid(err)
}

func invalid(err error) error {
	var problems config.Errors
	if errors.As(err, &problems) {
		return &teams.Invalid{Field: problems[0].Key, Message: problems[0].Message}
	}
	return err
}
