package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// MasterName is what the sentinel calls the master.
const MasterName = "limits"

// Sentinel starts a master, a replica of it, and a sentinel that watches them. It
// returns the sentinel's address.
func Sentinel(t testing.TB) (master, replica *Server, sentinel string) {
	t.Helper()
	master = Start(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica = Start(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %s %s %s 1\nsentinel down-after-milliseconds %[1]s 300\nsentinel failover-timeout %[1]s 2000\n", MasterName, host, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), t: t}
	_, own, _ := net.SplitHostPort(s.Addr)
	s.run(file, "--sentinel", "--port", own, "--bind", "127.0.0.1", "--dir", t.TempDir())
	t.Cleanup(s.Kill)
	until(t, "the sentinel knows the replica", func(ctx context.Context) bool {
		list, err := s.Client().Do(ctx, "SENTINEL", "REPLICAS", MasterName).Slice()
		return err == nil && len(list) == 1
	})
	until(t, "the replica has what the master has", func(ctx context.Context) bool {
		info, err := replica.Client().Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	return master, replica, s.Addr
}

// until waits for something to become true.
func until(t testing.TB, what string, is func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !is(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("after 30 s it is not so that %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
