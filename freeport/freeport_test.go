package freeport

import (
	"net"
	"testing"
)

func TestAddressCanBeListenedOn(t *testing.T) {
	for range 20 {
		addr, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if port := l.Addr().(*net.TCPAddr).Port; port < lowest || port >= highest {
			t.Errorf("port %d is not between %d and %d", port, lowest, highest)
		}
	}
}
