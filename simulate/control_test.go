package simulate

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fast()
		c.RPM, c.TPM, c.Window = 3, 60, 10*time.Second
		p := New(c)
		for range 5 {
			do(t, p, "POST", "/v1/chat/completions", chatStream)
		}
		do(t, p, "GET", "/v1/models", "")
		do(t, p, "POST", "/v1/chat/completions", chatStream, "x-simulate", "insufficient-quota")
		pass(5 * time.Second)
		v := object(t, do(t, p, "GET", "/simulator/stats", ""), 200)
		for _, test := range []struct {
			want any
			path []any
		}{
			{5.0, []any{"elapsed_seconds"}},
			{3.0, []any{"requests", "chat/completions", "200"}},
			{3.0, []any{"requests", "chat/completions", "429"}},
			{1.0, []any{"requests", "models", "200"}},
			{2.0, []any{"refused", "requests"}},
			{1.0, []any{"refused", "fault"}},
			{3.0, []any{"streams", "completed"}},
			{9.0, []any{"input_tokens"}},
			{9.0, []any{"output_tokens"}},
			{3.0, []any{"admitted", "requests"}},
			{18.0, []any{"admitted", "tokens"}},
			{4.0, []any{"capacity", "requests"}},
			{90.0, []any{"capacity", "tokens"}},
			{0.2, []any{"utilisation", "tokens"}},
			{18.0, []any{"peak_window", "tokens"}},
			{1.0, []any{"peak_in_flight"}},
			{0.0, []any{"in_flight"}},
		} {
			want(t, "stats", at(t, v, test.path...), test.want)
		}
		v = object(t, do(t, p, "POST", "/v1/simulator/reset", ""), 200)
		want(t, "admitted after reset", at(t, v, "admitted", "requests"), 0.0)
		want(t, "elapsed after reset", at(t, v, "elapsed_seconds"), 0.0)
		want(t, "requests after reset", len(at(t, v, "requests").(map[string]any)), 0)
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200)
	})
}

func TestResetForgets(t *testing.T) {
	p := New(fast())
	id := at(t, object(t, do(t, p, "POST", "/responses", `{"model":"m","input":"hi"}`), 200), "id").(string)
	doForm(t, p, "/v1/files", []byte("x"), "file", "purpose", "batch")
	p.Reset()
	object(t, do(t, p, "GET", "/v1/responses/"+id, ""), 404)
	want(t, "files", len(at(t, object(t, do(t, p, "GET", "/v1/files", ""), 200), "data").([]any)), 0)
}

func TestConfigOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(fast())
		v := object(t, do(t, p, "PUT", "/simulator/config", `{"ttft":"2s","output_tokens":5,"rpm":1,"window":"10s","mode":"sliding","faults":["first=1,status=500"]}`), 200)
		want(t, "ttft", at(t, v, "ttft"), "2s")
		want(t, "mode", at(t, v, "mode"), "sliding")
		want(t, "untouched", at(t, v, "token_time"), "0s")
		want(t, "fault", at(t, v, "faults", 0), "first=1,status=500")
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 500)
		start := time.Now()
		v = object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200)
		want(t, "time", time.Since(start), 2*time.Second)
		want(t, "tokens", at(t, v, "usage", "completion_tokens"), 5.0)
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 429)
		object(t, do(t, p, "PUT", "/simulator/config", `{"ttft":"0s"}`), 200)
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 429) // the rate did not start anew
		object(t, do(t, p, "PUT", "/simulator/config", `{"rpm":0}`), 200)
		object(t, do(t, p, "POST", "/v1/chat/completions", chatJSON), 200)

		// What GET shows, PUT accepts, and it means the same.
		shown := do(t, p, "GET", "/simulator/config", "").Body.String()
		want(t, "round trip", do(t, p, "PUT", "/simulator/config", shown).Body.String(), shown)
	})
}

func TestConfigErrors(t *testing.T) {
	p := New(fast())
	before := do(t, p, "GET", "/simulator/config", "").Body.String()
	for body, says := range map[string]string{
		`{"ttfb":"2s"}`:                      "ttfb",
		`{"ttft":2}`:                         "ttft",
		`{"ttft":"-2s"}`:                     "-2s",
		`{"output_tokens":-1}`:               "output_tokens",
		`{"chunk_tokens":0}`:                 "chunk_tokens",
		`{"rpm":-1}`:                         "rpm",
		`{"window":"1ns"}`:                   "window",
		`{"mode":"leaky"}`:                   "leaky",
		`{"count":"some"}`:                   "some",
		`{"ttft":"9s","faults":["explode"]}`: "explode",
		`{`:                                  "",
	} {
		v := object(t, do(t, p, "PUT", "/simulator/config", body), 400)
		if m := at(t, v, "error", "message").(string); !strings.Contains(m, says) {
			t.Errorf("%s: %s", body, m)
		}
	}
	want(t, "nothing changed", do(t, p, "GET", "/simulator/config", "").Body.String(), before)
}

func TestModeAndCountText(t *testing.T) {
	for _, text := range []string{`"bucket"`, `"sliding"`} {
		var m Mode
		if err := json.Unmarshal([]byte(text), &m); err != nil || string(mustJSON(m)) != text {
			t.Errorf("%s: %v, %v", text, m, err)
		}
	}
	for _, text := range []string{`"actual"`, `"max_tokens"`} {
		var c Count
		if err := json.Unmarshal([]byte(text), &c); err != nil || string(mustJSON(c)) != text {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
}

func TestOutOfRangeConfig(t *testing.T) {
	p := New(Config{TTFT: NoWait, TokenTime: -5, OutputTokens: 1 << 40, ChunkTokens: -1, RPM: -1, TPM: 1 << 60, Concurrency: -1, Window: -1, KeepFileBytes: -1, CachedTokens: -1, ReasoningTokens: -1})
	v := object(t, do(t, p, "POST", "/v1/chat/completions", `{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}`), 200)
	want(t, "tokens", at(t, v, "usage", "completion_tokens"), 2.0)
}
