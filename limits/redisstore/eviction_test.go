package redisstore_test

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// ofPolicy counts the log's lines that speak of the policy: warnings, and that the
// server refuses to tell.
func (l *lines) ofPolicy(level string) (n int) {
	for _, line := range l.all() {
		if strings.Contains(line, "level="+level) && strings.Contains(line, "maxmemory-policy") && (level == "WARN" || strings.Contains(line, "NOPERM")) {
			n++
		}
	}
	return n
}

func logged(t testing.TB, at redisstore.Server, timeout time.Duration) (*redisstore.Store, *lines) {
	t.Helper()
	var log lines
	return open(t, at, redisstore.Options{Prefix: prefix(), Timeout: timeout, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}), &log
}

// A server that may evict keys is told of once, and once more when it comes back with
// another policy.
func TestEvictingServerIsWarnedOf(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	policy := func(name string) {
		t.Helper()
		if err := server.Client().ConfigSet(t.Context(), "maxmemory-policy", name).Err(); err != nil {
			t.Fatal(err)
		}
	}
	// away breaks the connections off, so that a call fails and the server counts as
	// away for a moment.
	away := func(s *redisstore.Store) {
		t.Helper()
		server.Pause()
		within(t, 20*time.Second, "the server counts as away", func() bool { return s.State().Away == 1 })
		server.Resume()
		within(t, 20*time.Second, "the server is used again", answers(s))
	}
	at := redisstore.Server{Addresses: []string{server.Addr}}
	policy("volatile-lru")
	s, log := logged(t, at, 500*time.Millisecond)
	within(t, 20*time.Second, "the policy is warned of", func() bool { return log.ofPolicy("WARN") == 1 })
	if line := strings.Join(log.all(), "\n"); !strings.Contains(line, "maxmemory_policy=volatile-lru") || !strings.Contains(line, "noeviction") {
		t.Error(line)
	}
	policy("allkeys-lru")
	away(s)
	within(t, 20*time.Second, "the new policy is warned of", func() bool { return log.ofPolicy("WARN") == 2 })
	away(s) // with the policy that is known
	policy("allkeys-lfu")
	away(s)
	within(t, 20*time.Second, "the third policy is warned of", func() bool { return log.ofPolicy("WARN") >= 3 })
	if n := log.ofPolicy("WARN"); n != 3 {
		t.Errorf("warned %d times of three policies", n)
	}
}

// A server that evicts nothing is asked, and not spoken of.
func TestServerWithoutEviction(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	_, log := logged(t, redisstore.Server{Addresses: []string{server.Addr}}, 0)
	own := 0
	within(t, 20*time.Second, "the server has been asked", func() bool {
		stats, err := server.Client().Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(stats, "cmdstat_info:calls=")
		count, _, _ := strings.Cut(after, ",")
		calls, _ := strconv.Atoi(count) // none before the first
		own++
		return calls > own-1
	})
	sleep(1500 * time.Millisecond) // a sign of life
	if log.ofPolicy("WARN") != 0 {
		t.Error(log.all())
	}
}

// A master of a Cluster that may evict keys is enough.
func TestEvictingMasterIsWarnedOf(t *testing.T) {
	t.Parallel()
	at := redisstore.Server{Cluster: true}
	for i, server := range redistest.Cluster(t) {
		at.Addresses = append(at.Addresses, server.Addr)
		if i == 1 {
			if err := server.Client().ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, log := logged(t, at, 0)
	within(t, 20*time.Second, "the policy is warned of", func() bool { return log.ofPolicy("WARN") == 1 })
}

// An account that may not ask is not bothered, and asks once.
func TestPolicyThatIsNotTold(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	err := server.Client().Do(t.Context(), "ACL", "SETUSER", "gate", "on", ">secret", "~*", "&*", "+@all", "-info", "-config").Err()
	if err != nil {
		t.Fatal(err)
	}
	_, log := logged(t, redisstore.Server{Addresses: []string{server.Addr}, Username: "gate", Password: "secret"}, 0)
	within(t, 20*time.Second, "it is said for debugging", func() bool { return log.ofPolicy("DEBUG") > 0 })
	sleep(2500 * time.Millisecond) // two more signs of life
	if n := log.ofPolicy("DEBUG"); n != 1 || log.ofPolicy("WARN") != 0 {
		t.Errorf("asked %d times: %s", n, strings.Join(log.all(), "\n"))
	}
}
