//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Names of the systems that are measured.
const (
	sysPenstock = "penstock"
	sysLogging  = "penstock, access log"
	sysLedger   = "penstock, ledger"
	sysOld      = "old penstock"
	sysProxy    = "reverse proxy"
	sysNginx    = "nginx"
	sysDirect   = "direct"
)

// A system is something that stands before the upstream. start returns nil for
// the upstream itself.
type system struct {
	name  string
	start func(ctx context.Context, dir, upstream string) (*process, error)
}

// systems in the order in which each round visits them. nginx is the program, or
// empty to leave it out.
func systems(binary, old, nginx string) []system {
	all := []system{
		{sysDirect, nil},
		{sysPenstock, penstock(binary, variant{}, "off")},
		{sysProxy, func(ctx context.Context, dir, upstream string) (*process, error) {
			return startChild(ctx, dir, roleReverseProxy, upstream)
		}},
		{sysLogging, penstock(binary, variant{log: true}, "off")},
		{sysLedger, penstock(binary, variant{ledger: true}, "off")},
	}
	if nginx != "" {
		all = append(all, system{sysNginx, runNginx(nginx)})
	}
	if old != "" {
		all = append(all, system{sysOld, penstock(old, variant{}, "off")})
	}
	return all
}

// key is what clients of the gateway send.
const key = "bench-client-key-0123456789"

// penstockConfig has everything on, with limits that never bind.
const penstockConfig = `
listen: %[1]s
admin: {listen: "%[2]s", pprof: true}
log: {access: %[3]t}
upstreams:
  bench:
    base_url: http://%[4]s/v1
    api_key: bench-upstream-key
    limits: {concurrency: 100000, requests: 1000M/min, tokens: 1000M/s}
models:
  bench-model: {targets: [bench]}
teams:
  bench:
    limits: {concurrency: 100000, requests: 1000M/min, tokens: 1000M/s}
    keys: [{name: bench, hash: "sha256:%[5]s"}]
`

// A variant of penstock does what is measured apart from the rest.
type variant struct {
	log    bool // an access log
	ledger bool // a usage ledger in SQLite
}

// penstock starts a gateway whose admin listener is at admin, or off.
func penstock(binary string, v variant, admin string) func(context.Context, string, string) (*process, error) {
	return func(ctx context.Context, dir, upstream string) (*process, error) {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(key))
		text := fmt.Sprintf(penstockConfig, addr, admin, v.log, upstream, hex.EncodeToString(sum[:]))
		if v.ledger {
			text += fmt.Sprintf("database: {url: %q}\n", filepath.Join(dir, "penstock-"+addr+".db"))
		}
		path := filepath.Join(dir, "penstock-"+addr+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration: %w", err)
		}
		return start(ctx, dir, "penstock", addr, nil, binary, "serve", "--config", path)
	}
}
