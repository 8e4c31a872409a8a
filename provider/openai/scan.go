package openai

import (
	"bytes"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"penstock/provider"
)

// Bounds are what a client may ask for at most, and what typed parts are taken to
// cost before a provider has counted them. A zero limit is no limit.
type Bounds struct {
	MaxOutput  int64 // largest max_tokens, max_completion_tokens or max_output_tokens
	MaxChoices int64 // largest n or best_of

	Image, Audio, File int64 // input tokens of one image, audio or file part

	MaxDepth int // deepest nesting of a body; 0 means 256, and 10,000 is the most
}

const (
	defaultDepth = 256
	decoderDepth = 10_000 // what jsontext bears
)

// Scan reads a JSON body once and fills the fields of the call that say what it
// asks for: Model, ModelSpan, Stream, IncludeUsage, StreamOptions, ObjectEnd,
// InputText, InputParts, MaxOutput and Choices. The body is validated and never
// changed or kept. A model that the call already has, from its path, stays.
//
// ModelSpan and StreamOptions also cover a null, which counts as absent. Choices
// is multiplied by the number of prompts where a completion has several.
//
// The error is a *RequestError; the call is then not to be used. Besides bad JSON
// it refuses what two parsers could read differently: names that occur twice in
// any object, and top-level names that are almost those of deciding fields.
//
// Operations without a model, such as "passthrough", are not scanned. Scan is
// safe for concurrent use with different calls.
func Scan(c *provider.Call, lim Bounds) error {
	if c.Op.Model == provider.ModelNone {
		return nil
	}
	if bytes.HasPrefix(c.Body, []byte("\xef\xbb\xbf")) {
		return reject(CodeInvalidJSON, "", "the body begins with a byte order mark; send JSON as UTF-8 without one")
	}
	if lim.MaxDepth <= 0 {
		lim.MaxDepth = defaultDepth
	}
	if !strictJSON(c.Body, min(lim.MaxDepth, decoderDepth)+1) {
		return whyInvalid(c.Body, lim.MaxDepth)
	}
	s := scanner{call: c, lim: lim}
	c.Choices = 1
	if err := s.body(); err != nil {
		return err
	}
	if c.Op.Model == provider.ModelRequired && c.Model == "" {
		return errMissingModel()
	}
	c.Choices = saturatingMul(c.Choices, max(s.prompts, 1))
	return nil
}

// MaxTotalOutput returns the most output tokens that a call can use by its own
// limits, over all choices: MaxOutput × Choices, at most the largest int64. It is
// 0 when the client set no limit.
func MaxTotalOutput(c *provider.Call) int64 {
	return saturatingMul(c.MaxOutput, max(c.Choices, 1))
}

