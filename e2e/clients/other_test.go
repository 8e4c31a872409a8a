package clients

import (
	"errors"
	"io"
	"strings"
	"testing"

	other "github.com/sashabaranov/go-openai"

	"penstock/e2e/clients/stack"
)

// The community's client for Go reads streams and errors in its own way.
func TestCommunityClient(t *testing.T) {
	s := stack.Start(t)
	config := other.DefaultConfig(s.ClientKey)
	config.BaseURL = s.BaseURL
	c := other.NewClientWithConfig(config)
	ask := other.ChatCompletionRequest{Model: stack.Model, Messages: []other.ChatCompletionMessage{{Role: "user", Content: "Hello!"}}}

	whole, err := c.CreateChatCompletion(within(t), ask)
	if err != nil || whole.Choices[0].Message.Content == "" || whole.Usage.TotalTokens == 0 {
		t.Fatalf("chat: %v", err)
	}
	text, err := readOther(t, c, ask)
	if err != nil || text != whole.Choices[0].Message.Content {
		t.Errorf("stream: %v %q", err, text)
	}
	vectors, err := c.CreateEmbeddings(within(t), other.EmbeddingRequest{Model: "text-embedding-3-small", Input: []string{"one"}, Dimensions: 8})
	if err != nil || len(vectors.Data[0].Embedding) != 8 {
		t.Errorf("embeddings: %v", err)
	}
	sound, err := c.CreateSpeech(within(t), other.CreateSpeechRequest{Model: "tts-1", Input: "x", Voice: "alloy"})
	if err != nil {
		t.Fatalf("speech: %v", err)
	}
	defer sound.Close()
	if b, err := io.ReadAll(sound); err != nil || len(b) == 0 {
		t.Errorf("speech: %v, %d bytes", err, len(b))
	}
	words, err := c.CreateTranscription(within(t), other.AudioRequest{Model: "whisper-1", FilePath: "speech.wav", Reader: strings.NewReader("sound")})
	if err != nil || words.Text == "" {
		t.Errorf("transcription: %v", err)
	}

	var e *other.APIError
	ask.Model = "nobody-has-this"
	if _, err := c.CreateChatCompletion(within(t), ask); !errors.As(err, &e) || e.HTTPStatusCode != 404 || e.Code != "model_not_found" {
		t.Errorf("unknown model: %T %v", err, err)
	}
	config.HTTPClient = simulating{"truncate-after=4"}
	ask.Model = stack.Faulty
	if text, err := readOther(t, other.NewClientWithConfig(config), ask); text == "" || !errors.As(err, &e) || !strings.Contains(e.Message, "upstream") {
		t.Errorf("broken stream: %q %T %v", text, err, err)
	}
}

func readOther(t *testing.T, c *other.Client, ask other.ChatCompletionRequest) (text string, err error) {
	t.Helper()
	stream, err := c.CreateChatCompletionStream(within(t), ask)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return text, err
		}
		text += chunk.Choices[0].Delta.Content
	}
}
