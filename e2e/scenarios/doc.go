// Package scenarios judges Penstock by the situations that it is made for, each
// with the real binary between real clients and a simulated provider that
// enforces its own limits and keeps its own count. Windows are a second instead
// of a minute, so that what takes minutes in production takes seconds here.
//
// TestMain prints the figures of all scenarios in one table at the end.
package scenarios
