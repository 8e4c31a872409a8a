package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"penstock/config"
	"penstock/limits"
	"penstock/limits/redisstore"
	"penstock/telemetry"
)

// openStore returns where the levels of limits are kept: in Redis when it is
// configured, in memory otherwise. It does not wait for Redis.
func (p *parts) openStore(cfg *config.Config) (limits.Store, error) {
	r := cfg.Redis
	if r == nil {
		return limits.NewMemory(), nil
	}
	at, _ := r.Server() // Load has checked it
	secure, err := redisTLS(r.TLS, at.TLS)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(r.Timeout)
	client := redisstore.Connect(redisstore.Server{
		Addresses: at.Addresses, MasterName: r.MasterName, Cluster: r.Cluster, Username: at.Username, Password: at.Password,
		SentinelPassword: string(r.SentinelPassword), Database: at.Database, TLS: secure,
	}, timeout)
	p.shared = redisstore.New(client, redisstore.Options{
		Prefix: r.Prefix + ":", Timeout: timeout, Replicas: r.Replicas, OnLoss: limits.ParseOnLoss(r.OnStoreLoss),
		Log: p.log, Called: p.metrics.StoreCalled,
	})
	return p.shared, nil
}

func redisTLS(c config.RedisTLS, on bool) (*tls.Config, error) {
	if !on && c == (config.RedisTLS{}) {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("redis.tls.ca: no certificate in PEM found in the file")
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("redis.tls: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// storeGauges tell how the shared store fares.
func (p *parts) storeGauges() telemetry.Reader {
	return func() []telemetry.Gauge {
		if p.shared == nil {
			return nil
		}
		s := p.shared.State()
		up, alone := 1.0, 0.0
		if s.Away > 0 {
			up, alone = 0, 1
		}
		return []telemetry.Gauge{
			{Name: "store_up", Help: "1 while the shared store answers.", Value: up},
			{Name: "store_fallback_active", Help: "1 while limits follow on_store_loss because the shared store, or a part of its cluster, is away.", Value: alone},
			{Name: "store_replicas", Help: "Gateways that share the store, as last known.", Value: float64(s.Replicas)},
		}
	}
}

// storeDetail is what readiness tells of the shared store; it never makes the
// gateway unready.
func (p *parts) storeDetail() string {
	switch {
	case p.shared == nil:
		return ""
	case p.shared.State().Away > 0:
		return "shared store: away, limits follow on_store_loss"
	}
	return "shared store: up"
}
