package proxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// frame is a frame as servers send it.
func frame(first byte, size int) string {
	payload := strings.Repeat("\x88", size) // which looks like a close frame's begin
	switch {
	case size < 126:
		return string([]byte{first, byte(size)}) + payload
	case size < 1<<16:
		return string([]byte{first, 126, byte(size >> 8), byte(size)}) + payload
	}
	return string([]byte{first, 127, 0, 0, 0, 0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}) + payload
}

// Wherever the bytes are cut, a frame may follow between two frames, and nowhere else,
// and none behind a close frame.
func TestFramesAreFollowed(t *testing.T) {
	masked := "\x81\x83mask\x88\x88\x88"
	ends := map[int]bool{0: true}
	var all string
	for _, f := range []string{frame(0x81, 5), frame(0x01, 0), frame(0x89, 125), frame(0x80, 126), frame(0xc2, 300), masked, frame(0x82, 70_000), frame(0x81, 1)} {
		all += f
		ends[len(all)] = true
	}
	all += frame(0x88, 2)
	for _, step := range []int{1, 2, 3, 7, 1000, len(all)} {
		var out bytes.Buffer
		f := &frames{Writer: &out}
		for at := 0; at < len(all); {
			n := min(step, len(all)-at)
			if _, err := f.Write([]byte(all[at : at+n])); err != nil {
				t.Fatal(err)
			}
			if at += n; f.open() != ends[at] {
				t.Fatalf("in steps of %d: after %d bytes a frame may follow: %v", step, at, f.open())
			}
		}
		if out.String() != all {
			t.Errorf("in steps of %d: the bytes have changed", step)
		}
	}
}

// covers LIFE-03: whoever's session ends by the gateway or the upstream is told by a
// close frame, unless the upstream has told it, or stopped in the middle of a frame.
func TestWebSocketsEndByACloseFrame(t *testing.T) {
	wait := func(*world) { time.Sleep(2 * time.Hour) }
	for _, c := range []struct {
		name, sends string
		gone        bool // the upstream, after that
		end         func(w *world)
		want        string // behind what was sent
	}{
		{"by time", frame(0x81, 300), false, wait, "\x88\x02\x03\xe9"},
		{"before any frame", "", false, wait, "\x88\x02\x03\xe9"},
		{"between fragments", frame(0x01, 2), false, wait, "\x88\x02\x03\xe9"},
		{"by the end of the drain", frame(0x81, 3), false, func(w *world) { w.p.Cut() }, "\x88\x02\x03\xe9"},
		{"by an upstream that breaks off", frame(0x81, 3), true, wait, "\x88\x02\x03\xf3"},
		{"by an upstream that says so", frame(0x81, 3) + frame(0x88, 2), true, wait, ""},
		{"within a frame", frame(0x81, 300)[:100], false, wait, ""},
		{"within a head", frame(0x81, 300)[:3], true, wait, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := func(w http.ResponseWriter, _ *http.Request) {
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+c.sends)
					if !c.gone {
						_, _ = io.Copy(io.Discard, conn)
					}
				}
				w := newWorld(t, up, nil, func(s *Snapshot) { s.Upstreams["a"].Timeouts.Session = 90 * time.Minute })
				_, conn := w.open("/v1/responses")
				sent := make([]byte, len(c.sends))
				if _, err := io.ReadFull(conn, sent); err != nil || string(sent) != c.sends {
					t.Errorf("the client reads %q, %v", sent, err)
				}
				go c.end(w)
				if rest, err := io.ReadAll(conn); string(rest) != c.want || err != nil {
					t.Errorf("and then %q, %v, want %q", rest, err, c.want)
				}
				conn.Close()
				time.Sleep(3 * time.Hour)
				if w.p.AwaitSessions(context.Background()) != nil {
					t.Error("it is open")
				}
				w.settled()
			})
		})
	}
}

// A client that does not read is not waited for.
func TestCloseFrameThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, (&socket{}).ServeHTTP, nil)
		_, conn := w.open("/v1/responses")
		defer conn.Close()
		begin := time.Now()
		w.p.Cut()
		if w.p.AwaitSessions(context.Background()) != nil || time.Since(begin) > goodbyeFor {
			t.Errorf("it has taken %v", time.Since(begin))
		}
	})
}
