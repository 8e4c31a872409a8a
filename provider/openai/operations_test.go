package openai

import (
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

func TestLookup(t *testing.T) {
	tests := []struct {
		method, path string
		name         string
		clean        string
		model        string
	}{
		{"POST", "/v1/chat/completions", "chat", "/chat/completions", ""},
		{"POST", "/chat/completions", "chat", "/chat/completions", ""},
		{"POST", "/v1/v1/chat/completions", "chat", "/chat/completions", ""},
		{"POST", "//v1/chat/completions", "chat", "/chat/completions", ""},
		{"POST", "/v1//chat//completions/", "chat", "/chat/completions", ""},
		{"POST", "/openai/v1/chat/completions", "chat", "/chat/completions", ""},
		{"POST", "/openai/responses", "responses", "/responses", ""},
		{"POST", "/V1/Chat/Completions", "chat", "/chat/completions", ""},
		{"POST", "/v1/%63hat%2Fcompletions", "chat", "/chat/completions", ""},
		{"post", "/v1/completions", "completions", "/completions", ""},
		{"POST", "/openai/deployments/gpt-6/chat/completions", "chat", "/chat/completions", "gpt-6"},
		{"POST", "/openai/deployments/org%2Fgpt%206/embeddings", "embeddings", "/embeddings", "org/gpt 6"},
		{"POST", "/openai/deployments/w/audio/transcriptions", "audio_transcriptions", "/audio/transcriptions", "w"},
		{"GET", "/openai/deployments", "passthrough", "/deployments", ""},
		{"GET", "/openai/deployments/gpt-6", "passthrough", "/deployments/gpt-6", ""},
		{"POST", "/openai/deployments/gpt-6/extensions/on", "passthrough", "/extensions/on", "gpt-6"},
		{"POST", "/deployments/gpt-6/chat/completions", "passthrough", "/deployments/gpt-6/chat/completions", ""},
		{"POST", "/v1/responses", "responses", "/responses", ""},
		{"POST", "/v1/responses/input_tokens", "responses", "/responses/input_tokens", ""},
		{"POST", "/v1/responses/compact", "responses", "/responses/compact", ""},
		{"GET", "/v1/responses", "passthrough", "/responses", ""},
		{"GET", "/v1/responses/resp_1", "passthrough", "/responses/resp_1", ""},
		{"DELETE", "/v1/responses/resp_1", "passthrough", "/responses/resp_1", ""},
		{"POST", "/v1/responses/resp_1/cancel", "passthrough", "/responses/resp_1/cancel", ""},
		{"GET", "/v1/chat/completions", "passthrough", "/chat/completions", ""},
		{"POST", "/v1/chat/completions/cc_1", "passthrough", "/chat/completions/cc_1", ""},
		{"POST", "/v1/embeddings", "embeddings", "/embeddings", ""},
		{"POST", "/v1/moderations", "moderations", "/moderations", ""},
		{"POST", "/v1/decisions", "decisions", "/decisions", ""},
		{"POST", "/v1/images/generations", "images_generations", "/images/generations", ""},
		{"POST", "/v1/images/edits", "images_edits", "/images/edits", ""},
		{"POST", "/v1/images/variations", "images_variations", "/images/variations", ""},
		{"POST", "/v1/audio/speech", "audio_speech", "/audio/speech", ""},
		{"POST", "/v1/audio/translations", "audio_translations", "/audio/translations", ""},
		{"GET", "/v1/models", "models", "/models", ""},
		{"GET", "/v1/models/a%2Fb:c", "models", "/models/a%2Fb:c", ""},
		{"POST", "/v1/files", "files", "/files", ""},
		{"GET", "/v1/files/file-1/content", "files", "/files/file-1/content", ""},
		{"POST", "/v1/uploads/u/parts", "uploads", "/uploads/u/parts", ""},
		{"POST", "/v1/batches", "batches", "/batches", ""},
		{"GET", "/v1/realtime", "passthrough", "/realtime", ""},
		{"GET", "/v1/vector_stores/", "passthrough", "/vector_stores/", ""},
		{"GET", "/v1", "passthrough", "/", ""},
		{"GET", "/v1/", "passthrough", "/", ""},
		{"GET", "/", "passthrough", "/", ""},
		{"GET", "/v10/models", "passthrough", "/v10/models", ""},
		{"GET", "/v1/organization/users", "admin_api", "/organization/users", ""},
		{"GET", "/v1/%6Frganization/users", "admin_api", "/%6Frganization/users", ""},
		{"GET", "/v1/Organization", "admin_api", "/Organization", ""},
		{"POST", "/v1/organization%2Fusers", "admin_api", "/organization%2Fusers", ""},
		{"GET", "/openai/deployments/m/projects/p", "admin_api", "/projects/p", "m"},
		{"GET", "/v1/models/m", "models", "/models/m", ""},
		{"DELETE", "/v1/models/ft:m", "models", "/models/ft:m", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			op, clean, model, ok := Lookup(tt.method, tt.path)
			if !ok || op.Name != tt.name || clean != tt.clean || model != tt.model {
				t.Errorf("Lookup = %q %q %q %v, want %q %q %q", op.Name, clean, model, ok, tt.name, tt.clean, tt.model)
			}
			if unread := op.Name == "passthrough" || op.Name == "admin_api"; unread && (op.Metered || op.Model != provider.ModelNone) {
				t.Errorf("%s is metered or named: %+v", op.Name, op)
			}
		})
	}
}

