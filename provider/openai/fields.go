package openai

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

const (
	keyModel        = "model"
	keyStream       = "stream"
	keyChoices      = "n"
	keyIncludeUsage = "include_usage"
)

// use says what a top-level field is read for.
type use int

const (
	useNone use = iota // not read
	useModel
	useMoreModels // models that may answer in place of that
	useStream
	useStreamFormat
	useStreamOptions
	useOutput  // a limit on output tokens
	useChoices // a number of answers
	useText    // text and typed parts that the model reads
	usePrompt  // the same; an array may hold several prompts
	useSchema  // JSON whose names the model reads too
	useImages  // images by address
	useFormat  // how embeddings are written
)

type field struct {
	name string
	use  use
}

// fields are the top-level fields that are read.
var fields = byName(
	field{keyModel, useModel},
	field{keyStream, useStream},
	field{"models", useMoreModels},    // OpenRouter
	field{"fallbacks", useMoreModels}, // LiteLLM
	field{"stream_format", useStreamFormat},
	field{"stream_options", useStreamOptions},
	field{keyChoices, useChoices},
	field{"best_of", useChoices},
	field{"max_tokens", useOutput},
	field{"max_completion_tokens", useOutput},
	field{"max_output_tokens", useOutput},

	field{"messages", useText},
	field{"input", useText},
	field{"prompt", usePrompt},
	field{"suffix", useText},
	field{"system", useText},
	field{"instructions", useText},
	field{"prediction", useText},
	field{"tools", useSchema},
	field{"functions", useSchema},
	field{"response_format", useSchema},
	field{"text", useSchema},
	field{"image", useImages},
	field{"images", useImages},
	field{"encoding_format", useFormat},
)

// decides reports whether the field says what a request may do or costs, so that
// every server has to read it as the gateway does.
func (f field) decides() bool { return f.use >= useModel && f.use <= useChoices }

// folded maps the folded names of the deciding fields to the names.
var folded = func() map[string]string {
	m := make(map[string]string)
	for name, f := range fields {
		if f.decides() {
			m[fold(name)] = name
		}
	}
	return m
}()

func byName(list ...field) map[string]field {
	m := make(map[string]field, len(list))
	for _, f := range list {
		m[f.name] = f
	}
	return m
}

// lookupField finds the field of a quoted name. A name that is not that of a
// deciding field, but that a lenient parser takes for one, is refused.
func lookupField(quoted []byte) (field, error) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name = []byte(unquote(quoted))
	}
	if f, ok := fields[string(name)]; ok {
		return f, nil
	}
	var buf [maxFolded]byte
	if meant, ok := folded[string(appendFold(buf[:0], name))]; ok {
		return field{}, errAmbiguous(meant)
	}
	return field{}, nil
}

// maxFolded exceeds every folded name; what is longer can be cut.
const maxFolded = 32

// fold returns a name as the most lenient parsers compare it.
func fold(name string) string { return string(appendFold(nil, []byte(name))) }

// appendFold appends a name without what lenient parsers do not tell apart:
//   - case, by Unicode's simple folding: encoding/json of Go, by which U+017F is
//     an s and U+212A is a k
//   - "_" and "-": case-insensitive matching of encoding/json/v2; and the JSON of
//     Protocol Buffers, which takes maxTokens for max_tokens
//   - what follows a NUL, where C strings end
//
// It stops after maxFolded bytes.
func appendFold(dst, name []byte) []byte {
	for i := 0; i < len(name) && len(dst) < maxFolded; {
		r, n := rune(name[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(name[i:])
		}
		i += n
		switch {
		case r == 0:
			return dst
		case r == '_' || r == '-':
		case 'A' <= r && r <= 'Z':
			dst = append(dst, byte(r|0x20))
		case r < utf8.RuneSelf:
			dst = append(dst, byte(r))
		default:
			dst = utf8.AppendRune(dst, foldRune(r))
		}
	}
	return dst
}

// foldRune returns the lower-case ASCII letter that r folds to, or r.
func foldRune(r rune) rune {
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		if 'a' <= f && f <= 'z' {
			return f
		}
	}
	return r
}
