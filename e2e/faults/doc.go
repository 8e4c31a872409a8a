// Package faults attacks the real binary with real sockets: clients and upstreams
// that leave, stall, send garbage or never end, too few descriptors, too little
// memory, signals at the worst time. Each test names the required behaviour that
// it shows; docs/failure-modes.md lists them.
package faults
