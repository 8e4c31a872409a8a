package teams_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/teams"
	"penstock/teams/teamstest"
)

// lenient accepts every setting but one.
type lenient struct{}

func (lenient) Team(_ string, settings []byte) error {
	if bytes.Contains(settings, []byte("wrong")) {
		return &teams.Invalid{Field: "wrong", Message: "is wrong"}
	}
	return nil
}
func (lenient) Key(name string, settings []byte) error { return lenient{}.Team(name, settings) }

// A replica is a registry with what it has put in force.
type replica struct {
	*teams.Registry
	logs  *bytes.Buffer
	force *teams.Set
}

// replicaOf starts a registry, in a bubble, on a store.
func replicaOf(t *testing.T, store teams.Store, file teams.File, a teams.Announcer) *replica {
	t.Helper()
	r := &replica{logs: &bytes.Buffer{}}
	r.Registry = teams.New(teams.Parts{
		Store: store, Check: lenient{}, Announce: a, Log: slog.New(slog.NewTextHandler(r.logs, nil)),
		Apply: func(s *teams.Set) { r.force = s },
	}, file)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func mustKey(t *testing.T, r *replica, team, name, secret string) teams.Key {
	t.Helper()
	k, err := r.CreateKey(t.Context(), team, name, []byte(`{}`), sha256.Sum256([]byte(secret)))
	if err != nil {
		t.Fatalf("create key %s: %v", name, err)
	}
	return k
}

func (r *replica) names() []string {
	var all []string
	for _, k := range r.force.Keys {
		all = append(all, k.Team+"/"+k.Name)
	}
	slices.Sort(all)
	return all
}

// pass lets virtual time pass, and everything due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// covers SEC-08: what one replica changes is in force there at once, and at every
// other within a second.
func TestChangesReachEveryReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &teamstest.Memory{}
		a, b := replicaOf(t, store, nil, nil), replicaOf(t, store, nil, nil)
		if _, err := a.CreateTeam(t.Context(), "search", []byte(`{"weight":2}`)); err != nil {
			t.Fatal(err)
		}
		k := mustKey(t, a, "search", "prod", "one")
		if len(a.force.Keys) != 1 {
			t.Error("not in force where it was made")
		}
		pass(time.Second)
		if len(b.force.Teams) != 1 || len(b.force.Keys) != 1 {
			t.Fatalf("after a second the other has %+v", b.force)
		}
		if _, err := b.RevokeKey(t.Context(), k.ID); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if len(a.force.Keys) != 0 {
			t.Error("a revoked key is in force after a second")
		}
		if gone, err := a.Revoked(t.Context(), "search", 10); err != nil || len(gone) != 1 || gone[0].ID != k.ID {
			t.Errorf("revoked: %v, %v", gone, err)
		}
		mustKey(t, a, "search", "prod", "two") // the name is free again
	})
}

type announcer struct {
	heard chan struct{}
	other *announcer
}

func (a *announcer) Announce(context.Context) error { a.other.heard <- struct{}{}; return nil }
func (a *announcer) Heard() <-chan struct{}         { return a.heard }

func TestAnnouncementsAreQuicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, x, y := &teamstest.Memory{}, &announcer{heard: make(chan struct{}, 1)}, &announcer{heard: make(chan struct{}, 1)}
		x.other, y.other = y, x
		a, b := replicaOf(t, store, nil, x), replicaOf(t, store, nil, y)
		begin := time.Now()
		if _, err := a.CreateTeam(t.Context(), "search", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.force == nil || len(b.force.Teams) != 1 || time.Since(begin) > 10*time.Millisecond {
			t.Errorf("not in force after %v", time.Since(begin))
		}
	})
}

