// Package clients holds the tests of the gateway by OpenAI's SDK for Go. The
// suite for Node, in e2e/node, does the same against the same stack.
package clients
