package teams

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Bounds of what one store may hold.
const (
	maxTeams    = 10_000
	maxKeys     = 100_000
	maxSettings = 64 << 10 // bytes
	maxSecrets  = 4        // of one key: the current one and those in their grace period
)

// MaxGrace is the longest time for which a rotated secret stays good.
const MaxGrace = 30 * 24 * time.Hour

// changeFor bounds one change, and maxTries how often it is tried anew because
// another replica's change came first.
const (
	changeFor = 5 * time.Second
	maxTries  = 20
)

// CreateTeam makes a team. Its errors are those of the package.
func (r *Registry) CreateTeam(ctx context.Context, name string, settings []byte) (Team, error) {
	now := time.Now()
	t := Team{Name: name, Settings: settings, Source: FromDatabase, Created: now, Updated: now}
	err := r.change(ctx, func(ctx context.Context, version int64) error {
		if old, err := r.Team(name); err == nil {
			return exists("team "+name, old.Source)
		}
		if len(r.Set().Teams) >= maxTeams {
			return &Conflict{Message: fmt.Sprintf("there are %d teams already, the most that are kept", maxTeams)}
		}
		if err := r.checkTeam(t); err != nil {
			return err
		}
		return r.Store.PutTeam(ctx, version, t)
	})
	return t, err
}

// exists refuses a name that is taken, in the words of where it is taken.
func exists(what, source string) error {
	if source == FromFile {
		return fmt.Errorf("%s stands in the configuration file: %w", what, ErrExists)
	}
	return ErrExists
}

// UpdateTeam changes the settings of a team by a JSON merge patch (RFC 7396).
func (r *Registry) UpdateTeam(ctx context.Context, name string, patch []byte) (t Team, err error) {
	err = r.change(ctx, func(ctx context.Context, version int64) error {
		if t, err = r.own(name); err != nil {
			return err
		}
		if t.Settings, err = merge(t.Settings, patch); err != nil {
			return err
		}
		if err := r.checkTeam(t); err != nil {
			return err
		}
		t.Updated = time.Now()
		return r.Store.PutTeam(ctx, version, t)
	})
	return t, err
}

// own is a team that may be changed here.
func (r *Registry) own(name string) (Team, error) {
	t, err := r.Team(name)
	if err == nil && t.Source == FromFile {
		return t, &FileError{"team " + name}
	}
	return t, err
}

// DeleteTeam deletes a team. One with keys is deleted only with them.
func (r *Registry) DeleteTeam(ctx context.Context, name string, withKeys bool) error {
	return r.change(ctx, func(ctx context.Context, version int64) error {
		if _, err := r.own(name); err != nil {
			return err
		}
		if n := len(r.Keys(name)); n > 0 && !withKeys {
			text := fmt.Sprintf("the team has %d keys; revoke them first, or with it", n)
			if n == 1 {
				text = "the team has 1 key; revoke it first, or with the team"
			}
			return &Conflict{Field: "keys", Message: text}
		}
		return r.Store.DeleteTeam(ctx, version, name)
	})
}

// CreateKey makes a key of a team, which may be one of the file. hash is that of its
// secret.
func (r *Registry) CreateKey(ctx context.Context, team, name string, settings []byte, hash [32]byte) (Key, error) {
	now := time.Now()
	k := Key{
		ID: newID(), Team: team, Name: name, Settings: settings, Source: FromDatabase, Created: now, Updated: now,
		Secrets: []Secret{{Hash: hash}},
	}
	err := r.change(ctx, func(ctx context.Context, version int64) error {
		if _, err := r.Team(team); err != nil {
			return &Invalid{Field: "team", Message: "there is no team of that name; make it first"}
		}
		for _, old := range r.Keys(team) {
			if old.Name == name {
				return exists("key "+name+" of team "+team, old.Source)
			}
		}
		if len(r.Set().Keys) >= maxKeys {
			return &Conflict{Message: fmt.Sprintf("there are %d keys already, the most that are kept; revoke some", maxKeys)}
		}
		if err := r.checkKey(k); err != nil {
			return err
		}
		return r.Store.PutKey(ctx, version, k)
	})
	return k, err
}

// UpdateKey changes the settings of a key by a JSON merge patch.
func (r *Registry) UpdateKey(ctx context.Context, id string, patch []byte) (Key, error) {
	return r.changeKey(ctx, id, func(k *Key) (err error) {
		if k.Settings, err = merge(k.Settings, patch); err != nil {
			return err
		}
		return r.checkKey(*k)
	})
}