func saturatingAdd(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

func saturatingMul(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

// A scanner is what one Scan works with.
type scanner struct {
	call    *provider.Call
	lim     Bounds
	prompts int64 // prompts of a completion, 0 when there is one
}

// body goes through the members of a body that is valid JSON.
func (s *scanner) body() (err error) {
	body := s.call.Body
	open := skipSpace(body, 0)
	if body[open] != '{' {
		return reject(CodeInvalidJSON, "", "the body is not a JSON object")
	}
	members(body, open, func(name []byte, at provider.Span) bool {
		var f field
		if f, err = lookupField(name); err == nil {
			err = s.member(f, body[at.Start:at.End], at)
		}
		return err == nil
	})
	s.call.ObjectEnd = bytes.LastIndexByte(body, '}')
	return err
}

// member takes in one top-level member.
func (s *scanner) member(f field, value []byte, at provider.Span) error {
	c := s.call
	isNull := value[0] == 'n'
	switch f.use {
	case useModel:
		c.ModelSpan = at
		return s.model(value)
	case useMoreModels:
		c.MoreModels = c.MoreModels || !isNull
		return nil
	case useStream, useStreamFormat:
		return s.stream(f, value)
	case useOutput:
		n, err := s.integer(f.name, value, s.lim.MaxOutput)
		c.MaxOutput = max(c.MaxOutput, n)
		return err
	case useChoices:
		n, err := s.integer(f.name, value, s.lim.MaxChoices)
		c.Choices = max(c.Choices, n)
		return err
	case useFormat:
		c.Base64 = c.Op.Name == opEmbeddings && value[0] == '"' && unquote(value) == formatBase64
	case useStreamOptions:
		if !isNull && value[0] != '{' {
			return reject(CodeInvalidValue, f.name, "stream_options must be an object")
		}
		c.StreamOptions = at
		if !isNull {
			return s.streamOptions(value)
		}
		return nil
	}
	return s.input(f, value)
}

func (s *scanner) model(value []byte) error {
	switch value[0] {
	case 'n':
		return nil
	case '"':
	default:
		return reject(CodeInvalidValue, keyModel, "model must be a string")
	}
	name := unquote(value)
	if err := checkModel(name); err != nil {
		return err
	}
	if s.call.Model == "" {
		s.call.Model = name
	}
	return nil
}

// stream decides whether the client asks for server-sent events. Speech has a
// field of its own for it.
func (s *scanner) stream(f field, value []byte) error {
	speech := s.call.Op.Name == opAudioSpeech
	switch {
	case f.use == useStreamFormat:
		s.call.Stream = s.call.Stream || speech && value[0] == '"' && unquote(value) == "sse"
	case value[0] == 't':
		s.call.Stream = s.call.Stream || !speech
	case value[0] != 'f' && value[0] != 'n':
		return reject(CodeInvalidValue, f.name, "stream must be true or false")
	}
	return nil
}

// integer reads a field that sets cost; null is 0.
func (s *scanner) integer(name string, value []byte, limit int64) (int64, error) {
	if value[0] == 'n' {
		return 0, nil
	}
	return parseCount(name, string(value), limit)
}

// parseCount reads an integer from 1 to limit, in digits only: no sign, fraction,
// exponent or space. A limit of 0 is the largest int64.
func parseCount(name, value string, limit int64) (int64, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || n < 1 || n > uint64(limit) {
		return 0, reject(CodeInvalidValue, name, "%s must be an integer from 1 to %d", name, limit)
	}
	return int64(n), nil
}

func (s *scanner) streamOptions(value []byte) (err error) {
	members(value, 0, func(quoted []byte, at provider.Span) bool {
		name := unquote(quoted)
		switch {
		case name != keyIncludeUsage && fold(name) == fold(keyIncludeUsage):
			err = errAmbiguous(keyIncludeUsage)
		case name != keyIncludeUsage, value[at.Start] == 'f', value[at.Start] == 'n':
		case value[at.Start] == 't':
			s.call.IncludeUsage = true
		default:
			err = reject(CodeInvalidValue, keyIncludeUsage, "include_usage must be true or false")
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return s.input(field{}, value) // for the depth
}

// input adds what the model reads to the estimate, and bounds the depth of all.
func (s *scanner) input(f field, value []byte) error {
	c := s.call
	w := walker{b: value, lim: &s.lim, names: f.use == useSchema, maxDepth: s.lim.MaxDepth}
	var sum tally
	if k := value[0]; k == '"' || k == '{' || k == '[' {
		_, sum = w.value(0, 1)
	}
	if w.tooDeep {
		return errDepth(s.lim.MaxDepth)
	}
	switch {
	case f.use == useText, f.use == useSchema, f.use == usePrompt, f.use == useNone && c.Op.Name == opDecisions:
		c.InputText += sum.text
		c.InputParts = saturatingAdd(c.InputParts, sum.parts)
	case f.use == useImages && c.Op.Name == opImagesEdits && value[0] != 'n':
		n := int64(1)
		if value[0] == '[' {
			n, _ = count(value, 0)
		}
		c.InputParts = saturatingAdd(c.InputParts, saturatingMul(n, s.lim.Image))
	}
	if f.use == usePrompt && c.Op.Name == opCompletions && value[0] == '[' {
		if n, first := count(value, 0); first == '"' || first == '[' {
			s.prompts = n
		}
	}
	return nil
}

// unquote returns the text of a valid JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // cannot fail: the string was validated
	return string(text)
}
