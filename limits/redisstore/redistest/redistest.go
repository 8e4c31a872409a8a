// Package redistest runs real Redis servers for tests: one, one with a replica and a
// sentinel, or a Cluster of three.
// Where redis-server is missing it is installed from the distribution's packages;
// where that is impossible the test fails.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"penstock/freeport"
)

var install struct {
	once sync.Once
	path string
	err  error
}

// Binary returns the path of redis-server.
func Binary(t testing.TB) string {
	t.Helper()
	install.once.Do(func() {
		if install.path, install.err = exec.LookPath("redis-server"); install.err == nil {
			return
		}
		for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "redis-server"}} {
			cmd := exec.Command("apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				install.err = fmt.Errorf("install redis-server: %w\n%s", err, out)
				return
			}
		}
		install.path, install.err = exec.LookPath("redis-server")
	})
	if install.err != nil {
		t.Fatalf("these tests need redis-server: %v", install.err)
	}
	return install.path
}

// A Server is a running redis-server that keeps nothing on disk.
type Server struct {
	Addr string

	t    testing.TB
	args []string
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a server on a free port of loopback, with more arguments of its
// command line. It ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), t: t, args: args}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// FreePort finds a port that nobody uses, and whose cluster bus port is free too.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Restart starts the server, empty, if it does not run.
func (s *Server) Restart() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	s.run(append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.t.TempDir(), "--enable-debug-command", "yes"}, s.args...)...)
}

// run starts a server with these arguments alone, if it does not run.
func (s *Server) run(args ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return
	}
	cmd := exec.Command(Binary(s.t), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed in the end
		close(done)
	}()
	s.cmd, s.done = cmd, done
	s.await()
}

func (s *Server) await() {
	s.t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, Password: s.password(), TLSConfig: nil})
	defer c.Close()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		err = c.Ping(ctx).Err()
		cancel()
		if err == nil || strings.HasPrefix(err.Error(), "MASTERDOWN") {
			return
		}
		select {
		case <-s.done:
			s.t.Fatalf("redis-server %s has exited", s.Addr)
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.t.Fatalf("redis-server %s does not answer: %v", s.Addr, err)
}

func (s *Server) password() string {
	for i, a := range s.args {
		if a == "--requirepass" && i+1 < len(s.args) {
			return s.args[i+1]
		}
	}
	return ""
}

// Kill ends the server at once. What it knew is gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// Pause stops the server without ending it: connections stay, nothing is answered.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig)
	}
}

// Client returns a plain client of the server, for looking into it.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr, Password: s.password()})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Cluster starts three masters that share all slots.
func Cluster(t testing.TB) []*Server {
	t.Helper()
	servers := make([]*Server, 3)
	for i := range servers {
		servers[i] = Start(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	const slots = 16384
	for i, s := range servers {
		c := s.Client()
		if err := c.ClusterAddSlotsRange(ctx, slots*i/3, slots*(i+1)/3-1).Err(); err != nil {
			t.Fatalf("give slots to %s: %v", s.Addr, err)
		}
		if err := c.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)).Err(); err != nil {
			t.Fatalf("set the epoch of %s: %v", s.Addr, err)
		}
		host, port, _ := net.SplitHostPort(servers[0].Addr)
		if err := c.ClusterMeet(ctx, host, port).Err(); i > 0 && err != nil {
			t.Fatalf("join %s: %v", s.Addr, err)
		}
	}
	for _, s := range servers {
		c := s.Client()
		until(t, "the nodes know each other", func(ctx context.Context) bool {
			info, err := c.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return servers
}
