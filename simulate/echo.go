package simulate

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
)

// maxEcho is how much of a body the echo endpoint sends back, in bytes.
const maxEcho = 1 << 20

// echo answers /simulator/echo and all below it, with any method, by saying
// what arrived. Headers are shown as they came, credentials included: that is
// what it is for.
func (c *call) echo() {
	hash := sha256.New()
	body := io.TeeReader(c.r.Body, hash)
	head, err := io.ReadAll(io.LimitReader(body, maxEcho))
	rest := int64(0)
	if err == nil {
		rest, err = io.Copy(io.Discard, body)
	}
	if err != nil {
		c.ending = gone
		return
	}
	c.json(http.StatusOK, mustJSON(map[string]any{
		"method": c.r.Method, "path": c.r.URL.EscapedPath(), "query": c.r.URL.RawQuery, "host": c.r.Host,
		"proto": c.r.Proto, "headers": c.r.Header,
		"body_base64": head, "body_bytes": int64(len(head)) + rest, "body_sha256": hex.EncodeToString(hash.Sum(nil)),
	}))
}

// unknownPath answers what the simulator does not have.
func (c *call) unknownPath() {
	c.drain()
	e := notFound("Unknown request URL: %s %s. The simulated provider has no such endpoint.", clip(c.r.Method), clip(c.r.URL.Path))
	e.code = "unknown_url"
	c.fail(e)
}
