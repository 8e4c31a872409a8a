package simulate

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
)

// Made-up sizes of sound.
const (
	audioBytesPerToken = 1024 // of an uploaded recording, counted as input
	speechChunk        = 960  // bytes of one token of speech: 20 ms of 24 kHz, 16 bits
	speechRate         = 24000
)

var speechTypes = map[string]string{
	"": "audio/mpeg", "mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm",
	"opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac",
}

// speech answers POST /audio/speech with chunks of sound: a real, silent file
// for wav and pcm, and arbitrary bytes for the compressed formats.
func (c *call) speech() {
	var req struct {
		Model, Input   string
		ResponseFormat string `json:"response_format"`
		StreamFormat   string `json:"stream_format"`
	}
	if !c.decode(&req) {
		return
	}
	c.stream = req.StreamFormat == "sse"
	contentType, known := speechTypes[req.ResponseFormat]
	if req.Model == "" || req.Input == "" {
		c.fail(invalid("", "Speech needs a model and input."))
		return
	}
	if !known {
		c.fail(invalid("response_format", "Invalid \"response_format\": %q.", clip(req.ResponseFormat)))
		return
	}
	out := c.newOutput(nil, "", nil)
	if !c.admit(req.Model, countTokens(len(req.Input)), int64(out.total())) {
		return
	}
	s, send := c.speechStream(contentType)
	s.close(c.speechChunks(s, out, req.ResponseFormat, send))
}

// speechStream is the stream and the way a chunk is sent on it: as it is, or
// in an event. A chunk of nil is the end.
func (c *call) speechStream(contentType string) (*stream, func(chunk []byte, u usage) error) {
	if !c.stream {
		s := c.newStream(contentType, nil)
		return s, func(chunk []byte, _ usage) error {
			if chunk == nil {
				return nil
			}
			return s.event(chunk)
		}
	}
	s := c.newEventStream(chatError)
	return s, func(chunk []byte, u usage) error {
		if chunk != nil {
			return s.event([]byte(`data: {"type":"speech.audio.delta","audio":"` + base64.StdEncoding.EncodeToString(chunk) + "\"}\n\n"))
		}
		return s.event(fmt.Appendf(nil, `data: {"type":"speech.audio.done","usage":{"input_tokens":%d,"output_tokens":%d,"total_tokens":%d}}`+"\n\n",
			u.input, u.output, u.input+u.output))
	}
}

func (c *call) speechChunks(s *stream, out *output, format string, send func([]byte, usage) error) error {
	if err := s.first(out.hidden, 1); err != nil {
		return err
	}
	sound := make([]byte, speechChunk)
	if format != "wav" && format != "pcm" {
		for i := range sound {
			sound[i] = byte(i * 7)
		}
	}
	err := s.tokens(out, 1, func(from, n int) error {
		for i := range n {
			chunk := sound
			if format == "wav" && from+i == 0 {
				chunk = append(wavHeader(out.tokens*speechChunk), sound...)
			}
			if err := send(chunk, usage{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send(nil, c.usage(out, 1))
}

// wavHeader is the header of a file with so many bytes of mono 16-bit samples.
func wavHeader(size int) []byte {
	b := append([]byte(nil), "RIFF"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(36+size))
	b = append(b, "WAVEfmt "...)
	b = binary.LittleEndian.AppendUint32(b, 16)
	b = binary.LittleEndian.AppendUint16(b, 1) // uncompressed
	b = binary.LittleEndian.AppendUint16(b, 1) // channels
	b = binary.LittleEndian.AppendUint32(b, speechRate)
	b = binary.LittleEndian.AppendUint32(b, speechRate*2)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 16)
	b = append(b, "data"...)
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

// transcribe answers POST /audio/transcriptions.
func (c *call) transcribe() { c.listen(true) }

// translate answers POST /audio/translations, which does not stream.
func (c *call) translate() { c.listen(false) }

func (c *call) listen(mayStream bool) {
	var sound int64
	f, ok := c.readForm(func(field, _ string, r io.Reader) (err error) {
		if field == "file" {
			sound, err = io.Copy(io.Discard, r)
		}
		return err
	})
	if !ok {
		return
	}
	model, format := f.fields["model"], f.fields["response_format"]
	c.stream = mayStream && f.fields["stream"] == "true"
	switch {
	case f.files == 0:
		c.fail(invalid("file", "A transcription needs a file."))
		return
	case model == "":
		c.fail(invalid("model", "A transcription needs a model."))
		return
	}
	out := c.newOutput(nil, "", nil)
	prompt := max(1, int(sound/audioBytesPerToken)) + (len(f.fields["prompt"])+bytesPerToken-1)/bytesPerToken
	if !c.admit(model, prompt, int64(out.total())) {
		return
	}
	if c.stream {
		s := c.newEventStream(chatError)
		s.close(c.transcriptEvents(s, out))
	} else if c.think(out, 1) {
		c.transcript(out, format)
	}
}

func (c *call) transcript(out *output, format string) {
	text := out.text(0)
	switch format {
	case "text":
		c.bytes(http.StatusOK, "text/plain; charset=utf-8", []byte(text+"\n"))
	case "srt":
		c.bytes(http.StatusOK, "text/plain; charset=utf-8", []byte("1\n00:00:00,000 --> 00:00:01,000\n"+text+"\n\n"))
	case "vtt":
		c.bytes(http.StatusOK, "text/vtt; charset=utf-8", []byte("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n"+text+"\n"))
	case "verbose_json":
		c.json(http.StatusOK, mustJSON(map[string]any{"task": "transcribe", "language": "english", "duration": 1.0, "text": text,
			"segments": []any{}, "usage": map[string]any{"type": "duration", "seconds": 1}}))
	default:
		c.json(http.StatusOK, mustJSON(c.transcriptFields(out, text)))
	}
}

func (c *call) transcriptFields(out *output, text string) map[string]any {
	fields := map[string]any{"text": text}
	if !c.faults.NoUsage {
		u := c.usage(out, 1)
		fields["usage"] = map[string]any{"type": "tokens", "input_tokens": u.input, "output_tokens": u.output, "total_tokens": u.input + u.output,
			"input_token_details": map[string]int{"text_tokens": 0, "audio_tokens": u.input}}
	}
	return fields
}

func (c *call) transcriptEvents(s *stream, out *output) error {
	if err := s.first(out.hidden, 1); err != nil {
		return err
	}
	err := s.tokens(out, 1, func(from, n int) error {
		b := append([]byte(nil), `data: {"type":"transcript.text.delta","delta":"`...)
		return s.event(append(out.appendJSON(b, 0, from, n), "\"}\n\n"...))
	})
	if err != nil {
		return err
	}
	fields := c.transcriptFields(out, out.text(0))
	fields["type"] = "transcript.text.done"
	return s.event([]byte("data: " + string(mustJSON(fields)) + "\n\n"))
}
