package simulate

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// Sizes of embeddings and moderations.
const (
	defaultDimensions = 1536
	maxDimensions     = 4096
	maxInputs         = 2048
)

type embeddingRequest struct {
	Model          string
	Input          json.RawMessage
	EncodingFormat string `json:"encoding_format"`
	Dimensions     *int
}

// embeddings answers POST /embeddings with vectors that depend on the input only.
func (c *call) embeddings() {
	var req embeddingRequest
	if !c.decode(&req) {
		return
	}
	if req.Model == "" {
		c.fail(invalid("model", "Embeddings need a model."))
		return
	}
	inputs, err := inputList(req.Input)
	if err != nil {
		c.fail(err)
		return
	}
	dimensions := defaultDimensions
	if d := req.Dimensions; d != nil {
		if dimensions = *d; dimensions < 1 || dimensions > maxDimensions {
			c.fail(invalid("dimensions", "Invalid \"dimensions\": %d is not from 1 to %d.", dimensions, maxDimensions))
			return
		}
	}
	if f := req.EncodingFormat; f != "" && f != "float" && f != "base64" {
		c.fail(invalid("encoding_format", "Invalid \"encoding_format\": %q is neither float nor base64.", clip(f)))
		return
	}
	if !c.admit(req.Model, countTokens(textBytes(req.Input)), 0) || !c.wait(c.ttft()) {
		return
	}
	c.json(http.StatusOK, c.embeddingBody(&req, inputs, dimensions))
}

// inputList splits an input into texts or token lists: it is one, or a list of them.
func inputList(raw json.RawMessage) ([]json.RawMessage, *apiError) {
	var list []json.RawMessage
	if len(raw) > 0 && raw[0] == '"' {
		return []json.RawMessage{raw}, nil
	}
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return nil, invalid("input", "\"input\" must be a text or a list that is not empty.")
	}
	if first := list[0][0]; first != '"' && first != '[' && first != '{' {
		return []json.RawMessage{raw}, nil // token numbers
	}
	if len(list) > maxInputs {
		return nil, invalid("input", "\"input\" has %d entries, above the maximum of %d.", len(list), maxInputs)
	}
	return list, nil
}

func (c *call) embeddingBody(req *embeddingRequest, inputs []json.RawMessage, dimensions int) []byte {
	b := append([]byte(nil), `{"object":"list","data":[`...)
	for i, input := range inputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"object":"embedding","index":`...), int64(i), 10)
		b = append(b, `,"embedding":`...)
		vector := embed(input, dimensions)
		if req.EncodingFormat == "base64" {
			b = append(base64.StdEncoding.AppendEncode(append(b, '"'), littleEndian(vector)), '"')
		} else {
			b = appendFloats(b, vector)
		}
		b = append(b, '}')
	}
	b = append(b, `],"model":`+quote(req.Model)...)
	if !c.faults.NoUsage {
		b = strconv.AppendInt(append(b, `,"usage":{"prompt_tokens":`...), int64(c.input), 10)
		b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(c.input), 10)
		b = append(b, '}')
	}
	return append(b, '}')
}

// embed makes a vector of length 1 from an input.
func embed(input []byte, dimensions int) []float32 {
	h := fnv.New64a()
	_, _ = h.Write(input) // a hash never fails
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	vector := make([]float32, dimensions)
	var squares float64
	for i := range vector {
		x := random.Float64()*2 - 1
		vector[i] = float32(x)
		squares += x * x
	}
	scale := float32(1 / math.Sqrt(squares))
	for i := range vector {
		vector[i] *= scale
	}
	return vector
}

func littleEndian(vector []float32) []byte {
	b := make([]byte, 0, 4*len(vector))
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func appendFloats(b []byte, vector []float32) []byte {
	b = append(b, '[')
	for i, x := range vector {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'f', -1, 32)
	}
	return append(b, ']')
}
