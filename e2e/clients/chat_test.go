package clients

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"penstock/e2e/clients/stack"
)

func TestChat(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)

	t.Run("create", func(t *testing.T) {
		var resp *http.Response
		got, err := c.Chat.Completions.New(within(t), hello(stack.Model), option.WithResponseInto(&resp))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Choices) != 1 || got.Choices[0].Message.Content == "" || got.Choices[0].FinishReason != "stop" || got.Model != stack.Model {
			t.Errorf("got %s", got.RawJSON())
		}
		if got.Usage.CompletionTokens <= 0 || got.Usage.TotalTokens != got.Usage.PromptTokens+got.Usage.CompletionTokens {
			t.Errorf("usage is %s", got.Usage.RawJSON())
		}
		checkOwnHeaders(t, resp.Header)
		if resp.Header.Get("X-Penstock-Upstream") != "main" || resp.Header.Get("X-Penstock-Attempts") != "1" {
			t.Errorf("headers are %v", resp.Header)
		}
	})

	t.Run("alias", func(t *testing.T) {
		_, err := c.Chat.Completions.New(within(t), hello(stack.Alias), option.WithHeader(stack.RecordHeader, "alias"))
		if err != nil {
			t.Fatal(err)
		}
		var sent struct{ Model string }
		if err := json.Unmarshal(recorded(t, s.Main, "alias").Body, &sent); err != nil || sent.Model != stack.AliasTarget {
			t.Errorf("the provider got model %q, %v", sent.Model, err)
		}
	})

	t.Run("choices", func(t *testing.T) {
		params := hello(stack.Model)
		params.N = openai.Int(2)
		got, err := c.Chat.Completions.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Choices) != 2 || got.Choices[1].Index != 1 || got.Choices[1].Message.Content == "" {
			t.Errorf("got %s", got.RawJSON())
		}
	})

	t.Run("tools", func(t *testing.T) {
		params := hello(stack.Model)
		params.Messages = append(params.Messages, openai.UserMessage("Call the tool, please."))
		params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
			Name: "weather", Parameters: shared.FunctionParameters{"type": "object", "required": []string{"city"},
				"properties": map[string]any{"city": map[string]any{"type": "string", "enum": []string{"Oslo"}}}},
		})}
		got, err := c.Chat.Completions.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		calls := got.Choices[0].Message.ToolCalls
		if len(calls) != 1 || calls[0].Function.Name != "weather" || got.Choices[0].FinishReason != "tool_calls" {
			t.Fatalf("got %s", got.RawJSON())
		}
		var arguments struct{ City string }
		if err := json.Unmarshal([]byte(calls[0].Function.Arguments), &arguments); err != nil || arguments.City != "Oslo" {
			t.Errorf("arguments are %s", calls[0].Function.Arguments)
		}
		// The same call, put together from a stream.
		stream := c.Chat.Completions.NewStreaming(within(t), params)
		var acc openai.ChatCompletionAccumulator
		for stream.Next() {
			acc.AddChunk(stream.Current())
		}
		if stream.Err() != nil {
			t.Fatal(stream.Err())
		}
		if streamed := acc.Choices[0].Message.ToolCalls; len(streamed) != 1 || streamed[0].Function.Arguments != calls[0].Function.Arguments {
			t.Errorf("streamed calls are %+v", streamed)
		}
	})

	t.Run("structured output", func(t *testing.T) {
		params := hello(stack.Model)
		params.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: "person", Strict: openai.Bool(true), Schema: map[string]any{"type": "object", "additionalProperties": false, "required": []string{"name", "age"},
				"properties": map[string]any{"name": map[string]any{"type": "string"}, "age": map[string]any{"type": "integer", "minimum": 7}}},
		}}
		got, err := c.Chat.Completions.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		var person struct {
			Name *string
			Age  int
		}
		if err := json.Unmarshal([]byte(got.Choices[0].Message.Content), &person); err != nil || person.Name == nil || person.Age < 7 {
			t.Errorf("content is %q: %v", got.Choices[0].Message.Content, err)
		}
	})

	t.Run("vision", func(t *testing.T) {
		picture := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("picture", 20_000)))
		params := openai.ChatCompletionNewParams{Model: stack.Model, Messages: []openai.ChatCompletionMessageParamUnion{
			openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
				openai.TextContentPart("What is this?"),
				openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: picture, Detail: "low"}),
			}),
		}}
		if _, err := c.Chat.Completions.New(within(t), params, option.WithHeader(stack.RecordHeader, "vision")); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(recorded(t, s.Main, "vision").Body), picture) {
			t.Error("the picture did not arrive whole")
		}
	})
}

func TestChatStream(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)

	t.Run("events are the provider's own", func(t *testing.T) {
		body := `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}`
		resp, through := post(t, s.BaseURL+"/chat/completions", s.ClientKey, body)
		_, direct := post(t, s.MainURL+"/v1/chat/completions", s.UpstreamKey, body)
		if contents(t, through) != contents(t, direct) || contents(t, through) == "" {
			t.Errorf("through the gateway %q, directly %q", contents(t, through), contents(t, direct))
		}
		if !strings.HasSuffix(string(through), "data: [DONE]\n\n") || strings.Contains(string(through), `"usage":{`) {
			t.Errorf("stream is\n%s", through)
		}
		if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
			t.Errorf("Content-Type is %q", kind)
		}
		checkOwnHeaders(t, resp.Header)
	})

	for _, usage := range []bool{false, true} {
		t.Run(map[bool]string{false: "without usage", true: "with usage"}[usage], func(t *testing.T) {
			params := hello(stack.Model)
			if usage {
				params.StreamOptions.IncludeUsage = openai.Bool(true)
			}
			stream := c.Chat.Completions.NewStreaming(within(t), params)
			var acc openai.ChatCompletionAccumulator
			withUsage, last := 0, openai.ChatCompletionChunk{}
			for stream.Next() {
				last = stream.Current()
				acc.AddChunk(last)
				if last.Usage.TotalTokens > 0 {
					withUsage++
				}
			}
			if stream.Err() != nil {
				t.Fatal(stream.Err())
			}
			whole, err := c.Chat.Completions.New(within(t), hello(stack.Model))
			if err != nil {
				t.Fatal(err)
			}
			if got := acc.Choices[0]; got.Message.Content != whole.Choices[0].Message.Content || got.FinishReason != "stop" {
				t.Errorf("streamed %q, %s; whole %q", got.Message.Content, got.FinishReason, whole.Choices[0].Message.Content)
			}
			if usage && (withUsage != 1 || len(last.Choices) != 0 || acc.Usage.CompletionTokens <= 0) {
				t.Errorf("%d chunks with usage, the last chunk is %s", withUsage, last.RawJSON())
			}
			if !usage && withUsage != 0 {
				t.Errorf("%d chunks with usage that nobody asked for", withUsage)
			}
		})
	}
}

// contents joins the text of a chat stream.
func contents(t *testing.T, stream []byte) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(string(stream)) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var chunk openai.ChatCompletionChunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("chunk %s: %v", data, err)
		}
		for _, choice := range chunk.Choices {
			text.WriteString(choice.Delta.Content)
		}
	}
	return text.String()
}
