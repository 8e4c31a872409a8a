package simulate

import (
	"encoding/json"
	"net/http"
	"strings"
)

var moderationCategories = []string{"harassment", "hate", "illicit", "self-harm", "sexual", "violence"}

// moderations answers POST /moderations. An input that contains the word
// "violence" is flagged, all others are not.
func (c *call) moderations() {
	var req struct {
		Model string
		Input json.RawMessage
	}
	if !c.decode(&req) {
		return
	}
	if req.Model == "" {
		req.Model = c.p.models[0]
	}
	inputs, err := inputList(req.Input)
	if err != nil {
		c.fail(err)
		return
	}
	if inputs[0][0] == '{' { // parts of one input, as pictures come in
		inputs = []json.RawMessage{req.Input}
	}
	if !c.admit(req.Model, countTokens(textBytes(req.Input)), 0) || !c.wait(c.ttft()) {
		return
	}
	results := make([]any, len(inputs))
	for i, input := range inputs {
		results[i] = moderate(plainText(input))
	}
	c.json(http.StatusOK, mustJSON(map[string]any{"id": "modr-" + c.id, "model": req.Model, "results": results}))
}

func moderate(text string) map[string]any {
	flagged := strings.Contains(strings.ToLower(text), "violence")
	categories, scores := map[string]bool{}, map[string]float64{}
	for _, name := range moderationCategories {
		hit := flagged && name == "violence"
		categories[name] = hit
		scores[name] = 0.001
		if hit {
			scores[name] = 0.99
		}
	}
	return map[string]any{"flagged": flagged, "categories": categories, "category_scores": scores}
}
