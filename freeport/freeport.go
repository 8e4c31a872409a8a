// Package freeport finds ports for servers that tests and benchmarks start.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The ports that are looked at lie below those from which Linux takes the local ones
// of outgoing connections (ip_local_port_range, from 32768). One among those may be
// in use by a client when its server is started again.
const (
	lowest  = 10_000
	highest = 22_000
)

var given sync.Map // by port

// Find returns a TCP port of 127.0.0.1 that nobody uses, nor the one that lies
// 10,000 above it, which the servers of a Redis Cluster use among themselves. It
// returns no port twice, for a server that is away may come back to its own.
func Find() (int, error) {
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest)
		if !unused(port) || !unused(port+10_000) {
			continue
		}
		if _, before := given.LoadOrStore(port, true); !before {
			return port, nil
		}
	}
	return 0, errors.New("no free port was found on 127.0.0.1")
}

// Address is Find with the host before the port.
func Address() (string, error) {
	port, err := Find()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

func unused(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
