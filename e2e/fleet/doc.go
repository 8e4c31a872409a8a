// Package fleet tests several gateways on one Redis: that they keep within every
// limit together, whatever becomes of one of them, of Redis, or of the network
// between. The verdict is by a log of what reached the upstream.
package fleet
