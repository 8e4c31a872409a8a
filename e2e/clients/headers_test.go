package clients

import (
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3/option"

	"penstock/e2e/clients/stack"
)

// The bytes of a request arrive as they are, and those of the answer come back.
func TestBytesPassUnchanged(t *testing.T) {
	s := stack.Start(t)
	body := "{ \"stream\" : false,\n\t\"zzz\":12345678901234567890, \"float\": 1.10e+02,\"model\":\"gpt-4o\",\"é\":\"\\u00fc ü 😀 \\/\", " +
		"\"messages\":[{\"content\":\"x\",\"role\":\"user\",\"unknown\":{\"b\":1,\"a\":[]}}],\"metadata\":{\"\":null}  }\r\n"
	post(t, s.BaseURL+"/chat/completions", s.ClientKey, body, stack.RecordHeader, "bytes")
	if got := string(recorded(t, s.Main, "bytes").Body); got != body {
		t.Errorf("the provider got\n%s\nwant\n%s", got, body)
	}
	// Under an alias only the model differs; in a stream only the question for usage.
	post(t, s.BaseURL+"/chat/completions", s.ClientKey, strings.Replace(body, "gpt-4o", stack.Alias, 1), stack.RecordHeader, "renamed")
	if got, want := string(recorded(t, s.Main, "renamed").Body), strings.Replace(body, "gpt-4o", stack.AliasTarget, 1); got != want {
		t.Errorf("the provider got\n%s\nwant\n%s", got, want)
	}
	streamed := strings.Replace(body, "false", "true", 1)
	post(t, s.BaseURL+"/chat/completions", s.ClientKey, streamed, stack.RecordHeader, "streamed")
	if got, want := string(recorded(t, s.Main, "streamed").Body), strings.Replace(streamed, "  }", `  ,"stream_options":{"include_usage":true}}`, 1); got != want {
		t.Errorf("the provider got\n%s\nwant\n%s", got, want)
	}

	reply := " {\"id\" : 12345678901234567890,\"choices\":[],\"x\":1.50e-3,\"u\":\"\\u00e9é\"}\n"
	_, got := post(t, s.BaseURL+"/chat/completions", s.ClientKey, `{"model":"raw"}`, stack.RawHeader, stack.RawParts(answer(200, "application/json", reply))[0])
	if string(got) != reply {
		t.Errorf("the client got %q, want %q", got, reply)
	}
}

// covers SEC-01
func TestHeaders(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey, option.WithOrganization("org-theirs"), option.WithProject("proj-theirs"))
	var resp *http.Response
	_, err := c.Chat.Completions.New(within(t), hello(stack.Model), option.WithHeader(stack.RecordHeader, "headers"), option.WithResponseInto(&resp),
		option.WithHeader("OpenAI-Beta", "responses_multi_agent=v1"), option.WithHeaderAdd("OpenAI-Beta", "agents=v1"), option.WithHeader("X-Client-Request-Id", "mine"),
		option.WithHeader("X-Odd", "a  b\tc; d=\"é\""), option.WithHeader("Cookie", "session=1"), option.WithHeader("X-Penstock-Class", "batch"))
	if err != nil {
		t.Fatal(err)
	}
	got := recorded(t, s.Main, "headers").Header
	for name, want := range map[string]string{
		"Authorization": "Bearer " + s.UpstreamKey, "Openai-Beta": "responses_multi_agent=v1|agents=v1", "X-Client-Request-Id": "mine", "X-Odd": "a  b\tc; d=\"é\"",
		"Cookie": "", "X-Penstock-Class": "", "Openai-Organization": "", "Openai-Project": "", "Accept-Encoding": "",
	} {
		if have := strings.Join(got.Values(name), "|"); have != want {
			t.Errorf("the provider got %s: %q, want %q", name, have, want)
		}
	}
	if agent := got.Get("User-Agent"); !strings.HasPrefix(agent, "OpenAI/Go") {
		t.Errorf("User-Agent is %q", agent)
	}
	if resp.Header.Get(stack.ReplyHeader) != "from the provider" || resp.Header.Get("X-Upstream-Ratelimit-Limit-Requests") != "" {
		t.Errorf("the answer's headers are %v", resp.Header)
	}
	for _, values := range resp.Header {
		if strings.Contains(strings.Join(values, " "), s.UpstreamKey) {
			t.Error("the upstream's key came back")
		}
	}
}

// Every header in which an SDK sends its key is understood.
func TestKeysInEveryHeader(t *testing.T) {
	s := stack.Start(t)
	for _, name := range []string{"X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		c := client(s.BaseURL, "", option.WithHeaderDel("Authorization"), option.WithHeader(name, s.ClientKey))
		if _, err := c.Chat.Completions.New(within(t), hello(stack.Model), option.WithHeader(stack.RecordHeader, name)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := recorded(t, s.Main, name).Header; got.Get(name) != "" {
			t.Errorf("%s reached the provider", name)
		}
	}
}

// In sidecar mode the client's credential goes to the provider, and the provider's
// answer is the client's.
func TestSidecar(t *testing.T) {
	s := stack.Start(t)
	c := client(s.Sidecar, s.ClientKey, option.WithOrganization("org-mine"))
	if _, err := c.Chat.Completions.New(within(t), hello("any-model"), option.WithHeader(stack.RecordHeader, "sidecar")); err != nil {
		t.Fatal(err)
	}
	got := recorded(t, s.Own, "sidecar").Header
	if got.Get("Authorization") != "Bearer "+s.ClientKey || got.Get("Openai-Organization") != "org-mine" {
		t.Errorf("the provider got %v", got)
	}
	wrong := client(s.Sidecar, "sk-wrong")
	_, err := wrong.Chat.Completions.New(within(t), hello("any-model"))
	apiError(t, err, 401, "invalid_api_key")
	_, err = c.Chat.Completions.New(within(t), hello("any-model"), simulate("insufficient-quota"))
	if e := apiError(t, err, 429, "insufficient_quota"); e.Type != "insufficient_quota" || e.Response.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("got %s, %v", e.RawJSON(), e.Response.Header)
	}
}

// Base URLs that people write work alike.
func TestSpellingsOfTheBaseURL(t *testing.T) {
	s := stack.Start(t)
	root := strings.TrimSuffix(s.BaseURL, "/v1")
	for _, base := range []string{root, root + "/", root + "/v1/", root + "/v1/v1", root + "//v1", root + "/openai/v1"} {
		c := client(base, s.ClientKey)
		if _, err := c.Chat.Completions.New(within(t), hello(stack.Model)); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	for _, path := range []string{"/v1/chat/completions/", "/openai/deployments/" + stack.Model + "/chat/completions?api-version=2024-10-21"} {
		resp, body := post(t, root+path, s.ClientKey, `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}
