// Package openai speaks the API of OpenAI and of the many servers that copy it.
package openai

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"penstock/provider"
)

// Names of operations.
const (
	opChat                = "chat"
	opCompletions         = "completions"
	opResponses           = "responses"
	opEmbeddings          = "embeddings"
	opDecisions           = "decisions"
	opModerations         = "moderations"
	opImagesGenerations   = "images_generations"
	opImagesEdits         = "images_edits"
	opImagesVariations    = "images_variations"
	opAudioSpeech         = "audio_speech"
	opAudioTranscriptions = "audio_transcriptions"
	opAudioTranslations   = "audio_translations"
	opAdmin               = "admin_api"   // organisation and project administration
	opPassthrough         = "passthrough" // every path that is not known here
)

// operations are the requests whose body says what they cost. Everything that
// only reads or manages stored objects is absent: it uses no tokens.
var operations = map[string]provider.Operation{
	"POST /chat/completions":       {Name: opChat, Model: provider.ModelRequired, Metered: true, Stream: true},
	"POST /completions":            {Name: opCompletions, Model: provider.ModelRequired, Metered: true, Stream: true},
	"POST /responses":              {Name: opResponses, Model: provider.ModelOptional, Metered: true, Stream: true},
	"POST /responses/compact":      {Name: opResponses, Model: provider.ModelOptional, Metered: true},
	"POST /responses/input_tokens": {Name: opResponses, Model: provider.ModelOptional},
	"POST /embeddings":             {Name: opEmbeddings, Model: provider.ModelRequired, Metered: true},
	"POST /decisions":              {Name: opDecisions, Model: provider.ModelRequired, Metered: true},
	"POST /moderations":            {Name: opModerations, Model: provider.ModelOptional},
	"POST /images/generations":     {Name: opImagesGenerations, Model: provider.ModelOptional, Metered: true, Stream: true},
	"POST /images/edits":           {Name: opImagesEdits, Model: provider.ModelOptional, Metered: true, Stream: true},
	"POST /images/variations":      {Name: opImagesVariations, Model: provider.ModelOptional},
	"POST /audio/speech":           {Name: opAudioSpeech, Model: provider.ModelRequired, Metered: true, Stream: true},
	"POST /audio/transcriptions":   {Name: opAudioTranscriptions, Model: provider.ModelRequired, Metered: true, Stream: true},
	"POST /audio/translations":     {Name: opAudioTranslations, Model: provider.ModelRequired, Metered: true},
}

// families are first path segments under which every request has one name.
var families = map[string]string{
	"models":        "models",
	"files":         "files",
	"uploads":       "uploads",
	"batches":       "batches",
	"organization":  opAdmin,
	"organizations": opAdmin, // Anthropic
	"projects":      opAdmin,
	"keys":          opAdmin, // OpenRouter
}

// stores are first path segments under which objects are only kept.
var stores = map[string]bool{
	"models": true, "files": true, "uploads": true, "conversations": true, "vector_stores": true, "containers": true,
}

// unchecked reports whether a request that is not in operations may set a model to
// work.
func unchecked(method, first, path string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "DELETE":
		return false
	}
	return !stores[first] && !strings.HasSuffix(path, "/cancel")
}

// stored reports whether a path is that of an answer which its upstream keeps.
func stored(path string) bool {
	id, ok := strings.CutPrefix(path, "/responses/")
	if !ok {
		id, ok = strings.CutPrefix(path, "/chat/completions/")
	}
	return ok && id != ""
}

// formOperations take multipart forms.
var formOperations = map[string]bool{
	opImagesEdits:         true,
	opImagesVariations:    true,
	opAudioTranscriptions: true,
	opAudioTranslations:   true,
}

