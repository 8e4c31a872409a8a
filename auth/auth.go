// Package auth tells who a request comes from by the key it carries.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Prefix begins every key that NewKey makes, so that a leaked one is recognised.
const Prefix = "psk_"

// HashPrefix begins the text form of a hash.
const HashPrefix = "sha256:"

// A Hash is the SHA-256 of a whole key. Keys carry 256 random bits, so a plain
// hash cannot be searched.
type Hash [sha256.Size]byte

// HashOf returns the hash of a key.
func HashOf(key string) Hash { return sha256.Sum256([]byte(key)) }

// String returns the hash as it stands in the configuration.
func (h Hash) String() string { return HashPrefix + hex.EncodeToString(h[:]) }

// NewKey returns a random key of 256 bits.
func NewKey() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return Prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// A Caller is who a request comes from.
type Caller struct {
	Team string
	Key  string // name of the key; empty without keys
}

// A Key is one entry of a key set.
type Key struct {
	Hash     Hash
	Caller   Caller
	Expires  time.Time // zero for never
	Disabled bool
}

// ErrUnknown refuses a request without a key, or with one that is unknown,
// disabled or expired. Callers are not told which.
var ErrUnknown = errors.New("unknown API key")

// ErrMissing refuses a request that carries no key.
var ErrMissing = errors.New("missing API key")

// Keys is an immutable set of keys, safe for concurrent use.
type Keys struct {
	byHash    map[Hash]Key
	anonymous Caller
}

// NewKeys returns a set. anonymous is the caller of every request where no key is
// asked for, and the zero Caller where one is needed, be there any or not.
func NewKeys(keys []Key, anonymous Caller) *Keys {
	k := &Keys{byHash: make(map[Hash]Key, len(keys)), anonymous: anonymous}
	for _, key := range keys {
		k.byHash[key.Hash] = key
	}
	return k
}

// Open reports whether no key is asked for.
func (k *Keys) Open() bool { return k.anonymous != (Caller{}) }

// Identify tells the caller by the request's credential. It reports ErrMissing or
// ErrUnknown.
func (k *Keys) Identify(h http.Header) (Caller, error) {
	if k.Open() {
		return k.anonymous, nil
	}
	credential := Credential(h)
	if credential == "" {
		return Caller{}, ErrMissing
	}
	sum := HashOf(credential)
	key, ok := k.byHash[sum]
	if !ok || subtle.ConstantTimeCompare(key.Hash[:], sum[:]) != 1 {
		return Caller{}, ErrUnknown
	}
	if key.Disabled || !key.Expires.IsZero() && time.Now().After(key.Expires) {
		return Caller{}, ErrUnknown
	}
	return key.Caller, nil
}

// Headers are the ones that may carry a client's key, in the order in which they
// are looked at: OpenAI and new Anthropic clients, Anthropic, Azure, Google.
var Headers = []string{"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"}

// protocolKey begins the subprotocol in which browsers send the key for a WebSocket,
// since they cannot set a header.
const protocolKey = "openai-insecure-api-key."

// Credential returns the key that a request carries, or "".
func Credential(h http.Header) string {
	for _, name := range Headers {
		value := h.Get(name)
		if value == "" {
			continue
		}
		if name != "Authorization" {
			return value
		}
		if scheme, key, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(key)
		}
	}
	for _, line := range h["Sec-Websocket-Protocol"] {
		for protocol := range strings.SplitSeq(line, ",") {
			if key, ok := strings.CutPrefix(strings.TrimSpace(protocol), protocolKey); ok {
				return key
			}
		}
	}
	return ""
}
