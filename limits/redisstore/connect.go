package redisstore

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A Server says where Redis is.
type Server struct {
	Addresses  []string // host:port; of the nodes of a Cluster, or of the sentinels
	MasterName string   // the name that sentinels know the master by; empty without Sentinel
	Cluster    bool     // a Cluster, though one address is given
	Username   string
	Password   string
	Database   int         // of a single server or behind Sentinel
	TLS        *tls.Config // nil for none
	// Sentinels may ask for a password of their own.
	SentinelPassword string
}

const (
	// poolSize bounds the connections to a node. An owner has one call under way.
	poolSize = 64
	idle     = 4
)

// Connect returns a client whose calls end within the timeout. It does not dial.
func Connect(s Server, timeout time.Duration) redis.UniversalClient {
	redis.SetLogger(silent{}) // what goes wrong is told by the store, once
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: s.Addresses, MasterName: s.MasterName, IsClusterMode: s.Cluster,
		Username: s.Username, Password: s.Password, SentinelPassword: s.SentinelPassword, DB: s.Database, TLSConfig: s.TLS,
		ContextTimeoutEnabled: true, MaxRetries: -1,
		// A call is bounded by its context; a connection may take longer to make, and
		// serves the next one.
		DialTimeout: max(timeout, time.Second), DialerRetries: 1, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		PoolSize: poolSize, MinIdleConns: idle, ConnMaxIdleTime: 5 * time.Minute,
		// Neither Valkey nor Redis before 8 knows these notifications.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DisableIdentity:          true,
	})
}

type silent struct{}

// Printf drops what the client library logs by itself.
func (silent) Printf(context.Context, string, ...any) {}
