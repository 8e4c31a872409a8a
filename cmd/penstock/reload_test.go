package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A secret file is watched from the reload on that names it: a key that is renewed in
// it is the one that is sent next.
func TestNewSecretFileIsWatched(t *testing.T) {
	g := startGateway(t, "")
	file, secret := filepath.Join(t.TempDir(), "penstock.yaml"), filepath.Join(t.TempDir(), "key")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	base := "listen: " + g.cfg.Listen + "\nadmin: {listen: " + g.cfg.Admin.Listen + "}\nlog: {access: false}\nupstreams: {up: {base_url: " + g.cfg.Upstreams["up"].BaseURL
	put(file, base+"}}\n")
	put(secret, "sk-first")
	g.reloads(file, g.environment(), nil)
	// sent waits until the upstream gets a key. It asks for a change until then.
	sent := func(key string, change func(n int)) {
		t.Helper()
		begin := time.Now()
		for n := 0; ; n++ {
			change(n)
			for range 50 {
				g.get("/v1/files", "")
				if (<-g.seen).Get("Authorization") == "Bearer "+key {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("the upstream does not get %s; the log:\n%s", key, g.log)
			}
		}
	}
	// A change may come before the watch has looked for the first time.
	sent("sk-first", func(n int) { put(file, fmt.Sprintf("%s, api_key: \"file:%s\"}} # %d\n", base, secret, n)) })
	sent("sk-second", func(n int) { put(secret, "sk-second"+strings.Repeat("\n", n)) })
}
