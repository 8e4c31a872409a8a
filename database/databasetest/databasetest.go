// Package databasetest gives tests a database of each kind: an SQLite file, and a
// real PostgreSQL server, which it starts and stops.
package databasetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/database"
)

// Each runs a test on a new database of each kind, which is open until it ends.
func Each(t *testing.T, test func(t *testing.T, db *database.DB)) {
	t.Helper()
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "penstock.db") },
		"postgres": Postgres,
	} {
		t.Run(name, func(t *testing.T) { test(t, Open(t, url(t))) })
	}
}

// Open opens a database until the test ends.
func Open(t *testing.T, url string) *database.DB {
	t.Helper()
	db, err := database.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Postgres starts a PostgreSQL server for the test and returns the URL of its empty
// database. It fails the test where there is no server to start: install
// postgresql-15.
func Postgres(t *testing.T) string {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatalf("no PostgreSQL server: %v", err)
	}
	// Not t.TempDir: the server's user could not enter it.
	dir, err := os.MkdirTemp("", "penstock-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	credential, err := serverUser(dir)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-U", "penstock", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	port := freePort(t)
	var log bytes.Buffer
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", dir,
		"-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB")
	server.Dir, server.Stdout, server.Stderr = dir, &log, &log
	// The server ends with the test's process, however that ends.
	server.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGINT}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = server.Process.Kill()
			<-ended
			t.Error("PostgreSQL did not stop")
		}
	})
	url := fmt.Sprintf("postgres://penstock@127.0.0.1:%d/postgres?sslmode=disable", port)
	if err := ready(url, ended); err != nil {
		t.Fatalf("PostgreSQL did not start: %v\n%s", err, log.String())
	}
	return url
}

// ready waits until the server takes connections, without touching its schema.
func ready(url string, ended chan error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ping(url)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case err := <-ended:
			ended <- err
			return errors.New("the server has ended")
		case <-time.After(50 * time.Millisecond):
		}
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
	return "", fmt.Errorf("apt-get install postgresql-15: %w: %s", err, strings.TrimSpace(string(out)))
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

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
