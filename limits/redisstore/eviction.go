package redisstore

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// inspect asks the server whether it may evict keys, once at the start and whenever
// it has been away, and warns where the answer is new. It belongs to the beats. A
// server that does not tell is let be: not every account may ask.
func (s *Store) inspect() {
	if !s.uninspected.CompareAndSwap(true, false) {
		return
	}
	ctx, cancel := context.WithTimeout(s.life, s.opt.Timeout)
	defer cancel()
	policy, err := s.evictionPolicy(ctx)
	if err != nil {
		s.opt.Log.Debug("the shared store does not tell its maxmemory-policy, which has to be noeviction", "error", err)
		var answer redis.Error
		if !errors.As(err, &answer) {
			s.uninspected.Store(true) // no answer came; the next beat asks again
		}
		if policy == "" {
			return
		}
	}
	if policy != "" && policy != s.evicts {
		s.opt.Log.Warn("the shared store may evict keys, and an evicted key is a limit that begins anew: set its maxmemory-policy to noeviction, or give the limits a server of their own", "maxmemory_policy", policy)
	}
	s.evicts = policy
}

// evictionPolicy is the maxmemory-policy by which a server evicts keys, of a Cluster
// that of any master that does; empty where none does or says so.
func (s *Store) evictionPolicy(ctx context.Context) (policy string, err error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return evictionPolicy(ctx, s.client)
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		p, err := evictionPolicy(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		policy = max(policy, p)
		return err
	})
	return policy, err
}

func evictionPolicy(ctx context.Context, server redis.Cmdable) (string, error) {
	info, err := server.Info(ctx, "memory").Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		policy, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:")
		if ok && policy != "noeviction" {
			return policy, nil
		}
	}
	return "", nil
}
