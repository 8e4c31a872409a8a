// Package ledger tests that the usage ledger loses no more than it says when the
// gateway is killed, the disk is full, or the database breaks off.
package ledger