// covers DB-05: while the database is away, or after it was replaced by an empty
// one, the last known set stays in force; never an empty one.
func TestLastKnownSetStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &teamstest.Memory{}
		r := replicaOf(t, store, teams.File{"search": {Settings: []byte(`{}`)}}, nil)
		k := mustKey(t, r, "search", "prod", "one")
		mustKey(t, r, "search", "dev", "two")
		store.Break(errors.New("connection refused"))
		pass(150 * time.Second)
		if got := strings.Join(r.names(), " "); got != "search/dev search/prod" {
			t.Errorf("in force: %s", got)
		}
		var away *teams.Unavailable
		if _, err := r.RevokeKey(t.Context(), k.ID); !errors.As(err, &away) {
			t.Errorf("a change without the database: %v", err)
		}
		if s := r.Status(); s.OK || s.Age < 149*time.Second || s.Failures < 250 || s.Keys != 2 {
			t.Errorf("status %+v", s)
		}
		if n := strings.Count(r.logs.String(), "cannot be read"); n < 2 || n > 4 {
			t.Errorf("%d log lines in 150 s, want one a minute:\n%s", n, r.logs)
		}
		store.Break(nil)
		pass(time.Second)
		if s := r.Status(); !s.OK || s.Age > time.Second {
			t.Errorf("after recovery: %+v", s)
		}
		store.Forget()
		pass(time.Second)
		if got := strings.Join(r.names(), " "); got != "search/dev search/prod" || r.Status().OK {
			t.Errorf("in force after the database is empty: %s, %+v", got, r.Status())
		}
	})
}

func TestStartNeedsTheStore(t *testing.T) {
	store := &teamstest.Memory{}
	store.Break(errors.New("connection refused"))
	r := teams.New(teams.Parts{Store: store}, nil)
	if err := r.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "load teams and keys: connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicaOf(t, &teamstest.Memory{}, teams.File{"search": {Settings: []byte(`{}`)}}, nil)
		k := mustKey(t, r, "search", "prod", "first")
		begin := time.Now()
		rotate := func(secret string, grace time.Duration) map[string]time.Duration {
			t.Helper()
			got, err := r.RotateKey(t.Context(), k.ID, sha256.Sum256([]byte(secret)), grace)
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]time.Duration{}
			for _, s := range got.Secrets {
				for _, text := range []string{"first", "second", "third", "fourth"} {
					if sha256.Sum256([]byte(text)) == s.Hash {
						left[text] = 0
						if !s.Expires.IsZero() {
							left[text] = s.Expires.Sub(begin)
						}
					}
				}
			}
			return left
		}
		if got := rotate("second", time.Hour); len(got) != 2 || got["first"] != time.Hour || got["second"] != 0 {
			t.Errorf("after the first rotation: %v", got)
		}
		// A later rotation never lengthens a grace period.
		if got := rotate("third", 2*time.Hour); len(got) != 3 || got["first"] != time.Hour || got["second"] != 2*time.Hour {
			t.Errorf("after the second: %v", got)
		}
		time.Sleep(90 * time.Minute)
		rotate("x", time.Hour)
		rotate("y", time.Hour)
		var conflict *teams.Conflict
		if _, err := r.RotateKey(t.Context(), k.ID, [32]byte{1}, time.Hour); !errors.As(err, &conflict) || conflict.Field != "grace" {
			t.Errorf("a rotation that would end a secret before its time: %v", err)
		}
		if got := rotate("fourth", 0); len(got) != 1 {
			t.Errorf("without grace: %v", got)
		}
		if _, err := r.RotateKey(t.Context(), k.ID, [32]byte{}, 31*24*time.Hour); err == nil {
			t.Error("a grace period of 31 days is taken")
		}
	})
}

func TestSettingsArePatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicaOf(t, &teamstest.Memory{}, nil, nil)
		if _, err := r.CreateTeam(t.Context(), "search", []byte(`{"weight":2,"limits":{"requests":"5/s","tokens":"1M/min"}}`)); err != nil {
			t.Fatal(err)
		}
		got, err := r.UpdateTeam(t.Context(), "search", []byte(`{"weight":9007199254740993,"limits":{"requests":null,"concurrency":{"limit":3}}}`))
		if want := `{"limits":{"concurrency":{"limit":3},"tokens":"1M/min"},"weight":9007199254740993}`; err != nil || string(got.Settings) != want {
			t.Errorf("got %s, %v, want %s", got.Settings, err, want)
		}
		var invalid *teams.Invalid
		for _, patch := range []string{`{"weight":1,"weight":2}`, `[]`, `null`, `{"wrong":1}`} {
			if _, err := r.UpdateTeam(t.Context(), "search", []byte(patch)); !errors.As(err, &invalid) {
				t.Errorf("%s: %v", patch, err)
			}
		}
		k := mustKey(t, r, "search", "prod", "one")
		if k, err = r.UpdateKey(t.Context(), k.ID, []byte(`{"disabled":true}`)); err != nil || string(k.Settings) != `{"disabled":true}` || len(k.Secrets) != 1 {
			t.Errorf("%+v, %v", k, err)
		}
	})
}

