package proxy

import (
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

// estimate is what the call will probably use.
func (x *exchange) estimate(t *provider.Target) limits.Cost {
	c := x.call
	cost := limits.Cost{Requests: 1}
	if !c.Op.Metered {
		return cost
	}
	cost.Input = x.p.estimator.Input(t.State, c.InputText, c.InputParts)
	if noOutput[c.Op.Name] {
		return cost
	}
	limit := x.maxOutput()
	if x.team.Strict && limit > 0 {
		cost.Output = limit
		return cost
	}
	cost.Output = x.predicted(t, limit)
	cost.Predicted = cost.Output
	return cost
}

// predicted is how much output the team's calls of this kind have lately had, for
// each of the call's choices.
func (x *exchange) predicted(t *provider.Target, limit int64) int64 {
	one := x.p.estimator.Output(x.team.Name, x.kind(t), x.call.MaxOutput)
	if all := one * max(1, x.call.Choices); limit <= 0 || all < limit {
		return all
	}
	return limit
}

// kind names the calls of the same operation and model, whose output is alike.
func (x *exchange) kind(t *provider.Target) string {
	if x.kindOf != t {
		x.kindOf, x.kindName = t, x.call.Op.Name+"/"+t.Label
	}
	return x.kindName
}

// maxOutput is the most output that the call allows, over all its choices; 0 when
// it sets no limit. What is more than anything can write is cut, so that sums of it
// stay far from overflow.
func (x *exchange) maxOutput() int64 { return min(openai.MaxTotalOutput(x.call), mostOutput) }

const mostOutput = 1 << 44

// noOutput are the operations that use no output tokens.
var noOutput = map[string]bool{"embeddings": true, "audio_speech": true}
