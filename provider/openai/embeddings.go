package openai

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"penstock/provider"
)

const (
	formatBase64 = "base64"
	keyEmbedding = "embedding"

	peekEmbedding = 4 << 10 // bytes of an answer in which its first vector begins
	maxDimensions = 1 << 20 // numbers of one vector
	maxToken      = 8 << 20 // bytes of one string or number of an answer
)

// encodeVectors makes the vectors of an embeddings answer base64 where the client
// asked for that and the upstream does not know it. SDKs ask for it by default, and
// openai-node reads an array of numbers as an empty vector.
func encodeVectors(c *provider.Call, resp *http.Response) {
	if !c.Base64 {
		return
	}
	r := bufio.NewReaderSize(resp.Body, peekEmbedding)
	begin, _ := r.Peek(peekEmbedding) // an error comes again when it is read
	body := struct {
		io.Reader
		io.Closer
	}{r, resp.Body}
	resp.Body = body
	for name, i := nextMember(begin, 0); name != nil; name, i = nextMember(begin, i) {
		if string(name) == keyEmbedding {
			if begin[i] == '[' {
				resp.Body, resp.ContentLength = newVectorEncoder(body), -1
			}
			return
		}
	}
}

// A vectorEncoder is a JSON body in which arrays of numbers under "embedding" are
// replaced by the same numbers as little-endian float32 in base64. It holds one
// vector at a time. Other values stay as they are, white space between them does
// not.
type vectorEncoder struct {
	io.Closer
	src *bounded
	dec *jsontext.Decoder
	enc *jsontext.Encoder
	out bytes.Buffer
	err error // to be reported once out is empty
}

func newVectorEncoder(src io.ReadCloser) *vectorEncoder {
	lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true)}
	v := &vectorEncoder{Closer: src, src: &bounded{r: src, left: maxToken}}
	v.dec = jsontext.NewDecoder(v.src, lenient...)
	v.enc = jsontext.NewEncoder(&v.out, lenient...)
	return v
}

// Read implements io.Reader.
func (v *vectorEncoder) Read(p []byte) (int, error) {
	for v.out.Len() == 0 {
		if v.err != nil {
			return 0, v.err
		}
		for v.err == nil && v.out.Len() < len(p) {
			v.err = v.step()
		}
	}
	return v.out.Read(p)
}

// bounded is a reader that fails after so many bytes. The decoder holds a token whole,
// however long it is, so what it reads for one is bounded.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("a value of the upstream's answer is too long")
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// step passes one token or vector on.
func (v *vectorEncoder) step() error {
	v.src.left = maxToken
	inside, n := v.dec.StackIndex(v.dec.StackDepth())
	token, err := v.dec.ReadToken()
	if err != nil {
		return truncated(err)
	}
	if err := v.enc.WriteToken(token); err != nil {
		return err
	}
	isName := inside == jsontext.KindBeginObject && n%2 == 0 && token.Kind() == jsontext.KindString
	if !isName || token.String() != keyEmbedding || v.dec.PeekKind() != jsontext.KindBeginArray {
		return nil
	}
	return v.vector()
}

// vector replaces an array of numbers. Others, such as one vector for each token,
// stay.
func (v *vectorEncoder) vector() error {
	open, err := v.dec.ReadToken()
	if err != nil {
		return truncated(err)
	}
	if k := v.dec.PeekKind(); k != jsontext.KindNumber && k != jsontext.KindEndArray {
		return v.enc.WriteToken(open)
	}
	var vector []byte
	for v.dec.PeekKind() == jsontext.KindNumber && len(vector) < 4*maxDimensions {
		v.src.left = maxToken
		token, err := v.dec.ReadToken()
		if err != nil {
			return truncated(err)
		}
		f, err := strconv.ParseFloat(token.String(), 32)
		if err != nil {
			return err
		}
		vector = binary.LittleEndian.AppendUint32(vector, math.Float32bits(float32(f)))
	}
	end, err := v.dec.ReadToken()
	if err != nil {
		return truncated(err)
	}
	if end.Kind() != jsontext.KindEndArray {
		return errors.New("an embedding of the upstream is no vector of numbers")
	}
	return v.enc.WriteToken(jsontext.String(base64.StdEncoding.EncodeToString(vector)))
}

// truncated tells a cut, which is the end of the source within a value, from what is
// no JSON.
func truncated(err error) error {
	var bad *jsontext.SyntacticError
	switch {
	case !errors.As(err, &bad):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return &provider.Error{Kind: provider.KindHealth, Code: "not_json", Err: errors.New("the answer is not JSON")}
}
