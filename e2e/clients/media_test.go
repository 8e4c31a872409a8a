package clients

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"penstock/e2e/clients/stack"
)

func TestEmbeddings(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	params := openai.EmbeddingNewParams{Model: "text-embedding-3-small", Dimensions: openai.Int(16),
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"one", "two"}}}
	floats, err := c.Embeddings.New(within(t), params)
	if err != nil {
		t.Fatal(err)
	}
	if len(floats.Data) != 2 || len(floats.Data[1].Embedding) != 16 || floats.Usage.PromptTokens <= 0 {
		t.Fatalf("got %s", floats.RawJSON())
	}
	params.EncodingFormat = openai.EmbeddingNewParamsEncodingFormatBase64
	packed, err := c.Embeddings.New(within(t), params)
	if err != nil || len(packed.Data) != 2 || len(packed.Data[1].Embedding) != 16 {
		t.Fatalf("base64: %v", err)
	}
	for i, x := range packed.Data[1].Embedding {
		if math.Abs(x-floats.Data[1].Embedding[i]) > 1e-6 {
			t.Errorf("number %d is %v, as floats %v", i, x, floats.Data[1].Embedding[i])
		}
	}
	// An upstream that does not know base64 answers with numbers all the same.
	answer := `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1.25]}],"model":"raw","usage":{"prompt_tokens":1,"total_tokens":1}}`
	params.Model = stack.Raw
	var body []byte
	got, err := c.Embeddings.New(within(t), params, rawJSON(200, answer), option.WithResponseBodyInto(&body))
	if err != nil || strings.Contains(string(body), "[0.5") {
		t.Fatalf("%v %v %s", err, got, body)
	}
	if !strings.Contains(string(body), `"embedding":"AAAAPwAAoL8="`) {
		t.Errorf("got %s", body)
	}
}

func TestFiles(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	for name, size := range map[string]int{"small": 100, "held": 600 << 10, "streamed through": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			content := bytes.Repeat([]byte("0123456789\x00\xff"), size/12)
			file, err := c.Files.New(within(t), openai.FileNewParams{File: openai.File(bytes.NewReader(content), "notes.jsonl", "application/jsonl"), Purpose: openai.FilePurposeUserData},
				option.WithHeader(stack.RecordHeader, "upload "+name))
			if err != nil {
				t.Fatal(err)
			}
			if file.Bytes != int64(len(content)) || file.Filename != "notes.jsonl" || file.Purpose != "user_data" {
				t.Errorf("got %s", file.RawJSON())
			}
			if !bytes.Contains(recorded(t, s.Main, "upload "+name).Body, content) {
				t.Error("the content did not arrive as it was")
			}
			again, err := c.Files.Get(within(t), file.ID)
			if err != nil || again.Bytes != file.Bytes {
				t.Errorf("get: %v", err)
			}
			list, err := c.Files.List(within(t), openai.FileListParams{})
			if err != nil || !strings.Contains(list.RawJSON(), file.ID) {
				t.Errorf("list: %v", err)
			}
			if len(content) <= 1<<20 {
				resp, err := c.Files.Content(within(t), file.ID)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, content) {
					t.Errorf("content: %v, %d bytes", err, len(b))
				}
			}
			gone, err := c.Files.Delete(within(t), file.ID)
			if err != nil || !gone.Deleted {
				t.Errorf("delete: %v", err)
			}
			_, err = c.Files.Get(within(t), file.ID)
			apiError(t, err, 404, "")
		})
	}
}

