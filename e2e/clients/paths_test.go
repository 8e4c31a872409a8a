package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"penstock/auth"
	"penstock/e2e/clients/stack"
	"penstock/e2e/harness"
)

// paths are the requests of the API, one of each kind, as "METHOD path kind". The
// kind of a body is json, form, sdp or none.
const paths = `
POST /chat/completions json
GET /chat/completions?model=m&metadata[a]=b%20c&after=x&limit=2&order=asc none
GET /chat/completions/cc_1 none
POST /chat/completions/cc_1 json
DELETE /chat/completions/cc_1 none
GET /chat/completions/cc_1/messages?limit=1 none
POST /completions json
POST /responses json
POST /responses?beta=true json
GET /responses/resp_1?include[]=a&include[]=b&include_obfuscation=false none
DELETE /responses/resp_1 none
POST /responses/resp_1/cancel none
GET /responses/resp_1/input_items?after=x&limit=5 none
POST /responses/input_tokens json
POST /responses/compact json
POST /decisions json
POST /embeddings json
POST /moderations json
POST /images/generations json
POST /images/edits form
POST /images/edits json
POST /images/variations form
POST /audio/speech json
POST /audio/transcriptions form
POST /audio/translations form
POST /audio/voices form
GET /audio/voice_consents?limit=3 none
POST /audio/voice_consents/c_1 json
DELETE /audio/voice_consents/c_1 none
POST /content_provenance_checks form
DELETE /models/ft:gpt-4o:org::id none
POST /files form
GET /files?purpose=batch&after=f&limit=100&order=desc none
GET /files/file-1 none
DELETE /files/file-1 none
GET /files/file-1/content none
POST /uploads json
POST /uploads/upload_1/parts form
POST /uploads/upload_1/complete json
POST /uploads/upload_1/cancel none
POST /batches json
GET /batches?after=b&limit=3 none
GET /batches/batch_1 none
POST /batches/batch_1/cancel none
POST /vector_stores json
GET /vector_stores?limit=1&before=v none
POST /vector_stores/vs_1 json
DELETE /vector_stores/vs_1 none
POST /vector_stores/vs_1/files json
GET /vector_stores/vs_1/files/file-1/content none
POST /vector_stores/vs_1/file_batches json
POST /vector_stores/vs_1/search json
POST /conversations json
POST /conversations/conv_1/items?include[]=a json
DELETE /conversations/conv_1/items/i_1 none
POST /containers json
POST /containers/c_1/files form
GET /containers/c_1/files/f_1/content none
POST /fine_tuning/jobs json
GET /fine_tuning/jobs/ft_1/events?limit=2 none
POST /fine_tuning/jobs/ft_1/pause none
GET /fine_tuning/jobs/ft_1/checkpoints none
POST /fine_tuning/checkpoints/ft:gpt-4o:org::id:ckpt-step-1/permissions json
POST /fine_tuning/alpha/graders/run json
POST /evals json
POST /evals/e_1/runs json
GET /evals/e_1/runs/r_1/output_items none
POST /skills form
GET /skills/s_1/versions/1/content none
POST /videos form
POST /videos/v_1/remix json
GET /videos/v_1/content?variant=thumbnail none
POST /assistants json
POST /threads json
POST /threads/runs json
POST /threads/t_1/runs/r_1/submit_tool_outputs json
POST /chatkit/sessions json
POST /agents/sessions json
POST /vaults json
POST /webhook_endpoints json
POST /realtime/client_secrets json
POST /realtime/translations/client_secrets json
POST /realtime/calls form
POST /realtime/calls sdp
POST /realtime/calls/rtc_1/accept json
POST /realtime/calls/rtc_1/hangup none
POST /realtime/sessions json
POST /live/sessions json
POST /live/sessions/l_1/hangup none
GET /live/sessions/l_1/content none
POST /messages json
POST /rerank json
PUT /anything/new?x=%2F&y=a+b json
PATCH /anything/new json
HEAD /files/file-1/content none
`

// seen is a request as it arrived.
type seen struct {
	Method, Path, Query, Body string
	Header                    http.Header
}

// echo answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	sum := fmt.Sprintf("%d bytes, %x", len(body), sha256.Sum256(body))
	h := w.Header()
	h["X-Answer"] = []string{"one", "zwei; q=\"é\""}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Location", "/v1/realtime/calls/rtc_1")
	if r.Method == http.MethodPost && !strings.Contains(r.URL.Path, "completions") {
		w.WriteHeader(http.StatusCreated)
	}
	r.Header.Set("Authorization", fmt.Sprintf("%x", sha256.Sum256([]byte(r.Header.Get("Authorization"))))) // which would be masked
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, sum, r.Header})
}

