package clients

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"penstock/e2e/clients/stack"
)

// pythonEvents reads a stream as openai-python does, which cannot be installed
// everywhere these tests run: an id stays in force for all events behind it, and
// with one in force, or behind a retry, a blank line alone makes an event without
// data, which is then no JSON.
func pythonEvents(stream string) (data []string, err error) {
	var event, id string
	var lines []string
	retry := false
	stream = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(stream)
	for line := range strings.SplitSeq(strings.TrimSuffix(stream, "\n"), "\n") {
		if line == "" {
			if event == "" && len(lines) == 0 && id == "" && !retry {
				continue
			}
			text := strings.Join(lines, "\n")
			event, lines, retry = "", nil, false
			if strings.HasPrefix(text, "[DONE]") {
				return data, nil
			}
			if !json.Valid([]byte(text)) {
				return data, fmt.Errorf("event %q is no JSON", text)
			}
			var e struct{ Error json.RawMessage }
			if json.Unmarshal([]byte(text), &e) == nil && e.Error != nil && string(e.Error) != "null" {
				return data, fmt.Errorf("error event %s", text)
			}
			data = append(data, text)
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			event = value
		case "data":
			lines = append(lines, value)
		case "id":
			id = value
		case "retry":
			retry = true
		}
	}
	return data, nil // an event without a blank line behind it is lost
}

func TestStreamsAsPythonReadsThem(t *testing.T) {
	s := stack.Start(t)
	whole := roleChunk + textChunk + finalChunk + done
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	for name, parts := range map[string][]string{
		"comments behind an id": {"id: 1\n" + roleChunk + ": ping\n\n" + textChunk, ": ping\n\n" + finalChunk + done},
		"retry alone":           {"retry: 100\n\n", whole},
		"event without data":    {roleChunk + "event: ping\n\n" + textChunk + finalChunk + done},
		"empty data":            {roleChunk + "data:\n\n" + textChunk + finalChunk + done},
		"byte order mark":       {"\xef\xbb\xbf" + whole},
		"no last blank line":    {roleChunk + textChunk + strings.TrimSuffix(finalChunk, "\n\n")},
		"CRLF":                  {strings.ReplaceAll("id: 1\n: x\n"+whole, "\n", "\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			reply := strings.Join(stack.RawParts(append([]string{head}, parts...)...), ",")
			for _, usage := range []string{"", `,"stream_options":{"include_usage":true}`} {
				_, body := post(t, s.BaseURL+"/chat/completions", s.ClientKey, `{"model":"raw","stream":true`+usage+`}`, stack.RawHeader, reply)
				if data, err := pythonEvents(string(body)); err != nil || len(data) != 3 {
					t.Errorf("%d events, %v, of\n%q", len(data), err, body)
				}
			}
		})
	}
	for _, fault := range []string{"truncate-after=3", "reset-after=3", "error-event-after=3", "truncate-after=3,split=5"} {
		body := postCut(t, s.BaseURL+"/chat/completions", s.ClientKey, strings.Replace(streamBody, "gpt-4o", stack.Faulty, 1), "x-simulate", fault)
		if data, err := pythonEvents(body); len(data) != 3 || err == nil || !strings.Contains(err.Error(), "error event") {
			t.Errorf("%s: %d events, %v", fault, len(data), err)
		}
	}
	// Keep-alive comments while a stream is waited for.
	_, body := post(t, s.BaseURL+"/responses", s.ClientKey, streamBody[:len(streamBody)-1]+`,"input":"x"}`, "x-simulate", "comment-first=3")
	if data, err := pythonEvents(string(body)); err != nil || len(data) < 5 {
		t.Errorf("%d events, %v", len(data), err)
	}
}
