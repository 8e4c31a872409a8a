// Package node runs the suites of clients that are written for Node against the
// real gateway: OpenAI's SDK, the AI SDK and LangChain.
package node
