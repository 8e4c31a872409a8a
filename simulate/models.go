package simulate

import (
	"net/http"
	"slices"
)

// modelsCreated is the made-up date of all models, in Unix seconds.
const modelsCreated = 1_735_689_600

func modelObject(id string) map[string]any {
	return map[string]any{"id": id, "object": "model", "created": modelsCreated, "owned_by": "simulated"}
}

// checkModel refuses a model that a strict provider does not have.
func (p *Provider) checkModel(id string) *apiError {
	if !p.strict || slices.Contains(p.models, id) {
		return nil
	}
	return &apiError{status: http.StatusNotFound, kind: "invalid_request_error", param: "model", code: "model_not_found",
		message: "The simulated provider has no model `" + clip(id) + "`."}
}

// listModels answers GET /models.
func (c *call) listModels() {
	list := make([]any, len(c.p.models))
	for i, id := range c.p.models {
		list[i] = modelObject(id)
	}
	c.json(http.StatusOK, mustJSON(map[string]any{"object": "list", "data": list}))
}

// getModel answers GET /models/{id}, where the id may contain slashes.
func (c *call) getModel() {
	if err := c.p.checkModel(c.pathID); err != nil {
		c.fail(err)
		return
	}
	c.json(http.StatusOK, mustJSON(modelObject(c.pathID)))
}
