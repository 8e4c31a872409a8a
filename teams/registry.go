package teams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lookEvery is how often the version is looked at. With the time to load, a
	// change is in force everywhere within a second.
	lookEvery = 300 * time.Millisecond
	// lookFor and loadFor bound one look and one load.
	lookFor = 2 * time.Second
	loadFor = 15 * time.Second
	// complainEvery is how often a failure that lasts is logged again.
	complainEvery = time.Minute
)

// A File is the teams of the configuration file, by name.
type File map[string]FileTeam

// A FileTeam is a team of the file with its keys' settings by their names.
type FileTeam struct {
	Settings []byte
	Keys     map[string][]byte
}

// A Check tells whether settings make sense under the configuration in force. It
// reports an *Invalid.
type Check interface {
	Team(name string, settings []byte) error
	Key(name string, settings []byte) error
}

// An Announcer tells other replicas of a change at once. Without one they notice by
// looking.
type Announcer interface {
	Announce(ctx context.Context) error
	// Heard returns a channel that receives after another replica's announcement.
	// Some may be lost.
	Heard() <-chan struct{}
}

// Parts are what a Registry is made of.
type Parts struct {
	Store    Store // nil without a database
	Check    Check
	Log      *slog.Logger
	Announce Announcer // nil for none
	// Apply puts a set in force. It is called by one goroutine at a time.
	Apply func(*Set)
}

// A Registry is the one place of a process that knows all teams and keys. It is
// safe for concurrent use.
type Registry struct {
	Parts

	changing sync.Mutex // held through a change, so that those of one replica take turns
	look     sync.Mutex // held while the store is asked and a set put in force

	mu       sync.Mutex
	set      *Set
	file     File
	seen     time.Time // last time at which the store answered
	failing  error
	complain time.Time // when to log the failure again
	failures int64
}

// New returns a registry over the teams of the file. Start must be called before
// anything else.
func New(p Parts, file File) *Registry {
	return &Registry{Parts: p, set: &Set{}, file: file}
}

// Start loads the first set. It reports a store that cannot be read, and a name that
// stands in the file and in the database.
func (r *Registry) Start(ctx context.Context) error {
	if r.Store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadFor)
	defer cancel()
	set, err := r.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load teams and keys: %w", err)
	}
	if err := collision(r.file, set); err != nil {
		return err
	}
	r.mu.Lock()
	r.set, r.seen = set, time.Now()
	r.mu.Unlock()
	return nil
}

// Run looks for changes until the context ends.
func (r *Registry) Run(ctx context.Context) {
	if r.Store == nil {
		return
	}
	var heard <-chan struct{}
	if r.Announce != nil {
		heard = r.Announce.Heard()
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-heard:
		}
		_ = r.Refresh(ctx) // it has been logged and counted
	}
}

// Refresh puts what has changed in force. When the store cannot be read, or has
// become an older one, the last known set stays in force.
func (r *Registry) Refresh(ctx context.Context) error {
	r.look.Lock()
	defer r.look.Unlock()
	set, err := r.newer(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // the gateway stops
	}
	if err != nil {
		r.failed(err)
		return err
	}
	r.mu.Lock()
	r.seen = time.Now()
	recovered := r.failing != nil
	r.failing = nil
	if set != nil {
		r.set = set
	}
	file := r.file
	r.mu.Unlock()
	if recovered {
		r.Log.Info("the database of teams and keys answers again")
	}
	if set == nil {
		return nil
	}
	if err := collision(file, set); err != nil {
		r.Log.Error("a team or key is in the database and in the configuration file; the file counts", "error", err.Error())
	}
	r.Apply(set)
	return nil
}

// newer loads the set if it is another one, and returns nil if not.
func (r *Registry) newer(ctx context.Context) (*Set, error) {
	known := r.Set().Version
	short, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	version, err := r.Store.Version(short)
	if err != nil || version == known {
		return nil, err
	}
	long, cancelLoad := context.WithTimeout(ctx, loadFor)
	defer cancelLoad()
	set, err := r.Store.Load(long)
	if err == nil && set.Version < known {
		return nil, fmt.Errorf("it went back from version %d to %d: it was replaced by an older or an empty one; the last known teams and keys stay in force until it is put right, or the gateway restarts", known, set.Version)
	}
	return set, err
}

