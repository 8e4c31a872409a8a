package freeport

import (
	"net"
	"testing"
)

func TestAddressCanBeListenedOn(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		addr, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if seen[addr] {
			t.Errorf("%s twice", addr)
		}
		seen[addr] = true
		if port := l.Addr().(*net.TCPAddr).Port; port < lowest || port >= highest {
			t.Errorf("port %d is not between %d and %d", port, lowest, highest)
		}
	}
}
