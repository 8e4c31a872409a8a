package admin

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A filter that names what there is not is no empty answer.
func TestFilterOfLimits(t *testing.T) {
	api := &ExplainAPI{Limits: func(_ context.Context, team, upstream string) (any, error) {
		switch {
		case team == "gone":
			return nil, errors.New("the store is away")
		case team != "" && team != "search":
			return nil, UnknownTeam()
		case upstream != "" && upstream != "up":
			return nil, UnknownUpstream()
		}
		return map[string]any{"limits": []any{}}, nil
	}}
	h := Handler(Config{Ready: func() bool { return true }, Gatherer: prometheus.NewRegistry(), API: api.Routes()})
	for query, want := range map[string]struct {
		status      int
		code, param any
	}{
		"": {200, nil, nil}, "?team=search": {200, nil, nil}, "?upstream=up": {200, nil, nil}, "?team=&upstream=": {200, nil, nil},
		"?team=nobody":             {404, "not_found", "team"},
		"?upstream=nobody":         {404, "not_found", "upstream"},
		"?team=search&upstream=up": {400, "invalid_value", "upstream"},
		"?teem=search":             {400, "invalid_value", "teem"},
		"?team=gone":               {503, "levels_unavailable", nil},
	} {
		rec := send(h, http.MethodGet, "/admin/limits"+query, "")
		e, _ := decoded(t, rec)["error"].(map[string]any)
		if rec.Code != want.status || e["code"] != want.code || e["param"] != want.param {
			t.Errorf("%s: %d %v", query, rec.Code, e)
		}
	}
}
