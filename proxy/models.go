package proxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"penstock/route"
)

// oneModel answers GET /models/{id}; the id may contain slashes, escaped or not.
func (x *exchange) oneModel(id string, names []string, open bool) (done bool, err error) {
	plain, err := url.PathUnescape(id)
	if err != nil {
		return false, errPath
	}
	if slices.Contains(names, plain) {
		x.answer(modelObject(plain))
		return true, nil
	}
	if !open || !route.Allowed(plain, x.team.Models) {
		return false, route.ErrUnknownModel
	}
	return false, nil
}

// modelObject is a model as OpenAI lists it. Its date is not known here.
func modelObject(name string) []byte {
	b, _ := json.Marshal(struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}{name, "model", 0, "penstock"})
	return b
}

// answer sends a body of the gateway's own.
func (x *exchange) answer(body []byte) {
	h := x.out.w.Header()
	h.Set("Content-Type", "application/json")
	x.own(h)
	x.rec.Outcome, x.rec.Status = "ok", http.StatusOK
	x.out.begin(http.StatusOK, int64(len(body)))
	_, _ = x.out.Write(body)
}
