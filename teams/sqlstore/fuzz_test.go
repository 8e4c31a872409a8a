package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/teams"
	"penstock/teams/teamstest"
)

// FuzzDatabasesAgree makes the same changes in SQLite, PostgreSQL and memory, and
// expects the same of each: what stands there afterwards, and whether a change was
// refused.
func FuzzDatabasesAgree(f *testing.F) {
	for _, seed := range []string{
		"", "\x00\x00\x00\x02\x01\x00\x03\x01", "\x00\x01\x02\x00\x02\x03\x04\x01\x03\x00\x01\x05",
		"\x02\x00\x00\x01\x02\x00\x00\x02\x02\x01\x00\x01\x02\x02\x00\x01\x01\x00\x00\x00\x04\x00\x00\x00",
		"\x02\x10\x20\x30\x02\x11\x21\x31\x02\x12\x22\x32\x01\x01\x00\x00\x02\x10\x24\x30\x04\x00\x00\x00\x03\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	lite, post := databasetest.Open(f, f.TempDir()+"/penstock.db"), databasetest.Open(f, databasetest.Postgres(f))
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, db := range []*database.DB{lite, post} {
			if err := clean(t.Context(), db); err != nil {
				t.Fatal(err)
			}
		}
		memory := &teamstest.Memory{}
		a, b := New(lite), New(post)
		for step := range slices.Chunk(script[:min(len(script), 4*50)], 4) {
			do := changeOf([4]byte(append(slices.Clone(step), 0, 0, 0)))
			errA, errB := do(t.Context(), a), do(t.Context(), b)
			if (errA == nil) != (errB == nil) || errors.Is(errA, teams.ErrChanged) != errors.Is(errB, teams.ErrChanged) {
				t.Fatalf("%v: SQLite reports %v, PostgreSQL %v", step, errA, errB)
			}
			// Only the databases keep names and hashes apart; the Registry does so
			// before it asks them.
			if errA == nil || errors.Is(errA, teams.ErrChanged) {
				if err := do(t.Context(), memory); errors.Is(err, teams.ErrChanged) != (errA != nil) {
					t.Fatalf("%v: the databases report %v, memory %v", step, errA, err)
				}
			}
			want := stateOf(t, memory)
			for name, s := range map[string]teams.Store{"SQLite": a, "PostgreSQL": b} {
				if got := stateOf(t, s); got != want {
					t.Fatalf("after %v %s has\n%s\nwant\n%s", step, name, got, want)
				}
			}
		}
	})
}

func clean(ctx context.Context, db *database.DB) error {
	return db.Write(ctx, func(tx *database.Tx) error {
		for _, query := range []string{"DELETE FROM client_key_hashes", "DELETE FROM client_keys", "DELETE FROM teams", "UPDATE teams_version SET version = 0"} {
			if _, err := tx.Exec(ctx, query); err != nil {
				return err
			}
		}
		return nil
	})
}

// changeOf is the change that four bytes stand for.
func changeOf(b [4]byte) func(context.Context, teams.Store) error {
	at := time.UnixMicro(1_800_000_000_000_000 + int64(b[3])*1_000_001)
	team := fmt.Sprint("team", b[1]%3)
	id := b[1] % 12 // a key's team and name never change; some have the same
	k := teams.Key{
		ID: fmt.Sprint("key_", id), Team: fmt.Sprint("team", id%3), Name: strings.Repeat("ä", int(id%2)), Settings: fmt.Appendf(nil, `{"limits":{"budget":"$%d/día ☃"}}`, b[2]),
		Source: teams.FromDatabase, Created: at, Updated: at.Add(time.Hour),
	}
	if b[2]&4 != 0 {
		k.Revoked = at
	} else {
		for i := range b[2] >> 6 {
			k.Secrets = append(k.Secrets, teams.Secret{Hash: [32]byte{b[3] % 8, i}})
		}
	}
	return func(ctx context.Context, s teams.Store) error {
		version, err := s.Version(ctx)
		if err != nil {
			return err
		}
		switch b[0] % 4 {
		case 0:
			return s.PutTeam(ctx, version, teams.Team{Name: team, Settings: fmt.Appendf(nil, `{"weight":%d}`, b[2]), Source: teams.FromDatabase, Created: at, Updated: at})
		case 1:
			return s.DeleteTeam(ctx, version, team)
		case 2:
			return s.PutKey(ctx, version, k)
		}
		return s.PutKey(ctx, version+int64(b[3]%3)-1, k) // mostly not what stands there
	}
}

// stateOf is all that a store holds, as text. When a key was revoked is left out, and
// so is when something was made that was made again: the databases keep the first
// time.
func stateOf(t *testing.T, s teams.Store) string {
	t.Helper()
	set, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := s.Revoked(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintln(&out, set.Version)
	slices.SortFunc(set.Teams, func(a, b teams.Team) int { return cmp.Compare(a.Name, b.Name) })
	for _, tm := range set.Teams {
		fmt.Fprintf(&out, "team %s %s %d\n", tm.Name, tm.Settings, tm.Updated.UnixMicro())
	}
	keys := append(set.Keys, revoked...)
	slices.SortFunc(keys, func(a, b teams.Key) int { return cmp.Compare(a.ID, b.ID) })
	for _, k := range keys {
		slices.SortFunc(k.Secrets, func(a, b teams.Secret) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
		if !k.Revoked.IsZero() {
			fmt.Fprintf(&out, "key %s %s %q revoked %d\n", k.ID, k.Team, k.Name, len(k.Secrets))
			continue
		}
		fmt.Fprintf(&out, "key %s %s %q %s %d %x\n", k.ID, k.Team, k.Name, k.Settings, k.Updated.UnixMicro(), k.Secrets)
	}
	return out.String()
}
