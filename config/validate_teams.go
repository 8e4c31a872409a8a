package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// minKeyLength is the least number of bytes of a key that stands in the file. Keys
// made by Penstock have 256 random bits.
const minKeyLength = 16

var hashPattern = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)

// Digest returns the SHA-256 of the key, from hash or from key itself; false when
// neither is usable, which Load refuses.
func (k Key) Digest() ([sha256.Size]byte, bool) {
	var sum [sha256.Size]byte
	if k.Key != "" {
		return sha256.Sum256([]byte(k.Key)), true
	}
	if !hashPattern.MatchString(k.Hash) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(strings.TrimPrefix(k.Hash, "sha256:")))
	return sum, err == nil
}

// ExpiresAt returns the moment from which the key is refused, and false when it
// never is. A date without a time counts to its end in UTC.
func (k Key) ExpiresAt() (time.Time, bool) {
	at, err := parseExpiry(k.Expires)
	return at, k.Expires != "" && err == nil
}

func parseExpiry(text string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at.AddDate(0, 0, 1), nil
	}
	return time.Parse(time.RFC3339, text)
}

func (v *validator) teams() {
	owners := map[[sha256.Size]byte]string{} // by digest, the path of the first key that has it
	for _, name := range sortedKeys(v.c.Teams) {
		t, p := v.c.Teams[name], path{"teams", name}
		if text := checkName(name); text != "" {
			v.name(p, text)
		}
		v.limits(p.key("limits"), t.Limits, false)
		for i, pattern := range t.Models {
			v.teamModel(p.key("models").index(i), pattern)
		}
		names := map[string]bool{}
		for i, k := range t.Keys {
			at := p.key("keys").index(i)
			v.key(at, k)
			if names[k.Name] && k.Name != "" {
				v.bad(at.key("name"), "another key of this team has this name")
			}
			names[k.Name] = true
			digest, ok := k.Digest()
			switch first := owners[digest]; {
			case !ok:
			case first != "":
				v.say(at.key(k.secretKey()), "this is the same key as "+first)
			default:
				owners[digest] = pathText(at)
			}
		}
	}
}

// secretKey is the key of the file under which k's secret stands.
func (k Key) secretKey() string {
	if k.Key != "" {
		return "key"
	}
	return "hash"
}

func (v *validator) key(p path, k Key) {
	if text := checkName(k.Name); text != "" {
		v.bad(p.key("name"), text)
	}
	switch {
	case k.Hash != "" && k.Key != "":
		v.say(p, "expected either hash or key, not both")
	case k.Hash == "" && k.Key == "":
		v.say(p, "expected a hash, or a key from the environment or a file; make one with: penstock keys new")
	case k.Key != "" && len(k.Key) < minKeyLength:
		v.say(p.key("key"), fmt.Sprintf("a key needs at least %d characters; make one with: penstock keys new", minKeyLength))
	case k.Hash != "" && !hashPattern.MatchString(k.Hash):
		// Not shown: it may be the key itself.
		v.say(p.key("hash"), "expected sha256: and 64 hexadecimal digits, as printed by: penstock keys hash")
	}
	if _, err := parseExpiry(k.Expires); k.Expires != "" && err != nil {
		v.bad(p.key("expires"), "expected a date such as 2027-01-01, or a time such as 2027-01-01T12:00:00Z")
	}
	v.limits(p.key("limits"), k.Limits, false)
}

// teamModel checks one entry of a team's models. Without routes, every name is
// served; an upstream's own models are also reached as upstream/model.
func (v *validator) teamModel(p path, name string) {
	stem, isPattern := strings.CutSuffix(name, "*")
	if name == "" || strings.Contains(stem, "*") || stem != "" && checkModelName(stem) != "" {
		v.bad(p, "expected the name of a model, which may end in *")
		return
	}
	_, listed := v.c.Models[name]
	_, others := v.c.Models["*"]
	upstream, _, _ := strings.Cut(name, "/")
	_, direct := v.c.Upstreams[upstream]
	if isPattern || listed || others || direct || len(v.c.Models) == 0 || !v.whole("models", "upstreams") {
		return
	}
	v.unknown(p, "a name under models, or one that ends in *", name, sortedKeys(v.c.Models))
}
