package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// keeps is an upstream that has the response with an id.
func keeps(id string, hits *int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*hits++
		body, _ := io.ReadAll(r.Body)
		known := strings.Contains(r.URL.Path, id) || strings.Contains(string(body), id)
		switch {
		case known:
			sends(200, `{"id":"`+id+`","object":"response","status":"completed","usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}`)(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/v1/responses":
			sends(400, `{"error":{"message":"Previous response not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}`)(w, r)
		default:
			sends(404, `{"error":{"message":"Response not found.","type":"invalid_request_error","param":null,"code":null}}`)(w, r)
		}
	}
}

// A stored answer is looked for at the other upstreams where the first does not
// have it.
func TestStoredAnswersAreFound(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
		upstream           string
		atA, atB           int
	}{
		{"GET", "/v1/responses/resp_a?include[]=x", "", 200, "a", 1, 0},
		{"GET", "/v1/responses/resp_b", "", 200, "b", 1, 1},
		{"DELETE", "/v1/responses/resp_b", "", 200, "b", 1, 1},
		{"POST", "/v1/responses/resp_b/cancel", "", 200, "b", 1, 1},
		{"GET", "/v1/chat/completions/resp_b/messages", "", 200, "b", 1, 1},
		{"GET", "/v1/responses/resp_c", "", 404, "b", 1, 1},
		{"GET", "/v1/files/resp_b", "", 404, "a", 1, 0},
		{"POST", "/v1/responses", `{"model":"both","input":"x","previous_response_id":"resp_b"}`, 200, "b", 1, 1},
		{"POST", "/v1/responses", `{"model":"both","input":"x","previous_response_id":"resp_c"}`, 400, "b", 1, 1},
		{"POST", "/v1/responses", `{"model":"m","input":"x","previous_response_id":"resp_b"}`, 400, "a", 1, 0},
	} {
		t.Run(c.method+c.path+c.body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var atA, atB int
				w := newWorld(t, keeps("resp_a", &atA), keeps("resp_b", &atB))
				o := w.do(w.request(c.method, c.path, c.body))
				if o.status != c.status || o.header.Get("X-Penstock-Upstream") != c.upstream || atA != c.atA || atB != c.atB {
					t.Errorf("%d from %s, %d and %d requests: %s", o.status, o.header.Get("X-Penstock-Upstream"), atA, atB, o.body)
				}
				synctest.Wait()
				w.settled()
			})
		})
	}
}

// A client's own credential goes to no other upstream than its own.
func TestForwardedCredentialsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var atA, atB int
		w := newWorld(t, keeps("resp_a", &atA), keeps("resp_b", &atB), func(s *Snapshot) {
			s.Routes.Default.Forward = true
		})
		if o := w.do(w.request("GET", "/v1/responses/resp_b", "")); o.status != 404 || atB != 0 {
			t.Errorf("%d, %d requests at the other", o.status, atB)
		}
		synctest.Wait()
		w.settled()
	})
}
