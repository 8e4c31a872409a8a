package clients

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"

	"penstock/e2e/clients/stack"
)

func askResponse(model, text string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(text)}}
}

func TestResponses(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)

	t.Run("create, get, continue, delete", func(t *testing.T) {
		params := askResponse(stack.Model, "Hello, gateway!")
		params.Instructions = openai.String("Be short.")
		params.Metadata = map[string]string{"from": "a test"}
		got, err := c.Responses.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != "completed" || got.OutputText() == "" || got.Usage.OutputTokens <= 0 || got.Metadata["from"] != "a test" {
			t.Errorf("got %s", got.RawJSON())
		}
		again, err := c.Responses.Get(within(t), got.ID, responses.ResponseGetParams{})
		if err != nil || again.OutputText() != got.OutputText() {
			t.Errorf("stored: %v", err)
		}
		params.PreviousResponseID = openai.String(got.ID)
		if _, err := c.Responses.New(within(t), params); err != nil {
			t.Errorf("continued: %v", err)
		}
		if err := c.Responses.Delete(within(t), got.ID); err != nil {
			t.Errorf("deleted: %v", err)
		}
		_, err = c.Responses.Get(within(t), got.ID, responses.ResponseGetParams{})
		apiError(t, err, 404, "")
	})

	t.Run("without a model", func(t *testing.T) {
		if _, err := c.Responses.New(within(t), responses.ResponseNewParams{Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("x")}}); err != nil {
			t.Error(err)
		}
	})

	t.Run("incomplete", func(t *testing.T) {
		params := askResponse(stack.Model, "x")
		params.MaxOutputTokens = openai.Int(3)
		got, err := c.Responses.New(within(t), params)
		if err != nil || got.Status != "incomplete" || got.IncompleteDetails.Reason != "max_output_tokens" {
			t.Errorf("%v %s", err, got.RawJSON())
		}
	})

	t.Run("stream", func(t *testing.T) {
		stream := c.Responses.NewStreaming(within(t), askResponse(stack.Model, "Hello!"))
		var text strings.Builder
		var kinds []string
		var final responses.Response
		for i := int64(0); stream.Next(); i++ {
			e := stream.Current()
			if e.SequenceNumber != i {
				t.Errorf("event %d has the number %d", i, e.SequenceNumber)
			}
			kinds = append(kinds, e.Type)
			switch e.Type {
			case "response.output_text.delta":
				text.WriteString(e.Delta)
			case "response.completed":
				final = e.Response
			}
		}
		if stream.Err() != nil {
			t.Fatal(stream.Err())
		}
		if text.String() == "" || final.OutputText() != text.String() || final.Usage.OutputTokens <= 0 || kinds[0] != "response.created" {
			t.Errorf("text %q, final %s, events %v", text.String(), final.RawJSON(), kinds)
		}
	})

	t.Run("tool", func(t *testing.T) {
		params := askResponse(stack.Model, "Call the tool, please.")
		params.Tools = []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{Name: "weather", Strict: openai.Bool(true), Parameters: map[string]any{
			"type": "object", "required": []string{"city"}, "properties": map[string]any{"city": map[string]any{"type": "string", "enum": []string{"Oslo"}}}}}}}
		got, err := c.Responses.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Output) != 1 || got.Output[0].Type != "function_call" || got.Output[0].Name != "weather" {
			t.Fatalf("got %s", got.RawJSON())
		}
		stream, arguments := c.Responses.NewStreaming(within(t), params), ""
		for stream.Next() {
			if e := stream.Current(); e.Type == "response.function_call_arguments.delta" {
				arguments += e.Delta
			}
		}
		var asked struct{ City string }
		if err := json.Unmarshal([]byte(arguments), &asked); stream.Err() != nil || err != nil || asked.City != "Oslo" {
			t.Errorf("%v %v %q", stream.Err(), err, arguments)
		}
	})

	// covers UP-01
	t.Run("a cut stream is an error", func(t *testing.T) {
		for _, fault := range []string{"truncate-after=6", "reset-after=6"} {
			stream := c.Responses.NewStreaming(within(t), askResponse(stack.Faulty, "x"), simulate(fault))
			failed := false
			for stream.Next() {
				failed = failed || stream.Current().Type == "response.failed"
			}
			var e *ssestream.StreamError
			if !failed || !errors.As(stream.Err(), &e) || !strings.Contains(e.Message, "upstream") {
				t.Errorf("%s: response.failed %v, error %v", fault, failed, stream.Err())
			}
		}
	})

	// covers UP-01
	t.Run("an error behind a 200 is a status", func(t *testing.T) {
		stream := c.Responses.NewStreaming(within(t), askResponse(stack.Faulty, "x"), simulate("error-event-after=0"))
		for stream.Next() {
			t.Errorf("got %s", stream.Current().RawJSON())
		}
		apiError(t, stream.Err(), 500, "server_error")
		if _, err := c.Responses.New(within(t), askResponse(stack.FailStream, "x")); err != nil {
			t.Errorf("with a second upstream: %v", err)
		}
		other := c.Responses.NewStreaming(within(t), askResponse(stack.FailStream, "x"), option.WithHeader("x-simulate", ""))
		for other.Next() {
		}
		if other.Err() != nil {
			t.Errorf("streamed, with a second upstream: %v", other.Err())
		}
	})
}
