package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

var prefixes atomic.Int64

func prefix() string { return fmt.Sprintf("t%d:", prefixes.Add(1)) }

// open returns a running store of a replica.
func open(t testing.TB, server redisstore.Server, opt redisstore.Options) *redisstore.Store {
	t.Helper()
	if opt.Timeout == 0 {
		opt.Timeout = 2 * time.Second // the machine may be busy; what is bounded is tested apart
	}
	s := redisstore.New(redisstore.Connect(server, opt.Timeout), opt)
	s.Run(func() {})
	t.Cleanup(func() { s.Close() })
	return s
}

// sleep lets real time pass, for a real server stands in no bubble.
func sleep(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

func TestSingleConforms(t *testing.T) {
	t.Parallel()
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	limitstest.Run(t, func(t testing.TB) limits.Store {
		return open(t, server, redisstore.Options{Prefix: prefix()})
	}, sleep)
}

func TestClusterConforms(t *testing.T) {
	t.Parallel()
	server := redisstore.Server{Cluster: true}
	for _, s := range redistest.Cluster(t) {
		server.Addresses = append(server.Addresses, s.Addr)
	}
	limitstest.Run(t, func(t testing.TB) limits.Store {
		return open(t, server, redisstore.Options{Prefix: prefix()})
	}, sleep)
}
