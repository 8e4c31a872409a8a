package auth

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// covers SEC-02, SEC-08
func TestIdentify(t *testing.T) {
	good, old, off := NewKey(), NewKey(), NewKey()
	keys := NewKeys([]Key{
		{Hash: HashOf(good), Caller: Caller{"search", "prod"}, Expires: time.Now().Add(time.Hour)},
		{Hash: HashOf(old), Caller: Caller{"search", "old"}, Expires: time.Now().Add(-time.Second)},
		{Hash: HashOf(off), Caller: Caller{"search", "off"}, Disabled: true},
	}, Caller{})
	for _, c := range []struct {
		name, header, value string
		err                 error
	}{
		{"bearer", "Authorization", "Bearer " + good, nil},
		{"bearer in lower case", "Authorization", "bearer " + good, nil},
		{"anthropic", "x-api-key", good, nil},
		{"azure", "api-key", good, nil},
		{"google", "x-goog-api-key", good, nil},
		{"none", "Accept", "*/*", ErrMissing},
		{"basic", "Authorization", "Basic " + good, ErrMissing},
		{"expired", "Authorization", "Bearer " + old, ErrUnknown},
		{"disabled", "Authorization", "Bearer " + off, ErrUnknown},
		{"prefix of a good one", "Authorization", "Bearer " + good[:len(good)-1], ErrUnknown},
		{"longer than a good one", "Authorization", "Bearer " + good + "x", ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			h.Set(c.header, c.value)
			caller, err := keys.Identify(h)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err == nil && caller != (Caller{"search", "prod"}) {
				t.Errorf("caller %v", caller)
			}
		})
	}
}

// covers DB-05: a set without keys lets nobody in, unless it is told to.
func TestNoKeysLetEverybodyInWhereAllowed(t *testing.T) {
	for want, h := range map[error]http.Header{ErrMissing: {}, ErrUnknown: {"X-Api-Key": {NewKey()}}} {
		if _, err := NewKeys(nil, Caller{}).Identify(h); !errors.Is(err, want) {
			t.Errorf("%v: got %v, want %v", h, err, want)
		}
	}
	caller, err := NewKeys(nil, Caller{Team: "default"}).Identify(http.Header{})
	if err != nil || caller.Team != "default" {
		t.Errorf("got %v, %v", caller, err)
	}
}

// covers SEC-02
func TestKeysAndHashes(t *testing.T) {
	a, b := NewKey(), NewKey()
	if a == b || !strings.HasPrefix(a, Prefix) || len(a) != len(Prefix)+43 {
		t.Errorf("keys %d and %d characters", len(a), len(b))
	}
	if text := HashOf("abc").String(); text != "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" { // FIPS 180-2
		t.Errorf("the hash of abc is %s", text)
	}
}