func TestAudio(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)

	t.Run("speech", func(t *testing.T) {
		params := openai.AudioSpeechNewParams{Model: "tts-1", Input: "Hello there", Voice: openai.AudioSpeechNewParamsVoiceUnion{OfString: openai.String("alloy")}, ResponseFormat: "wav"}
		resp, err := c.Audio.Speech.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		sound, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.HasPrefix(sound, []byte("RIFF")) || resp.Header.Get("Content-Type") != "audio/wav" {
			t.Errorf("%v, %d bytes of %s", err, len(sound), resp.Header.Get("Content-Type"))
		}
		direct := client(s.MainURL+"/v1", s.UpstreamKey)
		same, err := direct.Audio.Speech.New(within(t), params)
		if err != nil {
			t.Fatal(err)
		}
		defer same.Body.Close()
		if b, _ := io.ReadAll(same.Body); !bytes.Equal(b, sound) {
			t.Errorf("%d bytes through the gateway, %d directly", len(sound), len(b))
		}
	})

	t.Run("transcription", func(t *testing.T) {
		params := openai.AudioTranscriptionNewParams{Model: "whisper-1", File: openai.File(bytes.NewReader(make([]byte, 50_000)), "speech.wav", "audio/wav")}
		got, err := c.Audio.Transcriptions.New(within(t), params, option.WithHeader(stack.RecordHeader, "transcription"))
		if err != nil || got.Text == "" {
			t.Fatalf("%v %v", err, got)
		}
		if kind := recorded(t, s.Main, "transcription").Header.Get("Content-Type"); !strings.HasPrefix(kind, "multipart/form-data; boundary=") {
			t.Errorf("Content-Type is %q", kind)
		}
		params.File = openai.File(bytes.NewReader(make([]byte, 50_000)), "speech.wav", "audio/wav")
		stream, text := c.Audio.Transcriptions.NewStreaming(within(t), params), ""
		for stream.Next() {
			text += stream.Current().Delta
		}
		if stream.Err() != nil || text == "" {
			t.Errorf("streamed: %v %q", stream.Err(), text)
		}
	})

	t.Run("transcription as text", func(t *testing.T) {
		var body []byte
		var resp *http.Response
		params := openai.AudioTranscriptionNewParams{Model: "whisper-1", File: bytes.NewReader(make([]byte, 1000)), ResponseFormat: "srt"}
		if _, err := c.Audio.Transcriptions.New(within(t), params, option.WithResponseBodyInto(&body), option.WithResponseInto(&resp)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(body), "-->") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%q as %q", body, resp.Header.Get("Content-Type"))
		}
	})

	t.Run("translation", func(t *testing.T) {
		got, err := c.Audio.Translations.New(within(t), openai.AudioTranslationNewParams{Model: "whisper-1", File: bytes.NewReader(make([]byte, 1000))})
		if err != nil || got.Text == "" {
			t.Errorf("%v", err)
		}
	})
}

func TestImages(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	got, err := c.Images.Generate(within(t), openai.ImageGenerateParams{Model: "gpt-image-1", Prompt: "a dam", N: openai.Int(2)})
	if err != nil || len(got.Data) != 2 || got.Data[1].B64JSON == "" {
		t.Fatalf("generate: %v", err)
	}
	edit := openai.ImageEditParams{Model: "gpt-image-1", Prompt: "a dam", Image: openai.ImageEditParamsImageUnion{OfFileArray: []io.Reader{
		openai.File(bytes.NewReader([]byte("one")), "one.png", "image/png"), openai.File(bytes.NewReader([]byte("two")), "two.png", "image/png")}}}
	if got, err = c.Images.Edit(within(t), edit); err != nil || len(got.Data) != 1 {
		t.Errorf("edit: %v", err)
	}
	stream := c.Images.GenerateStreaming(within(t), openai.ImageGenerateParams{Model: "gpt-image-1", Prompt: "a dam", PartialImages: openai.Int(2)})
	var kinds []string
	for stream.Next() {
		kinds = append(kinds, stream.Current().Type)
	}
	if want := "image_generation.partial_image image_generation.partial_image image_generation.completed"; stream.Err() != nil || strings.Join(kinds, " ") != want {
		t.Errorf("stream: %v, %v", stream.Err(), kinds)
	}
}

func TestModerationsModelsCompletions(t *testing.T) {
	s := stack.Start(t)
	c := client(s.BaseURL, s.ClientKey)
	for _, model := range []string{"omni-moderation-latest", ""} {
		got, err := c.Moderations.New(within(t), openai.ModerationNewParams{Model: model, Input: openai.ModerationNewParamsInputUnion{OfStringArray: []string{"peace", "violence"}}})
		if err != nil || len(got.Results) != 2 || got.Results[0].Flagged || !got.Results[1].Flagged {
			t.Errorf("moderations of %q: %v", model, err)
		}
	}

	page, err := c.Models.List(within(t))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range page.Data {
		listed[m.ID] = true
	}
	if !listed[stack.Model] || !listed[stack.Alias] || listed[stack.AliasTarget] {
		t.Errorf("models: %v", listed)
	}
	if one, err := c.Models.Get(within(t), stack.Alias); err != nil || one.ID != stack.Alias {
		t.Errorf("model: %v", err)
	}
	_, err = c.Models.Get(within(t), "nobody-has-this")
	apiError(t, err, 404, "model_not_found")
	narrow := client(s.BaseURL, s.NarrowKey)
	if page, err := narrow.Models.List(within(t)); err != nil || len(page.Data) != 1 || page.Data[0].ID != stack.Alias {
		t.Errorf("models of a key with one model: %v %v", err, page)
	}

	params := openai.CompletionNewParams{Model: "gpt-3.5-turbo-instruct", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Once")}, MaxTokens: openai.Int(5)}
	whole, err := c.Completions.New(within(t), params)
	if err != nil || whole.Choices[0].Text == "" || whole.Choices[0].FinishReason != "length" {
		t.Fatalf("completion: %v", err)
	}
	stream, text := c.Completions.NewStreaming(within(t), params), ""
	for stream.Next() {
		text += stream.Current().Choices[0].Text
	}
	if stream.Err() != nil || text != whole.Choices[0].Text {
		t.Errorf("streamed completion: %v %q, whole %q", stream.Err(), text, whole.Choices[0].Text)
	}
}
