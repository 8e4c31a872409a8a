package config

import (
	"net/url"
	"strconv"
	"strings"
)

// Redis configures the store through which several gateways share their limits.
type Redis struct {
	URL              Secret   `yaml:"url,omitempty" jsonschema_description:"Where a single server is: redis://host:6379, or rediss:// for TLS, with user:password@ and /database if need be." jsonschema:"example=redis://redis.internal:6379"`
	Addresses        []string `yaml:"addresses,omitempty" jsonschema_description:"In place of url: the addresses of some nodes of a Cluster, or with master_name those of the sentinels." jsonschema:"example=redis-1.internal:6379"`
	MasterName       string   `yaml:"master_name,omitempty" jsonschema_description:"The name by which the sentinels know the master." jsonschema:"example=mymaster"`
	Cluster          bool     `yaml:"cluster,omitempty" jsonschema_description:"The one address given is that of a Cluster; several without master_name always are." jsonschema:"default=false"`
	Username         string   `yaml:"username,omitempty" jsonschema_description:"User, where the server has several." jsonschema:"example=penstock"`
	Password         Secret   `yaml:"password,omitempty" jsonschema_description:"Password of the server." jsonschema:"example=${REDIS_PASSWORD}"`
	SentinelPassword Secret   `yaml:"sentinel_password,omitempty" jsonschema_description:"Password of the sentinels, where they have one." jsonschema:"example=${SENTINEL_PASSWORD}"`
	TLS              RedisTLS `yaml:"tls,omitempty" jsonschema_description:"Encryption. It is on for a rediss:// URL."`
	Prefix           string   `yaml:"prefix,omitempty" jsonschema_description:"Beginning of every key and channel, before a colon. Gateways with the same prefix share their limits, which must be the same in their files." jsonschema:"default=penstock"`
	Timeout          Duration `yaml:"timeout,omitempty" jsonschema_description:"Longest time that a request waits for Redis. Beyond it Redis counts as away, and on_store_loss holds until it answers again." jsonschema:"default=50ms"`
	OnStoreLoss      string   `yaml:"on_store_loss,omitempty" jsonschema_description:"What holds for a limit while Redis is away: each gateway enforces its part, which is the limit divided by the gateways last known (divide), nothing (open), or requests under the limit are refused with 503 (closed)." jsonschema:"enum=divide,enum=open,enum=closed,default=divide"`
	Replicas         int64    `yaml:"replicas,omitempty" jsonschema_description:"How many gateways to divide by before Redis has told how many there are." jsonschema:"minimum=1,maximum=1000,default=1,example=3"`
}

// RedisTLS configures encryption towards Redis.
type RedisTLS struct {
	Enabled    bool   `yaml:"enabled,omitempty" jsonschema_description:"Use TLS with addresses." jsonschema:"default=false"`
	CA         string `yaml:"ca,omitempty" jsonschema_description:"File with the certificates to trust, in PEM; those of the system when absent." jsonschema:"example=/etc/penstock/redis-ca.pem"`
	Cert       string `yaml:"cert,omitempty" jsonschema_description:"File with our own certificate, where the server asks for one." jsonschema:"example=/etc/penstock/redis.pem"`
	Key        string `yaml:"key,omitempty" jsonschema_description:"File with the key of our own certificate." jsonschema:"example=/etc/penstock/redis-key.pem"`
	ServerName string `yaml:"server_name,omitempty" jsonschema_description:"Name that the server's certificate must have, where it differs from its address." jsonschema:"example=redis.internal"`
}

// A RedisServer is what a URL or the keys beside it say.
type RedisServer struct {
	Addresses          []string
	Username, Password string
	Database           int
	TLS                bool
}

// Server returns where the server is; false when the URL cannot be read.
func (r *Redis) Server() (RedisServer, bool) {
	out := RedisServer{Addresses: r.Addresses, Username: r.Username, Password: string(r.Password), TLS: r.TLS.Enabled}
	if r.URL == "" {
		return out, true
	}
	u, err := url.Parse(string(r.URL))
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || u.RawQuery != "" {
		return out, false
	}
	address := u.Host
	if u.Port() == "" {
		address += ":6379"
	}
	if _, ok := parseAddress(address); !ok {
		return out, false
	}
	out.Addresses, out.TLS = []string{address}, out.TLS || u.Scheme == "rediss"
	if user := u.User.Username(); user != "" {
		out.Username = user
	}
	if password, ok := u.User.Password(); ok {
		out.Password = password
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if out.Database, err = strconv.Atoi(db); err != nil || out.Database < 0 {
			return out, false
		}
	}
	return out, true
}

// redis checks the section of that name.
func (v *validator) redis() {
	r, p := v.c.Redis, path{"redis"}
	if r == nil {
		return
	}
	switch {
	case r.URL == "" && len(r.Addresses) == 0:
		v.say(p, "expected a url, or addresses")
	case r.URL != "" && len(r.Addresses) > 0:
		v.say(p.key("addresses"), "expected either url or addresses, not both")
	case r.URL != "" && r.MasterName != "":
		v.say(p.key("master_name"), "sentinels are given by addresses, not by url")
	}
	if _, ok := r.Server(); !ok {
		// Not shown: it may hold a password.
		v.say(p.key("url"), "expected redis://user:password@host:6379/0, or rediss:// for TLS")
	}
	for i, a := range r.Addresses {
		if address, ok := parseAddress(a); !ok || address.host == "" || address.port == 0 {
			v.bad(p.key("addresses").index(i), "expected host:port, such as redis-1.internal:6379")
		}
	}
	if r.Cluster && r.MasterName != "" {
		v.say(p.key("cluster"), "a Cluster needs no sentinels; leave cluster or master_name out")
	}
	if strings.ContainsAny(r.Prefix, "{}: \t\r\n") || len(r.Prefix) > 64 {
		v.bad(p.key("prefix"), "expected at most 64 characters without spaces, colons and braces")
	}
	if r.Timeout < Duration(1e6) || r.Timeout > Duration(2e9) {
		v.bad(p.key("timeout"), "expected a time from 1ms to 2s")
	}
	if (r.TLS.Cert == "") != (r.TLS.Key == "") {
		v.say(p.key("tls"), "cert and key belong together")
	}
}
