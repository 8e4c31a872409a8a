// Package keys tests that teams and keys that are made at one gateway are in force
// at every other within a second, and survive a crash.
package keys
