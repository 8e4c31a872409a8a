// Package teams keeps the teams and keys that are made while the gateway runs, and
// brings every change to every replica within a second.
//
// A Store holds them durably. A Registry looks at the store's version a few times a
// second, loads what has changed, and hands it on; it also knows the teams and keys
// of the configuration file, which it lists but never changes. What a team or key
// may do is text to this package: the JSON that the file would say in YAML.
package teams

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Sources of teams and keys.
const (
	FromFile     = "file"
	FromDatabase = "database"
)

// A Team is a group of clients that share limits.
type Team struct {
	Name     string
	Settings []byte // JSON object: what stands under teams.<name> in the file, without keys
	Source   string
	Created  time.Time
	Updated  time.Time
}

// A Key identifies a team by its secrets. A revoked key has none.
type Key struct {
	ID       string // public, and not to be guessed
	Team     string
	Name     string // unique within the team among the keys that are not revoked
	Settings []byte // JSON object: limits, expires, disabled
	Source   string
	Created  time.Time
	Updated  time.Time
	Revoked  time.Time // zero unless it is
	Secrets  []Secret
}

// A Secret is one text by which a key is recognised. After a rotation there are two
// for a while.
type Secret struct {
	Hash    [32]byte  // SHA-256 of the whole text, which is kept nowhere
	Expires time.Time // zero for as long as the key lives
}

// A Set is all teams and keys of a store at one moment. It must not be changed.
type Set struct {
	Version int64 // grows with each change of anything; 0 when nothing was ever made
	Teams   []Team
	Keys    []Key // without revoked ones
}

// A Store keeps teams and keys durably: what a method has acknowledged survives a
// crash. It is safe for concurrent use, also by several processes where it is
// shared. Its conformance suite is in teams/teamstest.
type Store interface {
	// Version tells cheaply whether anything has changed.
	Version(ctx context.Context) (int64, error)
	// Load returns everything as of one moment.
	Load(ctx context.Context) (*Set, error)
	// PutTeam makes or replaces a team if the store still has that version, and
	// reports ErrChanged otherwise. So do the other changes.
	PutTeam(ctx context.Context, version int64, t Team) error
	// DeleteTeam deletes a team, and revokes its keys.
	DeleteTeam(ctx context.Context, version int64, name string) error
	// PutKey makes or replaces a key, its secrets included.
	PutKey(ctx context.Context, version int64, k Key) error
	// Revoked lists revoked keys, the last one first: those of a team, or of all
	// teams when its name is empty.
	Revoked(ctx context.Context, team string, most int) ([]Key, error)
}

// Errors of stores and of the Registry.
var (
	ErrExists   = errors.New("another one has this name")
	ErrChanged  = errors.New("teams or keys were changed meanwhile; try again")
	ErrNotFound = errors.New("there is none of that name or id")
	ErrNoStore  = errors.New("the gateway has no database, so teams and keys stand in its configuration file alone; configure database to make them at run time")
)

// FileError refuses to change what the configuration file says.
type FileError struct{ What string }

// Error says where to make the change.
func (e *FileError) Error() string {
	return e.What + " stands in the configuration file; change it there and reload"
}

// Invalid refuses settings.
type Invalid struct {
	Field   string // path of the field; may be empty
	Message string
}

// Error describes the field.
func (e *Invalid) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Conflict refuses a change that what there is does not allow, such as a team's keys.
type Conflict struct {
	Field   string // of the request, by which it may be allowed; may be empty
	Message string
}

// Error says what is in the way.
func (e *Conflict) Error() string { return e.Message }

// Unavailable reports that the store could not be reached or failed. Err is for the
// log.
type Unavailable struct{ Err error }

// Error describes the failure.
func (e *Unavailable) Error() string { return fmt.Sprintf("the database of teams and keys: %v", e.Err) }

// Unwrap returns the cause.
func (e *Unavailable) Unwrap() error { return e.Err }
