//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Kinds of answer of the fake upstream, asked for by the header kindHeader.
const (
	kindHeader = "X-Bench-Kind"
	openPath   = "/open" // answers with the number of streams that are open

	kindAnswer = "answer" // 1 KB of JSON at once
	kindSlow   = "slow"   // the same after slowAnswer
	kindBurst  = "burst"  // a stream of burstChunks chunks at full speed
	kindPaced  = "paced"  // a stream with a chunk every chunkTime, until the client leaves
	kindIdle   = "idle"   // a stream with one chunk, which then stays open
)

const (
	burstChunks = 1000
	chunkTime   = 20 * time.Millisecond
	slowAnswer  = 200 * time.Millisecond
	answerSize  = 1 << 10
)

// An upstream answers chat completions as fast as net/http can.
type upstream struct {
	open   atomic.Int64
	answer []byte
}

func newUpstream() *upstream {
	const head = `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench-model","choices":[{"index":0,"message":{"role":"assistant","content":"`
	const tail = `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":60,"completion_tokens":170,"total_tokens":230}}`
	text := strings.Repeat("word ", answerSize)[:answerSize-len(head)-len(tail)]
	return &upstream{answer: []byte(head + text + tail)}
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == openPath {
		fmt.Fprint(w, u.open.Load())
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch kind := r.Header.Get(kindHeader); kind {
	case kindBurst, kindPaced, kindIdle:
		u.open.Add(1)
		defer u.open.Add(-1)
		u.stream(w, r.Context(), kind, bytes.Contains(body, []byte(`"include_usage":true`)))
	case kindSlow:
		pause(r.Context(), slowAnswer)
		fallthrough
	default:
		w.Header()["Content-Type"] = []string{"application/json"}
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(u.answer))}
		_, _ = w.Write(u.answer)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// chunk is an event with the time at which it was sent, in nanoseconds, as its
// "created".
func chunk(b []byte, now time.Time) []byte {
	b = append(b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":`...)
	b = strconv.AppendInt(b, now.UnixNano(), 10)
	return append(b, `,"model":"bench-model","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}`+"\n\n"...)
}

const (
	finishChunk = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-model","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usageChunk  = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-model","choices":[],"usage":{"prompt_tokens":60,"completion_tokens":1000,"total_tokens":1060}}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

func (u *upstream) stream(w http.ResponseWriter, ctx context.Context, kind string, usage bool) {
	w.Header()["Content-Type"] = []string{"text/event-stream"}
	control := http.NewResponseController(w)
	buf := make([]byte, 0, 512)
	send := func() error {
		buf = chunk(buf[:0], time.Now())
		if _, err := w.Write(buf); err != nil {
			return err
		}
		return control.Flush()
	}
	switch kind {
	case kindIdle:
		if send() == nil {
			<-ctx.Done()
		}
	case kindPaced:
		every := time.NewTicker(chunkTime)
		defer every.Stop()
		for send() == nil {
			select {
			case <-every.C:
			case <-ctx.Done():
				return
			}
		}
	default:
		for range burstChunks {
			if send() != nil {
				return
			}
		}
		end := finishChunk + doneEvent
		if usage {
			end = finishChunk + usageChunk + doneEvent
		}
		_, _ = io.WriteString(w, end)
	}
}
