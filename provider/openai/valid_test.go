package openai

import (
	"runtime"
	"strings"
	"testing"
)

// covers RES-04, RES-05: an answer that is nested as deep as it is long is no answer,
// and costs no stack.
func TestDeepAnswers(t *testing.T) {
	nested := func(open, end string, n int) string { return strings.Repeat(open, n) + "1" + strings.Repeat(end, n) }
	for _, c := range []struct {
		name, json string
		valid      bool
	}{
		{"flat", `{"a":[1,2],"b":"x"}`, true},
		{"arrays", nested("[", "]", maxNesting), true},
		{"objects", nested(`{"a":`, "}", maxNesting), true},
		{"many beside each other", "[" + strings.Repeat("[],", 5000) + "[]]", true},
		{"in a string", `"` + strings.Repeat(`\"[`, 5000) + `"`, true},
		{"too many arrays", nested("[", "]", maxNesting+1), false},
		{"too many objects", nested(`{"a":`, "}", maxNesting+1), false},
		{"a string that does not end", `"` + strings.Repeat("[", 5000), false},
		{"an escape that does not end", strings.Repeat("[", maxNesting+1)[:maxNesting-1] + strings.Repeat("{}", 5) + `"\`, false},
	} {
		if got := validJSON([]byte(c.json)); got != c.valid {
			t.Errorf("%s: valid is %v", c.name, got)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	deep := strings.Repeat("[", 3<<20)
	got, _, err := inPieces(t, streamCall(t, "/chat/completions", false), strings.NewReader(helloEvent+"event: error\ndata: "+deep+"\n\n"), 32<<10)
	if err == nil || !strings.HasPrefix(got, helloEvent) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.StackSys) - int64(before.StackSys); grown > 16<<20 {
		t.Errorf("the stack grew by %d MiB", grown>>20)
	}
}
