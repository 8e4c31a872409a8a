package databasetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"penstock/freeport"
)

// A server is a PostgreSQL server with a new directory.
type server struct {
	dir   string
	port  int
	cmd   *exec.Cmd
	ended chan error
	log   bytes.Buffer
}

func (s *server) url(database string) string {
	return fmt.Sprintf("postgres://penstock@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

func startServer() (*server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	removeOld()
	// Not a test's own directory, which the server's user could not enter.
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, ended: make(chan error, 1)}
	if err := s.start(bin); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, s.log.String()), s.stop())
	}
	return s, nil
}

// dirPrefix is before the id of the process, in the names of servers' directories.
const dirPrefix = "penstock-pg-"

// removeOld removes the directories of processes that were killed.
func removeOld() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*")) // the pattern is sound
	for _, dir := range dirs {
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if pid, err := strconv.Atoi(id); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // another process may be at it, too
		}
	}
}

func (s *server) start(bin string) error {
	credential, err := serverUser(s.dir)
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "penstock", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: credential}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if s.port, err = freeport.Find(); err != nil {
		return err
	}
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-k", s.dir,
		"-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB")
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, &s.log, &s.log
	// The server ends with the test's process, however that ends.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGINT}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	return s.ready()
}

// ready waits until the server takes connections.
func (s *server) ready() error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := s.exec("")
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return errors.New("the server has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// database makes another database, and returns its URL.
func (s *server) database(name string) (url string, err error) {
	return s.url(name), s.exec("CREATE DATABASE " + name)
}

func (s *server) exec(query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, query)
	return err
}

func (s *server) stop() error {
	defer func() { _ = os.RemoveAll(s.dir) }()
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	select {
	case <-s.ended:
		return nil
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return errors.New("PostgreSQL did not stop")
	}
}

// binaries finds PostgreSQL's programs, and installs them where the test may.
func binaries() (string, error) {
	find := func() string {
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
			return filepath.Dir(found[len(found)-1])
		}
		if p, err := exec.LookPath("postgres"); err == nil {
			return filepath.Dir(p)
		}
		return ""
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", "postgresql-15")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if dir := find(); dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("there is no server; apt-get install postgresql-15: %w: %s", err, strings.TrimSpace(string(out)))
}

// serverUser is who runs the server, which refuses to run as root, and makes dir
// theirs.
func serverUser(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}
