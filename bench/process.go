//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a running child.
type process struct {
	name   string
	cmd    *exec.Cmd
	addr   string // where it serves
	admin  string // where penstock's admin listener does, or off
	shares bool   // keeps limits in Redis
	exited chan struct{}
}

// startTime is how long a child may take to listen.
const startTime = 10 * time.Second

// start runs a program and waits until it listens on addr. What it writes to
// standard error goes into a file in dir.
func start(ctx context.Context, dir, name, addr string, env []string, program string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+"-"+addr+".log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own descriptor
	p := &process{name: name, addr: addr, exited: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = log
	// Should bench itself be killed, the kernel ends its children.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the child, for which stop waits
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	if err := p.listening(ctx); err != nil {
		p.stop()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start %s: %w\n%s", name, err, said)
	}
	return p, nil
}

func (p *process) listening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", p.addr); err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on %s: %w", p.addr, ctx.Err())
		}
	}
}

// stop ends the child, by force if it does not end by itself.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// tick is the unit of times in /proc/PID/stat. Linux fixes it at 1/100 s for
// programs (USER_HZ, proc(5)).
const tick = 10 * time.Millisecond

// cpu is the CPU time that the child has used, in user and kernel mode.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
	}
	// The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("CPU time of %s: unexpected /proc/PID/stat", p.name)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// rss is the child's resident memory in bytes.
func (p *process) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("memory of %s: no VmRSS in /proc/PID/status", p.name)
}
