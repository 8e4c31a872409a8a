//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Names of the systems that are measured.
const (
	sysPenstock = "penstock"
	sysLogging  = "penstock, access log"
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

// systems in the order in which each round visits them.
func systems(binary, old string) []system {
	all := []system{
		{sysDirect, nil},
		{sysPenstock, penstock(binary, false, "off")},
		{sysProxy, func(ctx context.Context, dir, upstream string) (*process, error) {
			return startChild(ctx, dir, roleReverseProxy, upstream)
		}},
		{sysNginx, nginx},
		{sysLogging, penstock(binary, true, "off")},
	}
	if old != "" {
		all = append(all, system{sysOld, penstock(old, false, "off")})
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

// penstock starts a gateway whose admin listener is at admin, or off.
func penstock(binary string, log bool, admin string) func(context.Context, string, string) (*process, error) {
	return func(ctx context.Context, dir, upstream string) (*process, error) {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(key))
		text := fmt.Sprintf(penstockConfig, addr, admin, log, upstream, hex.EncodeToString(sum[:]))
		path := filepath.Join(dir, "penstock-"+addr+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration: %w", err)
		}
		return start(ctx, dir, "penstock", addr, nil, binary, "serve", "--config", path)
	}
}

const nginxConfig = `
daemon off;
master_process off;
worker_rlimit_nofile 65536;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log crit;
events { worker_connections 16384; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	client_body_buffer_size 128k;
	keepalive_requests 100000000;
	upstream bench { server %[3]s; keepalive 4096; keepalive_requests 100000000; }
	server {
		listen %[2]s backlog=4096;
		location / {
			proxy_pass http://bench;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
		}
	}
}
`

func nginx(ctx context.Context, dir, upstream string) (*process, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/nginx") // not in every user's PATH
	}
	if err != nil {
		return nil, fmt.Errorf("nginx is needed for the comparison: %w; install it, for example with apt-get install nginx", err)
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp(dir, "nginx-")
	if err != nil {
		return nil, fmt.Errorf("make nginx's directory: %w", err)
	}
	path := filepath.Join(own, "nginx.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, nginxConfig, own, addr, upstream), 0o600); err != nil {
		return nil, fmt.Errorf("write nginx's configuration: %w", err)
	}
	return start(ctx, dir, "nginx", addr, nil, program, "-p", own, "-c", path, "-e", filepath.Join(own, "nginx.log"))
}
