package admin

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"penstock/teams"
)

// A TeamsAPI lets the bearers of admin tokens manage teams and keys. Nobody else
// can: there is no way to change anything by a client key.
type TeamsAPI struct {
	Registry *teams.Registry
	Log      *slog.Logger // refusals that the caller is not told the cause of
	Audit    *slog.Logger // one line for each change, whether it was made or refused
}

// Routes are those of teams and keys.
func (a *TeamsAPI) Routes() []Route {
	return []Route{
		{"GET /admin/teams", false, http.HandlerFunc(a.listTeams)},
		{"POST /admin/teams", false, a.change("teams.create", http.StatusCreated, a.createTeam)},
		{"GET /admin/teams/{name}", false, http.HandlerFunc(a.showTeam)},
		{"PATCH /admin/teams/{name}", false, a.change("teams.update", http.StatusOK, a.updateTeam)},
		{"DELETE /admin/teams/{name}", false, a.change("teams.delete", http.StatusOK, a.deleteTeam)},
		{"GET /admin/keys", false, http.HandlerFunc(a.listKeys)},
		{"POST /admin/keys", false, a.change("keys.create", http.StatusCreated, a.createKey)},
		{"GET /admin/keys/{id}", false, http.HandlerFunc(a.showKey)},
		{"PATCH /admin/keys/{id}", false, a.change("keys.update", http.StatusOK, a.updateKey)},
		{"POST /admin/keys/{id}/rotate", false, a.change("keys.rotate", http.StatusOK, a.rotateKey)},
		{"POST /admin/keys/{id}/revoke", false, a.change("keys.revoke", http.StatusOK, a.revokeKey)},
	}
}

// An object is a JSON object whose members keep their own text.
type object = map[string]jsontext.Value

func value(v any) jsontext.Value {
	b, err := json.Marshal(v)
	if err != nil {
		return jsontext.Value("null")
	}
	return b
}

// A trail is what the audit log says of a change.
type trail []any

func (t *trail) add(args ...any) { *t = append(*t, args...) }

// change is the handler of a change: it answers, and writes the audit log.
func (a *TeamsAPI) change(action string, status int, do func(http.ResponseWriter, *http.Request, *trail) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remote, _, _ := net.SplitHostPort(r.RemoteAddr)
		t := trail{"actor", Actor(r), "action", action, "remote", remote}
		answer, err := do(w, r, &t)
		if err != nil {
			e := a.refusal(err)
			t.add("result", e.Code)
			a.Audit.Info("admin change refused", t...)
			fail(w, e)
			return
		}
		t.add("result", "ok")
		a.Audit.Info("admin change", t...)
		reply(w, status, answer)
	})
}

// refusal turns an error into what the caller is told.
func (a *TeamsAPI) refusal(err error) *Error {
	var (
		own      *Error
		file     *teams.FileError
		invalid  *teams.Invalid
		conflict *teams.Conflict
		away     *teams.Unavailable
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &file):
		return &Error{Status: http.StatusConflict, Code: "in_configuration_file", Message: file.Error()}
	case errors.As(err, &invalid):
		return &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: invalid.Field, Message: invalid.Error()}
	case errors.As(err, &conflict):
		return &Error{Status: http.StatusConflict, Code: "conflict", Param: conflict.Field, Message: conflict.Error()}
	case errors.Is(err, teams.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Code: "not_found", Message: err.Error()}
	case errors.Is(err, teams.ErrExists):
		return &Error{Status: http.StatusConflict, Code: "exists", Param: "name", Message: err.Error()}
	case errors.Is(err, teams.ErrChanged):
		return &Error{Status: http.StatusConflict, Code: "changed_meanwhile", Message: err.Error()}
	case errors.Is(err, teams.ErrNoStore):
		return &Error{Status: http.StatusConflict, Code: "no_database", Message: err.Error()}
	case errors.As(err, &away):
		a.Log.Error("teams and keys cannot be changed", "error", away.Error())
		return &Error{Status: http.StatusServiceUnavailable, Code: "database_unavailable",
			Message: "the database of teams and keys cannot be reached or written now; whether this change was made is not known: look before you repeat it"}
	}
	a.Log.Error("internal error of the admin API", "error", err.Error())
	return &Error{Status: http.StatusInternalServerError, Code: "internal_error", Message: "the gateway failed to handle this request; its log has the reason"}
}

