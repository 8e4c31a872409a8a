package openai

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

const callerKey = "psk_caller-0123456789"

func sent(c *provider.Call) http.Header {
	c.Credential = callerKey
	return requestHeader(&provider.Target{Credential: secretKey}, c)
}

// The client's key goes nowhere, in whatever header it stands, and no Connection
// header can take ours away.
// covers SEC-01
func TestClientHeadersThatAreKept(t *testing.T) {
	h := http.Header{
		"Authorization": {"Bearer " + callerKey}, "X-Api-Key": {"other"}, "Api-Key": {"other"}, "X-Goog-Api-Key": {"other"},
		"Cookie": {"a=b"}, "Proxy-Authorization": {"Basic x"}, "Sec-Websocket-Protocol": {"realtime, openai-insecure-api-key.sk-x"},
		"X-Auth-Token": {callerKey}, "X-Custom": {"a", "b " + callerKey + " c"}, "X-Penstock-Class": {"batch"},
		"X-Http-Method-Override": {"DELETE"}, "X-Original-Url": {"/v1/organization"}, "Accept-Encoding": {"gzip"}, "Te": {"trailers"},
		"Connection": {"Authorization, X-Drop", "content-type"}, "X-Drop": {"1"}, "Content-Type": {"application/json"},
		"X-Kept": {"1"}, "Openai-Beta": {"x"},
	}
	got := sent(&provider.Call{Header: h})
	if got.Get("Authorization") != "Bearer "+secretKey || got.Get("X-Kept") != "1" || got.Get("Openai-Beta") != "x" {
		t.Errorf("sent %v", got)
	}
	if len(got) != 4 { // User-Agent among them
		t.Errorf("%d headers: %v", len(got), got)
	}
}

// A body that was read as JSON is sent as JSON, so that no server reads it as a
// form or in another character set.
// covers CL-06
func TestContentTypeOfJSON(t *testing.T) {
	for given, want := range map[string]string{
		"application/json": "application/json", "application/json; charset=utf-8": "application/json; charset=utf-8",
		"application/vnd.api+json": "application/vnd.api+json", "": "application/json", "text/plain": "application/json",
		"application/x-www-form-urlencoded": "application/json", "application/json; charset=utf-7": "application/json",
		"multipart/form-data; boundary=x": "application/json", ";": "application/json",
	} {
		h := http.Header{}
		if given != "" {
			h["Content-Type"] = []string{given, "application/x-www-form-urlencoded"}
		}
		if got := sent(&provider.Call{Header: h, ObjectEnd: 1})["Content-Type"]; len(got) != 1 || got[0] != want {
			t.Errorf("%q is sent as %q", given, got)
		}
	}
	if got := sent(&provider.Call{Header: http.Header{"Content-Type": {"text/csv"}}}).Get("Content-Type"); got != "text/csv" {
		t.Errorf("an upload's type became %q", got)
	}
}

// covers SEC-01
func TestCleanQuery(t *testing.T) {
	for raw, want := range map[string]string{
		"":                            "",
		"api-version=1&key=a":         "api-version=1",
		"Key=a&API_KEY=b&api-key=c&x": "x",
		"%6bey=a&access%5Ftoken=b":    "",
		"a=1&b;key=c&d=2":             "a=1&d=2",
		"k%zzey=a&a=%zz":              "a=%zz",
		"token=" + callerKey:          "",
		"q=%70" + callerKey[1:]:       "",
		"after=obj_1&limit=20&a=b%26": "after=obj_1&limit=20&a=b%26",
	} {
		if got := cleanQuery(raw, callerKey); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
}

// What is kept of a query are whole parameters in their order; none of them is a
// credential for a server that splits it in whatever way.
// covers SEC-01
func FuzzCleanQuery(f *testing.F) {
	for _, q := range []string{"key=a&b=c", "a;key=b", "%6Bey=x", "a=b&&c", "=&key", "k%zz", "a=" + callerKey} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := cleanQuery(raw, callerKey)
		rest := "&" + raw + "&"
		for part := range strings.SplitSeq(got, "&") {
			_, after, found := strings.Cut(rest, "&"+part+"&")
			if !found && got != "" {
				t.Fatalf("%q of %q is not in it, or not in order", part, raw)
			}
			rest = "&" + after
		}
		if strings.Contains(got, callerKey) {
			t.Fatalf("%q kept the key: %q", raw, got)
		}
		for _, text := range []string{got, strings.ReplaceAll(got, ";", "&")} {
			values, _ := url.ParseQuery(text)
			for name := range values {
				for _, secret := range secretParams {
					if strings.EqualFold(name, secret) {
						t.Fatalf("%q kept %q", raw, name)
					}
				}
			}
		}
	})
}

// Upstreams cannot set what only the gateway may say.
func TestUpstreamHeadersThatAreKept(t *testing.T) {
	h := http.Header{
		"X-Penstock-Upstream": {"forged"}, "X-Upstream-Ratelimit-Limit-Requests": {"forged"}, "X-Ratelimit-Limit-Requests": {"60"},
		"Set-Cookie": {"a=b"}, "Openai-Organization": {"org"}, "Transfer-Encoding": {"chunked"}, "Connection": {"X-Drop"}, "X-Drop": {"1"},
		"X-Echo": {"Bearer " + secretKey}, "X-Kept": {"1"}, "Alt-Svc": {"h3=\":443\""}, "Strict-Transport-Security": {"max-age=1"}, "Access-Control-Allow-Origin": {"*"},
	}
	got := replyHeader(&provider.Target{Credential: secretKey}, h)
	want := http.Header{"X-Kept": {"1"}, "X-Upstream-Ratelimit-Limit-Requests": {"60"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