// RotateKey gives a key another secret. Those it has stay good for the grace period.
func (r *Registry) RotateKey(ctx context.Context, id string, hash [32]byte, grace time.Duration) (Key, error) {
	if grace < 0 || grace > MaxGrace {
		return Key{}, &Invalid{Field: "grace", Message: "expected at most 30d"}
	}
	return r.changeKey(ctx, id, func(k *Key) error {
		now := time.Now()
		end := now.Add(grace)
		kept := []Secret{{Hash: hash}}
		for _, s := range k.Secrets {
			if s.Expires.IsZero() || s.Expires.After(end) {
				s.Expires = end
			}
			if s.Expires.After(now) {
				kept = append(kept, s)
			}
		}
		if len(kept) > maxSecrets {
			return &Conflict{Field: "grace", Message: fmt.Sprintf("%d former secrets of this key are still good, the most that may be; wait until the first has ended, or end them all by a grace of 0s", maxSecrets-1)}
		}
		k.Secrets = kept
		return nil
	})
}

// lookBack is among how many revoked keys one that is revoked again is looked for.
const lookBack = 1000

// RevokeKey ends a key for good. One that has ended already is returned as it is, so
// that who has no answer may ask again.
func (r *Registry) RevokeKey(ctx context.Context, id string) (Key, error) {
	k, err := r.changeKey(ctx, id, func(k *Key) error {
		k.Revoked, k.Secrets = time.Now(), nil
		return nil
	})
	if !errors.Is(err, ErrNotFound) {
		return k, err
	}
	gone, lookErr := r.Revoked(ctx, "", lookBack)
	if lookErr != nil {
		return Key{}, lookErr
	}
	for _, k := range gone {
		if k.ID == id {
			return k, nil
		}
	}
	return Key{}, err
}

func (r *Registry) changeKey(ctx context.Context, id string, do func(*Key) error) (k Key, err error) {
	err = r.change(ctx, func(ctx context.Context, version int64) error {
		if k, err = r.Key(id); err != nil {
			return err
		}
		if k.Source == FromFile {
			return &FileError{"key " + k.Name + " of team " + k.Team}
		}
		if err := do(&k); err != nil {
			return err
		}
		k.Updated = time.Now()
		return r.Store.PutKey(ctx, version, k)
	})
	return k, err
}

// Revoked lists revoked keys, the last one first.
func (r *Registry) Revoked(ctx context.Context, team string, most int) ([]Key, error) {
	if r.Store == nil {
		return nil, nil
	}
	keys, err := r.Store.Revoked(ctx, team, most)
	if err != nil {
		return nil, &Unavailable{err}
	}
	return keys, nil
}

// change makes one change to what the store holds now: it looks first, does, and,
// when another replica came between, does it again. What was changed is in force
// here when it returns, and is announced to the others.
func (r *Registry) change(ctx context.Context, do func(ctx context.Context, version int64) error) error {
	if r.Store == nil {
		return ErrNoStore
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changeFor)
	defer cancel()
	err := ErrChanged
	for tries := 0; tries < maxTries && errors.Is(err, ErrChanged); tries++ {
		if err := r.Refresh(ctx); err != nil {
			return &Unavailable{err}
		}
		err = do(ctx, r.Set().Version)
	}
	if err != nil {
		return known(err)
	}
	// The change stands. If it cannot be read back now, the next look will find it.
	_ = r.Refresh(ctx)
	if r.Announce != nil {
		_ = r.Announce.Announce(ctx) // the others look by themselves
	}
	return nil
}

// known leaves the errors of the package as they are; every other is the store's.
func known(err error) error {
	var (
		file     *FileError
		invalid  *Invalid
		conflict *Conflict
	)
	if errors.As(err, &file) || errors.As(err, &invalid) || errors.As(err, &conflict) || errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound) {
		return err
	}
	return &Unavailable{err}
}

func (r *Registry) checkTeam(t Team) error {
	if len(t.Settings) > maxSettings {
		return &Invalid{Message: "the settings are larger than 64 KiB"}
	}
	return r.Check.Team(t.Name, t.Settings)
}

func (r *Registry) checkKey(k Key) error {
	if len(k.Settings) > maxSettings {
		return &Invalid{Message: "the settings are larger than 64 KiB"}
	}
	return r.Check.Key(k.Name, k.Settings)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return "key_" + hex.EncodeToString(b[:])
}