// fields are the members of a body that are not settings. take removes one that
// must be text.
type fields object

func readFields(b []byte) (fields, error) {
	var f fields
	if err := json.Unmarshal(b, &f); err != nil || f == nil {
		return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_body", Message: "expected one JSON object, in which no name stands twice"}
	}
	return f, nil
}

func (f fields) take(name string) (string, error) {
	var text string
	raw, ok := f[name]
	delete(f, name)
	if !ok || raw.Kind() != '"' || json.Unmarshal(raw, &text) != nil || text == "" {
		return "", &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: name, Message: name + ": expected text"}
	}
	return text, nil
}

// named reads a body whose members are settings, but for texts of these names.
func named(w http.ResponseWriter, r *http.Request, names ...string) (texts []string, settings []byte, err error) {
	b, err := body(w, r, false)
	if err != nil {
		return nil, nil, err
	}
	f, err := readFields(b)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		text, err := f.take(name)
		if err != nil {
			return nil, nil, err
		}
		texts = append(texts, text)
	}
	return texts, f.settings(), nil
}

func (f fields) settings() []byte { return value(object(f)) }

// teamObject is a team as the API shows it: its settings, and what is known of it
// besides.
func teamObject(t teams.Team, keys []teams.Key) object {
	o := object{}
	_ = json.Unmarshal(t.Settings, &o) // they were read before
	o["name"], o["source"] = value(t.Name), value(t.Source)
	names := []string{}
	for _, k := range keys {
		names = append(names, k.Name)
	}
	o["keys"] = value(names)
	stamp(o, "created", t.Created)
	stamp(o, "updated", t.Updated)
	return o
}

func (a *TeamsAPI) shown(t teams.Team) object { return teamObject(t, a.Registry.Keys(t.Name)) }

func stamp(o object, name string, t time.Time) {
	if !t.IsZero() {
		o[name] = value(t.UTC().Format(time.RFC3339))
	}
}

func (a *TeamsAPI) listTeams(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		fail(w, err)
		return
	}
	keys := map[string][]teams.Key{}
	for _, k := range a.Registry.Keys("") {
		keys[k.Team] = append(keys[k.Team], k)
	}
	all := []object{}
	for _, t := range a.Registry.Teams() {
		all = append(all, teamObject(t, keys[t.Name]))
	}
	reply(w, http.StatusOK, map[string]any{"teams": all})
}

func (a *TeamsAPI) showTeam(w http.ResponseWriter, r *http.Request) {
	t, err := a.Registry.Team(r.PathValue("name"))
	if err != nil {
		fail(w, a.refusal(err))
		return
	}
	reply(w, http.StatusOK, a.shown(t))
}

func (a *TeamsAPI) createTeam(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	texts, settings, err := named(w, r, "name")
	if err != nil {
		return nil, err
	}
	log.add("team", clip(texts[0]))
	t, err := a.Registry.CreateTeam(r.Context(), texts[0], settings)
	if err != nil {
		return nil, err
	}
	// Settings are logged once they have been accepted, so that nothing that
	// somebody put there by mistake is.
	log.add("settings", clip(string(t.Settings)))
	return a.shown(t), nil
}

func (a *TeamsAPI) updateTeam(w http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	log.add("team", clip(r.PathValue("name")))
	patch, err := body(w, r, false)
	if err != nil {
		return nil, err
	}
	t, err := a.Registry.UpdateTeam(r.Context(), r.PathValue("name"), patch)
	if err != nil {
		return nil, err
	}
	log.add("settings", clip(string(t.Settings)))
	return a.shown(t), nil
}

func (a *TeamsAPI) deleteTeam(_ http.ResponseWriter, r *http.Request, log *trail) (any, error) {
	name := r.PathValue("name")
	query, err := parameters(r, "keys")
	if err != nil {
		return nil, err
	}
	keys := query.Get("keys")
	log.add("team", clip(name), "with_keys", keys == "revoke")
	if keys != "" && keys != "revoke" {
		return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: "keys", Message: "keys: expected revoke, or nothing"}
	}
	if err := a.Registry.DeleteTeam(r.Context(), name, keys == "revoke"); err != nil {
		return nil, err
	}
	return map[string]any{"name": name, "deleted": true}, nil
}

// clip bounds what a log line holds of a body.
func clip(s string) string {
	const most = 2048
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
