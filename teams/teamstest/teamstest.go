// Package teamstest is the conformance suite of teams.Store, and a store in memory.
package teamstest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"penstock/teams"
)

// Run checks that a store keeps its contract. fresh returns an empty store.
func Run(t *testing.T, fresh func(t *testing.T) teams.Store) {
	for name, test := range map[string]func(*testing.T, teams.Store){
		"empty":                        empty,
		"a team comes back":            team,
		"a key comes back":             key,
		"a change needs the version":   stale,
		"deleting a team revokes":      deleteTeam,
		"revoked keys":                 revoked,
		"concurrent changes lose none": concurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// moment is a time that every store keeps exactly.
var moment = time.Date(2026, 11, 25, 12, 0, 0, 123_000_000, time.UTC)

func load(t *testing.T, s teams.Store) *teams.Set {
	t.Helper()
	set, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	v, err := s.Version(t.Context())
	if err != nil || v != set.Version {
		t.Fatalf("Version: %d, %v; loaded %d", v, err, set.Version)
	}
	return set
}

func empty(t *testing.T, s teams.Store) {
	if set := load(t, s); set.Version != 0 || len(set.Teams) != 0 || len(set.Keys) != 0 {
		t.Errorf("got %+v", set)
	}
}

func putTeam(t *testing.T, s teams.Store, tm teams.Team) {
	t.Helper()
	before := load(t, s).Version
	if err := s.PutTeam(t.Context(), before, tm); err != nil {
		t.Fatalf("PutTeam: %v", err)
	}
	if after := load(t, s).Version; after <= before {
		t.Fatalf("version %d after %d", after, before)
	}
}

func putKey(t *testing.T, s teams.Store, k teams.Key) {
	t.Helper()
	before := load(t, s).Version
	if err := s.PutKey(t.Context(), before, k); err != nil {
		t.Fatalf("PutKey: %v", err)
	}
	if after := load(t, s).Version; after <= before {
		t.Fatalf("version %d after %d", after, before)
	}
}

func aTeam(name, settings string) teams.Team {
	return teams.Team{Name: name, Settings: []byte(settings), Source: teams.FromDatabase, Created: moment, Updated: moment}
}

func aKey(id, team, name string, secrets ...teams.Secret) teams.Key {
	return teams.Key{ID: id, Team: team, Name: name, Settings: []byte(`{}`), Source: teams.FromDatabase, Created: moment, Updated: moment, Secrets: secrets}
}

func team(t *testing.T, s teams.Store) {
	putTeam(t, s, aTeam("search", `{"weight":3}`))
	putTeam(t, s, aTeam("reports", `{}`))
	changed := aTeam("search", `{"weight":5,"models":["gpt-☃*"]}`)
	changed.Updated = moment.Add(time.Hour)
	putTeam(t, s, changed)
	set := load(t, s)
	if len(set.Teams) != 2 {
		t.Fatalf("%d teams", len(set.Teams))
	}
	for _, got := range set.Teams {
		want := changed
		if got.Name == "reports" {
			want = aTeam("reports", `{}`)
		}
		if fmt.Sprintf("%q", got.Settings) != fmt.Sprintf("%q", want.Settings) || got.Source != teams.FromDatabase || !got.Created.Equal(want.Created) || !got.Updated.Equal(want.Updated) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// covers SEC-02: what is kept of a secret is its hash, whole.
func key(t *testing.T, s teams.Store) {
	first, second := teams.Secret{Hash: [32]byte{0, 1, 31: 0xff}}, teams.Secret{Hash: [32]byte{2}, Expires: moment.Add(time.Hour)}
	putKey(t, s, aKey("key_1", "search", "prod", first))
	putKey(t, s, aKey("key_2", "search", "dev", teams.Secret{Hash: [32]byte{9}}))
	rotated := aKey("key_1", "search", "prod", teams.Secret{Hash: [32]byte{3}}, second)
	putKey(t, s, rotated)
	set := load(t, s)
	if len(set.Keys) != 2 {
		t.Fatalf("%d keys", len(set.Keys))
	}
	for _, k := range set.Keys {
		if k.ID != "key_1" {
			continue
		}
		got := map[[32]byte]time.Time{}
		for _, sec := range k.Secrets {
			got[sec.Hash] = sec.Expires
		}
		if len(got) != 2 || !got[[32]byte{3}].IsZero() || !got[[32]byte{2}].Equal(second.Expires) {
			t.Errorf("secrets %v", k.Secrets)
		}
		if k.Team != "search" || k.Name != "prod" || string(k.Settings) != `{}` || k.Source != teams.FromDatabase || !k.Created.Equal(moment) || !k.Revoked.IsZero() {
			t.Errorf("got %+v", k)
		}
	}
}

func stale(t *testing.T, s teams.Store) {
	putTeam(t, s, aTeam("search", `{}`))
	old := load(t, s).Version - 1
	for what, err := range map[string]error{
		"PutTeam":    s.PutTeam(t.Context(), old, aTeam("late", `{}`)),
		"PutKey":     s.PutKey(t.Context(), old, aKey("key_1", "search", "late")),
		"DeleteTeam": s.DeleteTeam(t.Context(), old, "search"),
	} {
		if !errors.Is(err, teams.ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if set := load(t, s); len(set.Teams) != 1 || len(set.Keys) != 0 {
		t.Errorf("half a change is left: %+v", set)
	}
}

func deleteTeam(t *testing.T, s teams.Store) {
	putTeam(t, s, aTeam("search", `{}`))
	putKey(t, s, aKey("key_1", "search", "prod", teams.Secret{Hash: [32]byte{1}}))
	putKey(t, s, aKey("key_2", "reports", "prod", teams.Secret{Hash: [32]byte{2}}))
	if err := s.DeleteTeam(t.Context(), load(t, s).Version, "search"); err != nil {
		t.Fatal(err)
	}
	set := load(t, s)
	if len(set.Teams) != 0 || len(set.Keys) != 1 || set.Keys[0].ID != "key_2" {
		t.Errorf("left: %+v", set)
	}
	gone, err := s.Revoked(t.Context(), "search", 10)
	if err != nil || len(gone) != 1 || gone[0].ID != "key_1" || gone[0].Revoked.IsZero() || len(gone[0].Secrets) != 0 {
		t.Errorf("revoked: %+v, %v", gone, err)
	}
}

func revoked(t *testing.T, s teams.Store) {
	for i := range 4 {
		k := aKey(fmt.Sprint("key_", i), "search", "prod") // a revoked key's name is free again
		k.Revoked = moment.Add(time.Duration(i) * time.Hour)
		if i == 3 {
			k.Team = "reports"
		}
		putKey(t, s, k)
	}
	if set := load(t, s); len(set.Keys) != 0 {
		t.Errorf("revoked keys are loaded: %+v", set.Keys)
	}
	for _, test := range []struct {
		team string
		most int
		want string
	}{{"", 10, "[key_3 key_2 key_1 key_0]"}, {"search", 2, "[key_2 key_1]"}, {"none", 10, "[]"}} {
		keys, err := s.Revoked(t.Context(), test.team, test.most)
		ids := []string{}
		for _, k := range keys {
			ids = append(ids, k.ID)
		}
		if err != nil || fmt.Sprint(ids) != test.want {
			t.Errorf("revoked of %q: %v, %v, want %s", test.team, ids, err, test.want)
		}
	}
}

func concurrent(t *testing.T, s teams.Store) {
	const workers, each = 4, 5
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				for {
					v, err := s.Version(t.Context())
					if err == nil {
						err = s.PutTeam(t.Context(), v, aTeam(fmt.Sprintf("team-%d-%d", w, i), `{}`))
					}
					if err == nil {
						break
					}
					if !errors.Is(err, teams.ErrChanged) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if set := load(t, s); len(set.Teams) != workers*each || set.Version != workers*each {
		t.Errorf("%d teams at version %d, want %d", len(set.Teams), set.Version, workers*each)
	}
}