func (r *Registry) failed(err error) {
	r.mu.Lock()
	r.failures++
	first, now := r.failing == nil, time.Now()
	r.failing = err
	speak := first || now.After(r.complain)
	if speak {
		r.complain = now.Add(complainEvery)
	}
	age := now.Sub(r.seen)
	r.mu.Unlock()
	if speak {
		r.Log.Error("teams and keys cannot be read from the database; the last known ones stay in force", "error", err.Error(), "age_seconds", age.Seconds())
	}
}

// Set is the set of the database that is in force; empty without one.
func (r *Registry) Set() *Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set
}

// SetFile replaces the teams of the file, if none of their names is in the database
// as well.
func (r *Registry) SetFile(file File) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := collision(file, r.set); err != nil {
		return err
	}
	r.file = file
	return nil
}

// A Status is how the registry stands, for metrics.
type Status struct {
	Stored      bool // whether there is a store
	OK          bool // whether the last look at it succeeded
	Age         time.Duration
	Failures    int64
	Teams, Keys int // of the store
}

// Status tells how the registry stands.
func (r *Registry) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Stored: r.Store != nil, OK: r.failing == nil, Failures: r.failures, Teams: len(r.set.Teams), Keys: len(r.set.Keys)}
	if s.Stored {
		s.Age = time.Since(r.seen)
	}
	return s
}

// collision reports names that stand in the file and in the database.
func collision(file File, set *Set) error {
	var all []error
	for _, t := range set.Teams {
		if _, ok := file[t.Name]; ok {
			all = append(all, fmt.Errorf("team %s is in the configuration file and in the database; rename it in the file, or delete the other: penstock teams delete %s", t.Name, t.Name))
		}
	}
	for _, k := range set.Keys {
		if _, ok := file[k.Team].Keys[k.Name]; ok {
			all = append(all, fmt.Errorf("key %s of team %s is in the configuration file and in the database; rename it in the file, or revoke the other: penstock keys revoke %s", k.Name, k.Team, k.ID))
		}
	}
	return errors.Join(all...)
}

// Teams lists all teams, by name.
func (r *Registry) Teams() []Team {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.set.Teams)
	all = slices.DeleteFunc(all, func(t Team) bool { _, inFile := r.file[t.Name]; return inFile })
	for name, t := range r.file {
		all = append(all, Team{Name: name, Settings: t.Settings, Source: FromFile})
	}
	slices.SortFunc(all, func(a, b Team) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Team returns one team. It reports ErrNotFound.
func (r *Registry) Team(name string) (Team, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.file[name]; ok {
		return Team{Name: name, Settings: t.Settings, Source: FromFile}, nil
	}
	for _, t := range r.set.Teams {
		if t.Name == name {
			return t, nil
		}
	}
	return Team{}, ErrNotFound
}

// Keys lists the keys of a team that are not revoked, or of all teams when its name
// is empty, by team and name. Those of the file have no secrets here, and an id that
// is made of their names.
func (r *Registry) Keys(team string) []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Key
	for _, k := range r.set.Keys {
		if team == "" || k.Team == team {
			all = append(all, k)
		}
	}
	for name, t := range r.file {
		if team != "" && name != team {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(t.Keys)) {
			all = append(all, Key{ID: fileID(name, key), Team: name, Name: key, Settings: t.Keys[key], Source: FromFile})
		}
	}
	slices.SortFunc(all, func(a, b Key) int {
		if a.Team != b.Team {
			return strings.Compare(a.Team, b.Team)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

// Key returns a key that is not revoked. It reports ErrNotFound.
func (r *Registry) Key(id string) (Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if parts := strings.Split(id, ":"); len(parts) == 3 && parts[0] == FromFile {
		if settings, ok := r.file[parts[1]].Keys[parts[2]]; ok {
			return Key{ID: id, Team: parts[1], Name: parts[2], Settings: settings, Source: FromFile}, nil
		}
	}
	for _, k := range r.set.Keys {
		if k.ID == id {
			return k, nil
		}
	}
	return Key{}, ErrNotFound
}

// fileID is the id of a key of the file. Names hold no colon.
func fileID(team, key string) string { return FromFile + ":" + team + ":" + key }
