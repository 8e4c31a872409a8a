//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"penstock/freeport"
)

// Names of the systems that are measured.
const (
	sysPenstock = "penstock"
	sysLogging  = "penstock, access log"
	sysLedger   = "penstock, ledger"
	sysLarge    = "penstock, large limits in Redis"
	sysSmall    = "penstock, a small limit in Redis"
	sysCall     = "a call of Redis"
	sysPing     = "a PING of Redis"
	sysOld      = "old penstock"
	sysProxy    = "reverse proxy"
	sysNginx    = "nginx"
	sysDirect   = "direct"
)

// A system is something that stands before the upstream. start returns nil for
// the upstream itself.
type system struct {
	name  string
	only  string // the load that it is put under; empty for all
	start func(ctx context.Context, dir, upstream string) (*process, error)
}

// others are what penstock is measured beside, each left out where it is empty:
// another binary of penstock, the program nginx, the address of a Redis.
type others struct{ old, nginx, redis string }

// systems in the order in which each round visits them.
func systems(binary string, o others) []system {
	all := []system{
		{sysDirect, "", nil},
		{sysPenstock, "", penstock(binary, variant{})},
		{sysProxy, "", func(ctx context.Context, dir, upstream string) (*process, error) {
			return startChild(ctx, dir, roleReverseProxy, upstream)
		}},
		{sysLogging, "small", penstock(binary, variant{log: true})},
		{sysLedger, "small", penstock(binary, variant{ledger: true})},
	}
	if o.redis != "" {
		all = append(all,
			system{sysLarge, "rate", penstock(binary, variant{redis: o.redis, admin: true})},
			system{sysSmall, "rate", penstock(binary, variant{redis: o.redis, admin: true, small: true})})
	}
	if o.nginx != "" {
		all = append(all, system{sysNginx, "", runNginx(o.nginx)})
	}
	if o.old != "" {
		all = append(all, system{sysOld, "", penstock(o.old, variant{})})
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
    limits: %[6]s
models:
  bench-model: {targets: [bench]}
teams:
  bench:
    limits: %[7]s
    keys: [{name: bench, hash: "sha256:%[5]s"}]
`

const (
	largeLimits = "{concurrency: 100000, requests: 1000M/min, tokens: 1000M/s}"
	// smallLimit is too small for a replica to take more of it than it needs at once.
	smallLimit = "{requests: {limit: 1000, per: 1s, burst: 100}}"
)

// A variant of penstock does what is measured apart from the rest.
type variant struct {
	log    bool   // an access log
	ledger bool   // a usage ledger in SQLite
	admin  bool   // an admin listener
	redis  string // the address of the Redis that keeps the limits
	small  bool   // one small limit in place of large ones
}

// penstock starts a gateway.
func penstock(binary string, v variant) func(context.Context, string, string) (*process, error) {
	return func(ctx context.Context, dir, upstream string) (*process, error) {
		addr, err := freeport.Address()
		if err != nil {
			return nil, err
		}
		admin := "off"
		if v.admin {
			if admin, err = freeport.Address(); err != nil {
				return nil, err
			}
		}
		up, team := largeLimits, largeLimits
		if v.small {
			up, team = "{}", smallLimit
		}
		sum := sha256.Sum256([]byte(key))
		text := fmt.Sprintf(penstockConfig, addr, admin, v.log, upstream, hex.EncodeToString(sum[:]), up, team)
		if v.ledger {
			text += fmt.Sprintf("database: {url: %q}\n", filepath.Join(dir, "penstock-"+addr+".db"))
		}
		if v.redis != "" {
			text += fmt.Sprintf("redis: {url: %q, prefix: %q}\n", "redis://"+v.redis, strings.ReplaceAll(addr, ":", "-")+"/")
		}
		path := filepath.Join(dir, "penstock-"+addr+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration: %w", err)
		}
		p, err := start(ctx, dir, "penstock", addr, nil, binary, "serve", "--config", path)
		if err == nil {
			p.admin, p.shares = admin, v.redis != ""
		}
		return p, err
	}
}
