//go:build unix

package plainhttp

import (
	"errors"
	"syscall"
)

// canCheck says that idle connections can be checked here. Where they cannot, net/http
// does everything.
const canCheck = true

// look finds out whether there is nothing to be read, without waiting and without
// reading it.
func (c *conn) look(fd uintptr) {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		if !errors.Is(err, syscall.EINTR) {
			c.silent = errors.Is(err, syscall.EAGAIN)
			return
		}
	}
}