// Lookup names the operation of a request and cleans its path. The path is the
// client's, escaped and without the query; clean is the escaped path under the
// API root, such as "/chat/completions". Left out of it are /v1 prefixes, also
// repeated ones, empty segments, and the /openai prefix of Azure clients.
//
// The model is that of an Azure deployment path
// (/openai/deployments/{model}/chat/completions), unescaped, and empty for every
// other path. It takes the place of the model in the body: set Call.Model to it
// before scanning.
//
// Administration of organisations and projects is named "admin_api", for the
// caller to refuse. What is not known is "passthrough", websocket paths among it.
// The names are a bounded set.
//
// A path is not ok when an upstream could read it as another one: with "." or
// ".." segments, control characters, backslashes, path parameters, or bytes
// escaped twice, in any encoding, or in no valid UTF-8.
func Lookup(method, path string) (op provider.Operation, clean, model string, ok bool) {
	if op, known := operations[method+" "+strings.TrimPrefix(path, "/v1")]; known {
		return op, strings.TrimPrefix(path, "/v1"), "", true // as almost all are spelled
	}
	decoded, ok := decodePath(path)
	if !ok {
		return provider.Operation{}, "", "", false
	}
	clean, azure := stripPrefixes(path)
	if plain, _ := stripPrefixes(decoded); unescape(clean) != plain {
		return provider.Operation{}, "", "", false // a prefix or slash was hidden by escapes
	}
	if azure {
		clean, model, ok = cutDeployment(clean)
		if !ok {
			return provider.Operation{}, "", "", false
		}
	}
	op, canonical := match(strings.ToUpper(method), unescape(clean))
	if canonical != "" {
		clean = canonical
	}
	return op, clean, model, true
}

// match finds the operation of an unescaped path. Spellings that a lenient
// server takes for a known path (another case, a slash at the end) are that path,
// so that none of them goes unmetered; canonical is then how it is sent.
func match(method, path string) (op provider.Operation, canonical string) {
	key := strings.TrimSuffix(strings.ToLower(path), "/")
	op, ok := operations[method+" "+key]
	if ok {
		return op, key
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	op = provider.Operation{Name: opPassthrough, Unchecked: unchecked(method, first, key), Stored: stored(key)}
	if name, ok := families[strings.Trim(first, ". ")]; ok {
		op.Name = name
	}
	return op, ""
}

// decodePath unescapes a path and reports whether every server reads it alike.
func decodePath(path string) (string, bool) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
		return "", false
	}
	decoded, err := url.PathUnescape(path)
	if err != nil || strings.ContainsAny(decoded, `\;`) {
		return "", false
	}
	if again, err := url.PathUnescape(decoded); err == nil && again != decoded {
		return "", false
	}
	if !utf8.ValidString(decoded) { // such as the over-long forms of a dot
		return "", false
	}
	ascii := true
	for i := range len(decoded) {
		if decoded[i] < ' ' || decoded[i] == 0x7f {
			return "", false
		}
		ascii = ascii && decoded[i] < utf8.RuneSelf
	}
	plain := decoded
	if !ascii {
		plain = dots.Replace(decoded)
	}
	for segment := range strings.SplitSeq(plain, "/") {
		switch segment {
		case ".", "..":
			return "", false
		}
	}
	return decoded, true
}

// dots are characters that Unicode's compatibility forms make dots of.
var dots = strings.NewReplacer("\uff0e", ".", "\u2024", ".", "\u2025", "..", "\ufe52", ".")

// unescape unescapes a part of a path that decodePath has accepted.
func unescape(path string) string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return decoded
}

// stripPrefixes merges slashes and removes one /openai and every /v1 from the
// front. It works on escaped and on unescaped paths.
func stripPrefixes(path string) (rest string, azure bool) {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	path, azure = cutSegment(path, "/openai")
	for again := true; again; {
		path, again = cutSegment(path, "/v1")
	}
	return path, azure
}

// cutSegment removes a whole first segment, in any case.
func cutSegment(path, segment string) (string, bool) {
	n := len(segment)
	switch {
	case len(path) < n || !strings.EqualFold(path[:n], segment):
		return path, false
	case len(path) == n:
		return "/", true
	case path[n] != '/':
		return path, false
	}
	return path[n:], true
}

// cutDeployment takes the model out of a deployment path
// (https://learn.microsoft.com/azure/ai-services/openai/reference). Other paths
// are unchanged.
func cutDeployment(path string) (rest, model string, ok bool) {
	after, found := cutSegment(path, "/deployments")
	if !found {
		return path, "", true
	}
	name, tail, found := strings.Cut(strings.TrimPrefix(after, "/"), "/")
	if !found || name == "" {
		return path, "", true
	}
	model = unescape(name)
	if checkModel(model) != nil {
		return "", "", false
	}
	return "/" + tail, model, true
}