// pathCase is one request of the list, ready to be sent.
func pathCase(t *testing.T, line, base, key string) *http.Request {
	t.Helper()
	part := strings.Fields(line)
	body, kind := "", ""
	switch part[2] {
	case "json":
		kind, body = "application/json", "{ \"model\": \"m\",\"input\" :\"h\\u00e9 ü\", \"messages\":[ ],\"prompt\":\"x\",\"big\":12345678901234567890,\"f\":1.0e2 }\n"
	case "sdp":
		kind, body = "application/sdp", "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n"
	case "form":
		var b bytes.Buffer
		form := multipart.NewWriter(&b)
		_ = form.SetBoundary("--a.boundary--")
		_ = form.WriteField("model", "m")
		_ = form.WriteField("purpose", "batch")
		for _, name := range []string{"image[]", "image[]", "file"} {
			w, _ := form.CreateFormFile(name, "näme.png")
			_, _ = w.Write(bytes.Repeat([]byte{0, 0xff, '\r', '\n', '-', '-'}, 5000))
		}
		_ = form.Close()
		kind, body = form.FormDataContentType(), b.String()
	}
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(within(t), part[0], base+part[1], r)
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header["Openai-Beta"] = []string{"assistants=v2", "agents=v1"}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + key, "X-Odd": "a  b\tc; d=\"é\"", "X-Stainless-Lang": "go", "User-Agent": "a client/1.0",
		"Idempotency-Key": "k 1", "Accept": "application/vnd.x+json", "Accept-Encoding": "identity", "Accept-Language": "*", "X-Client-Request-Id": "mine",
	} {
		req.Header.Set(name, value)
	}
	return req
}

// exchangeOf sends a request and returns the answer, and what the upstream has seen
// of it.
func exchangeOf(t *testing.T, req *http.Request) (*http.Response, seen) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got seen
	if err := json.Unmarshal(body, &got); err != nil && req.Method != http.MethodHead {
		t.Fatalf("%d %.300s", resp.StatusCode, body)
	}
	return resp, got
}

// Every path of the API is relayed as it came, with and without /v1: with the
// client's own key, with the gateway's, and with keys of teams.
func TestEveryPath(t *testing.T) {
	up := harness.Serve(t, http.HandlerFunc(echo))
	upstreams := "upstreams: {up: {base_url: " + up + "/v1, api_key: \"${E2E_UPSTREAM_KEY}\"}}\n"
	for name, config := range map[string]string{
		"sidecar": "upstreams: {up: {base_url: " + up + "/v1}}\n",
		"own key": upstreams,
		"teams":   fmt.Sprintf("%steams: {all: {keys: [{name: all, hash: %q}]}}\n", upstreams, auth.HashOf(stack.ClientKey)),
	} {
		t.Run(name, func(t *testing.T) {
			g := harness.Start(t, config, "E2E_UPSTREAM_KEY="+stack.UpstreamKey)
			key := stack.UpstreamKey
			if name == "sidecar" {
				key = stack.ClientKey
			}
			for line := range strings.Lines(strings.TrimSpace(paths)) {
				want, direct := exchangeOf(t, pathCase(t, line, up+"/v1", key))
				for _, base := range []string{g.URL + "/v1", g.URL} {
					resp, got := exchangeOf(t, pathCase(t, line, base, stack.ClientKey))
					compare(t, strings.TrimSpace(line)+" at "+strings.TrimPrefix(base, g.URL), want, resp, direct, got)
				}
			}
		})
	}
}

func compare(t *testing.T, what string, want, resp *http.Response, direct, got seen) {
	t.Helper()
	if got.Method != direct.Method || got.Path != direct.Path || got.Query != direct.Query || got.Body != direct.Body {
		t.Errorf("%s: the upstream got %s %s ?%s, %s; directly %s %s ?%s, %s", what,
			got.Method, got.Path, got.Query, got.Body, direct.Method, direct.Path, direct.Query, direct.Body)
	}
	for name := range direct.Header {
		if name == "Accept-Encoding" { // answers that are read must be readable
			continue
		}
		if !slices.Equal(got.Header[name], direct.Header[name]) {
			t.Errorf("%s: the upstream got %s: %q, directly %q", what, name, got.Header[name], direct.Header[name])
		}
	}
	for name := range got.Header {
		if direct.Header[name] == nil {
			t.Errorf("%s: the upstream got %s: %q, directly none", what, name, got.Header[name])
		}
	}
	if resp.StatusCode != want.StatusCode {
		t.Errorf("%s: %d, directly %d", what, resp.StatusCode, want.StatusCode)
	}
	for _, name := range []string{"Content-Type", "X-Answer", "Location"} {
		if !slices.Equal(resp.Header[name], want.Header[name]) {
			t.Errorf("%s: the client got %s: %q, directly %q", what, name, resp.Header[name], want.Header[name])
		}
	}
}
