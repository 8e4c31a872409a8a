package admin

import (
	"context"
	"errors"
	"net/http"
)

// An ExplainAPI tells what happened to single requests, and where every limit
// stands.
type ExplainAPI struct {
	// Explain returns the explanation of a request that ended lately at this gateway.
	Explain func(id string) (any, bool)
	// Limits returns every live level, or those of a team or an upstream where they
	// are not empty. An *Error is told to the caller.
	Limits func(ctx context.Context, team, upstream string) (any, error)
}

// Routes are those of explanations and levels.
func (a *ExplainAPI) Routes() []Route {
	return []Route{
		{"GET /admin/explain/{id}", false, http.HandlerFunc(a.explain)},
		{"GET /admin/limits", false, http.HandlerFunc(a.limits)},
	}
}

func (a *ExplainAPI) explain(w http.ResponseWriter, r *http.Request) {
	e, ok := a.Explain(r.PathValue("id"))
	if !ok {
		fail(w, &Error{Status: http.StatusNotFound, Code: "not_found", Message: "this gateway remembers no finished request of that id: it still runs, went to another gateway, or is older than those that explain.requests keeps"})
		return
	}
	reply(w, http.StatusOK, e)
}

func (a *ExplainAPI) limits(w http.ResponseWriter, r *http.Request) {
	query, err := parameters(r, "team", "upstream")
	if err != nil {
		fail(w, err)
		return
	}
	team, upstream := query.Get("team"), query.Get("upstream")
	if team != "" && upstream != "" {
		fail(w, &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: "upstream", Message: "upstream: expected either a team or an upstream, as no limit belongs to both"})
		return
	}
	live, err := a.Limits(r.Context(), team, upstream)
	if own := (*Error)(nil); errors.As(err, &own) {
		fail(w, own)
		return
	}
	if err != nil {
		fail(w, &Error{Status: http.StatusServiceUnavailable, Code: "levels_unavailable", Message: "the store of levels does not answer; try again"})
		return
	}
	reply(w, http.StatusOK, live)
}

// UnknownTeam refuses to show what belongs to a team that there is not.
func UnknownTeam() *Error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Param: "team", Message: "there is no team of that name; GET /admin/teams lists those there are"}
}

// UnknownUpstream refuses to show what belongs to an upstream that there is not.
func UnknownUpstream() *Error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Param: "upstream", Message: "there is no upstream of that name; those there are stand under upstreams in the configuration"}
}
