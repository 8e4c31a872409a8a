package proxy

import (
	"net/http"
	"testing"
	"testing/synctest"

	"penstock/auth"
)

// A page may ask and read where it has to hold a key.
func TestPagesWithAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(200, answerJSON, "Access-Control-Allow-Origin", "https://provider.example", "Access-Control-Allow-Credentials", "true")), nil)
		o := w.do(w.request("OPTIONS", "/v1/chat/completions", "", "Authorization", "", "Origin", "https://app.example",
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,x-stainless-lang"))
		if o.status != http.StatusNoContent || o.header.Get("Access-Control-Allow-Origin") != "*" || o.body != "" || hits != 0 {
			t.Errorf("%d %v, %d requests at the upstream", o.status, o.header, hits)
		}
		if got := o.header.Get("Access-Control-Allow-Headers"); got != "authorization,content-type,x-stainless-lang" {
			t.Errorf("allowed headers: %q", got)
		}
		for _, c := range []struct {
			key    string
			status int
		}{{"Bearer " + clientKey, 200}, {"Bearer psk_wrong", 401}} {
			o := w.chat(hello, "Origin", "https://app.example", "Authorization", c.key)
			if o.status != c.status || o.header.Get("Access-Control-Allow-Origin") != "*" || o.header.Get("Access-Control-Expose-Headers") != "*" {
				t.Errorf("%d %v", o.status, o.header)
			}
			if o.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("what the upstream says of pages has passed")
			}
		}
		if o := w.chat(hello); o.header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("said of pages to who is none")
		}
		w.settled()
	})
}

// Where no key is asked for, no page may.
func TestPagesWithoutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, sends(200, answerJSON, "Access-Control-Allow-Origin", "*")), nil, func(s *Snapshot) {
			s.Keys = auth.NewKeys(nil, auth.Caller{Team: "search"})
		})
		o := w.do(w.request("OPTIONS", "/v1/chat/completions", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST"))
		if o.status != http.StatusForbidden || o.header.Get("Access-Control-Allow-Origin") != "" || hits != 0 {
			t.Errorf("%d %v", o.status, o.header)
		}
		if o := w.chat(hello, "Origin", "https://app.example"); o.status != http.StatusForbidden {
			t.Errorf("%d", o.status)
		}
		if o := w.do(w.request("GET", "/v1/files", "", "Origin", "https://app.example")); o.header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("a page may read what the upstream's key opens")
		}
	})
}

func TestHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hits := 0
		w := newWorld(t, counting(&hits, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.Header().Set("Content-Length", "1234")
		}), nil)
		if o := w.do(w.request("HEAD", "/v1/models", "")); o.status != 200 || o.body != "" || o.header.Get("Content-Length") == "0" || hits != 0 {
			t.Errorf("models: %d %v", o.status, o.header)
		}
		if o := w.do(w.request("HEAD", "/v1/files/file-1", "")); o.status != 200 || o.header.Get("Content-Length") != "1234" {
			t.Errorf("file: %d %v", o.status, o.header)
		}
		if o := w.do(w.request("HEAD", "/v1/models/nobody-has-this", "")); o.status != 404 || o.body != "" {
			t.Errorf("unknown: %d %q", o.status, o.body)
		}
		w.settled()
	})
}
