package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func whoHandler(tokens ...Token) http.Handler {
	return Handler(Config{Tokens: tokens, Ready: func() bool { return true }, Gatherer: prometheus.NewRegistry(), API: []Route{
		{"POST /admin/test", false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in struct {
				Name string `json:"name"`
				Of   struct {
					N int `json:"n"`
				} `json:"of"`
			}
			if err := decode(w, r, true, &in); err != nil {
				fail(w, err)
				return
			}
			reply(w, http.StatusOK, Actor(r)+in.Name)
		})},
	}})
}

func send(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:9090"
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestTokenTellsWho(t *testing.T) {
	h := whoHandler(Token{"admin", "secret-admin-token"}, Token{"ci", "another-admin-token"})
	for token, name := range map[string]string{"secret-admin-token": `"admin"`, "another-admin-token": `"ci"`} {
		if w := send(h, "POST", "/admin/test", "", "Authorization", "Bearer "+token); w.Code != 200 || strings.TrimSpace(w.Body.String()) != name {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := send(whoHandler(), "POST", "/admin/test", ""); strings.TrimSpace(w.Body.String()) != `"loopback"` {
		t.Errorf("without tokens: %d %s", w.Code, w.Body)
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	for name, headers := range map[string][]string{
		"a form":        {"Sec-Fetch-Site", "cross-site"},
		"an old form":   {"Origin", "https://evil.example"},
		"a text body":   {"Content-Type", "text/plain"},
		"a rebound DNS": {"Host", "evil.example:9090", "Origin", "http://evil.example:9090", "Sec-Fetch-Site", "same-origin"},
	} {
		if w := send(whoHandler(), "POST", "/admin/test", "{}", headers...); w.Code != http.StatusForbidden && w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	for path, want := range map[string]int{"/metrics": http.StatusForbidden, "/healthz": http.StatusOK} {
		if w := send(whoHandler(), "GET", path, "", "Host", "evil.example:9090"); w.Code != want {
			t.Errorf("a rebound DNS, %s: %d", path, w.Code)
		}
	}
	for _, host := range []string{"localhost:9090", "[::1]:9090", "127.0.0.1"} {
		if w := send(whoHandler(), "POST", "/admin/test", "{}", "Host", host); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", host, w.Code, w.Body)
		}
	}
	h := whoHandler(Token{"ci", "another-admin-token"})
	if w := send(h, "POST", "/admin/test", "{}", "Host", "penstock.internal:9090", "Authorization", "Bearer another-admin-token"); w.Code != http.StatusOK {
		t.Errorf("with a token: %d %s", w.Code, w.Body)
	}
}

// covers SEC-05: what a body may not hold is refused, not ignored.
func TestBodiesAreReadStrictly(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"x","nmae":"y"}`:      `"param": "nmae"`,
		`{"of":{"m":1}}`:               `"param": "of.m"`,
		`{"of":{"n":"1"}}`:             `"param": "of.n"`,
		`{"name":"x","name":"y"}`:      `"code": "invalid_body"`,
		`{"name":"x"} {}`:              `"code": "invalid_body"`,
		`[1]`:                          `"code": "invalid_body"`,
		strings.Repeat(" ", maxBody+1): `"code": "request_too_large"`,
	} {
		w := send(whoHandler(), "POST", "/admin/test", body)
		if w.Code < 400 || w.Code >= 500 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.40s: %d %s", body, w.Code, w.Body)
		}
	}
	w := send(whoHandler(), "DELETE", "/admin/test", "")
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" || !strings.Contains(w.Body.String(), `"method_not_allowed"`) {
		t.Errorf("another method: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := send(whoHandler(), "GET", "/admin/nothing", ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `"unknown_path"`) {
		t.Errorf("an unknown path: %d %s", w.Code, w.Body)
	}
}
