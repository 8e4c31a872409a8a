//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// installTime bounds the installation of a program.
const installTime = 90 * time.Second

// find returns the path of a program of a Debian package. Where there is none, root
// gets it through apt, and others are told how. Without it, what needs it is left
// out.
func find(ctx context.Context, progress io.Writer, name, pkg string) string {
	if path := pathOf(name); path != "" {
		return path
	}
	if apt, err := exec.LookPath("apt-get"); err == nil && os.Geteuid() == 0 {
		fmt.Fprintln(progress, "installing", pkg)
		ctx, cancel := context.WithTimeout(ctx, installTime)
		defer cancel()
		for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", pkg}} {
			cmd := exec.CommandContext(ctx, apt, args...)
			// A service of its own would take a port, and CPU time.
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(progress, "apt-get %s: %v\n%s", args[0], err, out)
				break
			}
		}
	}
	path := pathOf(name)
	if path == "" {
		fmt.Fprintf(progress, "%[1]s is left out; install it first, for example by: sudo apt-get install %[2]s\n", name, pkg)
	}
	return path
}

func pathOf(name string) string {
	for _, n := range [...]string{name, "/usr/sbin/" + name} { // the second is not in every user's PATH
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	return ""
}
