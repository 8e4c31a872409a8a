package admin

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"penstock/auth"
	"penstock/teams"
)

// maxRevoked is how many revoked keys are listed.
const maxRevoked = 1000

// keyObject is a key as the API shows it: never what it is recognised by.
func keyObject(k teams.Key) object {
	o := object{}
	_ = json.Unmarshal(k.Settings, &o) // they were read before
	o["id"], o["team"], o["name"], o["source"] = value(k.ID), value(k.Team), value(k.Name), value(k.Source)
	stamp(o, "created", k.Created)
	stamp(o, "updated", k.Updated)
	stamp(o, "revoked", k.Revoked)
	var grace time.Time
	for _, s := range k.Secrets {
		if s.Expires.After(grace) && s.Expires.After(time.Now()) {
			grace = s.Expires
		}
	}
	stamp(o, "former_valid_until", grace)
	return o
}

func (a *TeamsAPI) listKeys(w http.ResponseWriter, r *http.Request) {
	query, err := parameters(r, "team", "revoked")
	if err != nil {
		fail(w, err)
		return
	}
	team, revoked := query.Get("team"), query.Get("revoked")
	keys := a.Registry.Keys(team)
	if revoked != "" && revoked != "true" && revoked != "false" {
		fail(w, &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: "revoked", Message: "revoked: expected true or false"})
		return
	}
	if revoked == "true" {
		gone, err := a.Registry.Revoked(r.Context(), team, maxRevoked)
		if err != nil {
			fail(w, a.refusal(err))
			return
		}
		keys = append(keys, gone...)
	}
	if len(keys) == 0 && team != "" { // of a team that is gone the revoked keys are still known
		if _, err := a.Registry.Team(team); err != nil {
			fail(w, UnknownTeam())
			return
		}
	}
	all := []object{}
	for _, k := range keys {
		all = append(all, keyObject(k))
	}
	reply(w, http.StatusOK, map[string]any{"keys": all})
}

func (a *TeamsAPI) showKey(w http.ResponseWriter, r *http.Request) {
	k, err := a.Registry.Key(r.PathValue("id"))
	if err != nil {
		fail(w, a.refusal(err))
		return
	}
	reply(w, http.StatusOK, keyObject(k))
}

// createKey makes a key. Its answer is the one place where the key is ever shown.
func (a *TeamsAPI) createKey(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	texts, settings, err := named(w, r, "team", "name")
	if err != nil {
		return nil, err
	}
	team, name := texts[0], texts[1]
	log.add("team", clip(team), "key", clip(name))
	secret := auth.NewKey()
	k, err := a.Registry.CreateKey(r.Context(), team, name, settings, auth.HashOf(secret))
	if err != nil {
		return nil, err
	}
	log.add("key_id", k.ID, "settings", clip(string(k.Settings)))
	o := keyObject(k)
	o["key"] = value(secret)
	return o, nil
}

// about adds what is known of a key to the audit log. What is no id stays out of
// it: it may be a key that somebody gave in its place. It reports whether it was known.
func (a *TeamsAPI) about(id string, log *trail) (known bool) {
	k, err := a.Registry.Key(id)
	if err == nil {
		log.add("key_id", id, "team", k.Team, "key", k.Name)
	}
	return err == nil
}

func (a *TeamsAPI) updateKey(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	a.about(r.PathValue("id"), log)
	patch, err := body(w, r, false)
	if err != nil {
		return nil, err
	}
	k, err := a.Registry.UpdateKey(r.Context(), r.PathValue("id"), patch)
	if err != nil {
		return nil, err
	}
	log.add("settings", clip(string(k.Settings)))
	return keyObject(k), nil
}

// defaultGrace is how long a rotated key stays good where the caller does not say.
const defaultGrace = 24 * time.Hour

func (a *TeamsAPI) rotateKey(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	a.about(r.PathValue("id"), log)
	var in struct {
		Grace *string `json:"grace"`
	}
	if err := decode(w, r, true, &in); err != nil {
		return nil, err
	}
	grace := defaultGrace
	if in.Grace != nil {
		var err error
		if grace, err = time.ParseDuration(*in.Grace); err != nil || grace < 0 {
			return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: "grace", Message: "grace: expected a duration such as 0s, 30m or 24h"}
		}
	}
	log.add("grace", grace.String())
	secret := auth.NewKey()
	k, err := a.Registry.RotateKey(r.Context(), r.PathValue("id"), auth.HashOf(secret), grace)
	if err != nil {
		return nil, err
	}
	o := keyObject(k)
	o["key"] = value(secret)
	return o, nil
}

func (a *TeamsAPI) revokeKey(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	known := a.about(r.PathValue("id"), log)
	if err := decode(w, r, true, &struct{}{}); err != nil {
		return nil, err
	}
	k, err := a.Registry.RevokeKey(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if !known {
		log.add("key_id", k.ID, "team", k.Team, "key", k.Name)
	}
	return keyObject(k), nil
}
