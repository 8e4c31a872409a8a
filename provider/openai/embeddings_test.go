package openai

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"penstock/provider"
)

// embedded asks for embeddings and reads the answer that an upstream gives.
func embedded(t *testing.T, request, answer string) (string, *provider.Reply, error) {
	t.Helper()
	c := &provider.Call{Op: operations["POST /embeddings"], Body: []byte(request)}
	if err := Scan(c, Bounds{}); err != nil {
		t.Fatal(err)
	}
	resp := &http.Response{StatusCode: 200, ProtoMajor: 1, ContentLength: int64(len(answer)), Body: io.NopCloser(strings.NewReader(answer)), Header: http.Header{"Content-Type": {"application/json"}}}
	reply, err := Adapter{}.Reply(&provider.Target{MaxAnswer: 64 << 10}, c, resp)
	if err != nil {
		return "", nil, err
	}
	out, err := io.ReadAll(reply.Body)
	return string(out), reply, err
}

const wantsBase64 = `{"model":"m","input":"x","encoding_format":"base64"}`

func TestVectorsComeAsTheClientAskedForThem(t *testing.T) {
	const floats = ` {"object":"list", "data":[{"object":"embedding","index":0,"embedding":[0.1, -2e-3 ,3,1.00000001]},{"index":1,"embedding":[]}],"model":"é\u00e9","big":12345678901234567890,"usage":{"prompt_tokens":5,"total_tokens":5}}`
	const packed = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":"zczMPW8SA7sAAEBAAACAPw=="},{"index":1,"embedding":""}],"model":"é\u00e9","big":12345678901234567890,"usage":{"prompt_tokens":5,"total_tokens":5}}`
	const tokens = `{"data":[{"embedding":[[1,2],[3,4]]}],"usage":{"prompt_tokens":5}}`
	for _, c := range []struct{ name, request, answer, want string }{
		{"base64 asked, floats came", wantsBase64, floats, packed},
		{"base64 asked, base64 came", wantsBase64, packed, packed},
		{"floats asked", strings.Replace(wantsBase64, "base64", "float", 1), floats, floats},
		{"nothing asked", `{"model":"m","input":"x"}`, floats, floats},
		{"vectors of tokens", wantsBase64, tokens, tokens},
	} {
		got, reply, err := embedded(t, c.request, c.answer)
		if err != nil || strings.TrimSuffix(got, "\n") != c.want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", c.name, err, got, c.want)
			continue
		}
		if reply.Length != int64(len(got)) || reply.Usage().Input != 5 {
			t.Errorf("%s: length %d, usage %+v", c.name, reply.Length, reply.Usage())
		}
	}
}

// An answer too large to be held is encoded as it passes.
func TestLargeAnswersOfVectors(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"object":"list","data":[`)
	for i := range 200 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"object":"embedding","index":%d,"embedding":[0.25`, i)
		for j := range 999 {
			fmt.Fprintf(&b, ",%v", float32(i*j)/7)
		}
		b.WriteString("]}")
	}
	b.WriteString(`],"usage":{"prompt_tokens":77,"total_tokens":77}}`)
	got, reply, err := embedded(t, wantsBase64, b.String())
	if err != nil || reply.Usage().Input != 77 || reply.Length >= 0 {
		t.Fatalf("%v, usage %+v", err, reply.Usage())
	}
	var answer struct{ Data []struct{ Embedding string } }
	if err := json.Unmarshal([]byte(got), &answer); err != nil || len(answer.Data) != 200 {
		t.Fatalf("%v, %d vectors", err, len(answer.Data))
	}
	raw, err := base64.StdEncoding.DecodeString(answer.Data[199].Embedding)
	if err != nil || len(raw) != 4000 || math.Float32frombits(binary.LittleEndian.Uint32(raw[3996:])) != float32(199*998)/7 {
		t.Errorf("%v, %d bytes", err, len(raw))
	}
}

// covers UP-01
func TestVectorsCutShort(t *testing.T) {
	for answer, code := range map[string]string{
		`{"data":[{"embedding":[1,2`: "truncated", `{"data":[{"embedding":[1,2],"index":0}`: "truncated",
		`{"data":[{"embedding":[1,"x"]}]}`: "", `{"data":[{"embedding":[1],x`: "not_json", `{"data":[{"embedding":` + strings.Repeat("[", 20_000): "not_json",
	} {
		_, _, err := embedded(t, wantsBase64, answer)
		var up *provider.Error
		if !errors.As(err, &up) || up.Kind != provider.KindHealth || code != "" && up.Code != code {
			t.Errorf("%.40s: %v, want %s", answer, err, code)
		}
	}
}

// endlessText is a JSON string that never ends.
type endlessText struct{ sent int }

func (e *endlessText) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if e.sent == 0 {
		copy(p, `{"data":[{"embedding":[1]}],"x":"`)
	}
	e.sent += len(p)
	return len(p), nil
}

func (e *endlessText) Close() error { return nil }

// covers RES-04: a value that never ends is not held for ever.
func TestEndlessValueIsBounded(t *testing.T) {
	src := &endlessText{}
	_, err := io.Copy(io.Discard, newVectorEncoder(src))
	if err == nil || src.sent > 4*maxToken {
		t.Errorf("%v after %d bytes", err, src.sent)
	}
}