// What stands in the file is listed, but changed only there.
func TestFileAndDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := teams.File{"search": {Settings: []byte(`{"weight":3}`), Keys: map[string][]byte{"prod": []byte(`{}`)}}}
		r := replicaOf(t, &teamstest.Memory{}, file, nil)
		own := mustKey(t, r, "search", "dev", "one") // teams of the file may have keys in the database
		if _, err := r.CreateTeam(t.Context(), "reports", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, k := range r.Keys("search") {
			ids = append(ids, k.ID)
		}
		if len(ids) != 2 || ids[0] != own.ID || ids[1] != "file:search:prod" || len(r.Teams()) != 2 {
			t.Errorf("keys %v, teams %v", ids, r.Teams())
		}
		var conflict *teams.Conflict
		var fromFile *teams.FileError
		var invalid *teams.Invalid
		_, err := r.UpdateTeam(t.Context(), "search", []byte(`{}`))
		check := func(what string, ok bool) {
			t.Helper()
			if !ok {
				t.Errorf("%s: %v", what, err)
			}
		}
		check("update a team of the file", errors.As(err, &fromFile))
		err = r.DeleteTeam(t.Context(), "search", true)
		check("delete a team of the file", errors.As(err, &fromFile))
		_, err = r.RevokeKey(t.Context(), "file:search:prod")
		check("revoke a key of the file", errors.As(err, &fromFile))
		_, err = r.CreateTeam(t.Context(), "search", []byte(`{}`))
		check("a team of the file's name", errors.Is(err, teams.ErrExists))
		_, err = r.CreateTeam(t.Context(), "reports", []byte(`{}`))
		check("a team that exists", errors.Is(err, teams.ErrExists))
		_, err = r.CreateKey(t.Context(), "search", "prod", []byte(`{}`), [32]byte{1})
		check("a key of the file's name", errors.Is(err, teams.ErrExists))
		_, err = r.CreateKey(t.Context(), "nobody", "prod", []byte(`{}`), [32]byte{1})
		check("a key of no team", errors.As(err, &invalid))
		mustKey(t, r, "reports", "prod", "three")
		err = r.DeleteTeam(t.Context(), "reports", false)
		check("delete a team with keys", errors.As(err, &conflict))
		err = r.SetFile(teams.File{"reports": {Settings: []byte(`{}`)}})
		check("a file with a name of the database", err != nil && strings.Contains(err.Error(), "penstock teams delete reports"))
		err = r.SetFile(teams.File{"search": {Settings: []byte(`{}`), Keys: map[string][]byte{"dev": nil}}})
		check("a file with a key of the database", err != nil && strings.Contains(err.Error(), "penstock keys revoke "+own.ID))
		err = r.DeleteTeam(t.Context(), "reports", true)
		check("delete a team and its keys", err == nil && len(r.Keys("reports")) == 0)
		_, err = r.Key("key_0")
		check("an unknown key", errors.Is(err, teams.ErrNotFound))
	})
}

func TestWithoutDatabase(t *testing.T) {
	r := replicaOf(t, nil, teams.File{"search": {Settings: []byte(`{}`)}}, nil)
	if _, err := r.CreateTeam(t.Context(), "reports", []byte(`{}`)); !errors.Is(err, teams.ErrNoStore) {
		t.Errorf("got %v", err)
	}
	if len(r.Teams()) != 1 || r.Status().Stored {
		t.Errorf("teams %v, status %+v", r.Teams(), r.Status())
	}
}