func TestLookupRefuses(t *testing.T) {
	for _, path := range []string{
		"", "v1/models", "*", "/v1/models?x=1", "/v1/a#b",
		"/v1/files/../organization/users", "/v1/files/%2e%2e/organization", "/v1/files/.%2E/x", "/..", "/v1/./models",
		"/v1/files/..%2Forganization", "/v1/files/a%2F..%2F..%2Fprojects", `/v1/files/..\organization`, "/v1/files/..%5Cx",
		"/v1/files/%252e%252e/x", "/v1/files/a%252Fb", "/v1/models/%zz", "/v1/models/%",
		"/v1/models/a%00", "/v1/models/a%0d%0ab", "/v1/models/a\x7f", "/v1/models/\t",
		"/v1/chat/completions;x=1", "/v1/files/..;/organization",
		"/v1%2Fchat/things", "/openai%2Fdeployments/m/chat/things", "/%2F/v1/things",
		"/openai/deployments/" + strings.Repeat("m", 300) + "/chat/completions",
		"/openai/deployments/%ff/chat/completions",
	} {
		if op, clean, _, ok := Lookup("POST", path); ok {
			t.Errorf("Lookup(%q) = %q %q, want a refusal", path, op.Name, clean)
		}
	}
}

// The names are a bounded set, whatever clients send. covers RES-01
func TestLookupNamesAreBounded(t *testing.T) {
	names := make(map[string]bool)
	for _, path := range []string{"/a", "/b/c", "/chat", "/chat/completions/x", "/files/x", "/models/made-up", "/responses/1"} {
		for _, method := range []string{"GET", "POST", "BREW"} {
			op, _, _, _ := Lookup(method, path)
			names[op.Name] = true
		}
	}
	for _, name := range []string{"passthrough", "files", "models"} {
		if !names[name] {
			t.Errorf("no path is %q", name)
		}
		delete(names, name)
	}
	if len(names) != 0 {
		t.Errorf("unexpected names %v", names)
	}
}

// Whatever is accepted stays the same path when it is cleaned again, has no dot
// segments, and is escaped properly.
func FuzzLookup(f *testing.F) {
	for _, path := range []string{"/v1/chat/completions", "/openai/deployments/a%2Fb/embeddings", "//v1/v1//x", "/v1/%2e%2e/x", "/v1%2fx", "/%6frganization"} {
		f.Add("POST", path)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		op, clean, _, ok := Lookup(method, path)
		if !ok {
			return
		}
		if !strings.HasPrefix(clean, "/") || strings.Contains(clean, "//") {
			t.Fatalf("clean path %q of %q", clean, path)
		}
		u, err := url.ParseRequestURI(clean)
		if err != nil {
			t.Fatalf("clean path %q of %q: %v", clean, path, err)
		}
		if strings.Contains(u.Path+"/", "/../") {
			t.Fatalf("dot segment in %q of %q", u.Path, path)
		}
		lower := strings.ToLower(u.Path)
		if op.Name != "admin_api" && (strings.HasPrefix(lower+"/", "/organization/") || strings.HasPrefix(lower+"/", "/projects/")) {
			t.Fatalf("%q is %q", path, op.Name)
		}
		if op.Name == "passthrough" && method == "POST" {
			if _, known := operations["POST "+strings.TrimSuffix(lower, "/")]; known {
				t.Fatalf("%q is not metered", path)
			}
		}
	})
}
