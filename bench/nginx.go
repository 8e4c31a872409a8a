//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"penstock/freeport"
)

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

func runNginx(program string) func(context.Context, string, string) (*process, error) {
	return func(ctx context.Context, dir, upstream string) (*process, error) {
		addr, err := freeport.Address()
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
}
