package plainhttp

import (
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// piped returns a connection to a host, and whether it has been closed.
func piped(t *testing.T, host string) (c *conn, closed func() bool) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	done := false
	go func() {
		_, _ = io.Copy(io.Discard, theirs)
		done = true
	}()
	return newConn(ours, host), func() bool { synctest.Wait(); return done }
}

func TestIdleConnectionsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{most: 10, mostOfHost: 10, timeout: time.Minute, every: 7 * time.Second}
		first, firstClosed := piped(t, "a")
		second, secondClosed := piped(t, "a")
		p.put(first)
		time.Sleep(40 * time.Second)
		p.put(second)
		time.Sleep(20 * time.Second)
		if !firstClosed() || secondClosed() {
			t.Errorf("after a minute: closed %v, want only the first", []bool{firstClosed(), secondClosed()})
		}
		if c := p.take("a"); c != second {
			t.Error("the second was not there to be taken")
		}
		time.Sleep(10 * time.Minute)
		if secondClosed() {
			t.Error("a connection in use timed out")
		}
		p.put(second)
		time.Sleep(time.Minute)
		if !secondClosed() || p.size != 0 || len(p.hosts) != 0 {
			t.Errorf("closed %v, and of %d connections and %d hosts something is left", secondClosed(), p.size, len(p.hosts))
		}
	})
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{most: 4, mostOfHost: 3, timeout: time.Hour, every: lookEvery}
		var closed []func() bool
		for _, host := range []string{"a", "a", "a", "a", "b", "b"} {
			c, is := piped(t, host)
			closed = append(closed, is)
			p.put(c)
			time.Sleep(time.Second)
		}
		// The fourth is one too many of its host; of all, the first makes room.
		var got []bool
		for _, is := range closed {
			got = append(got, is())
		}
		if want := []bool{true, false, false, true, false, false}; !slices.Equal(got, want) {
			t.Errorf("closed: %v, want %v", got, want)
		}
		p.close()
		late, lateClosed := piped(t, "a")
		p.put(late)
		for i, is := range append(closed, lateClosed) {
			if !is() {
				t.Errorf("connection %d is open when all are closed", i+1)
			}
		}
	})
}

// What an upstream has closed is closed here too, long before it times out, and what it
// has not closed is kept.
func TestIdleConnectionsAreLookedAt(t *testing.T) {
	closes := make(chan struct{})
	u := serving(t, func(p *peer) {
		if p.number == 2 {
			if _, err := p.request(); err == nil {
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
				<-closes
			}
			return
		}
		answering(p)
	})
	tr := transport(t, nil)
	tr.idle.every = 10 * time.Millisecond
	var open []io.Reader
	for range 3 { // at once, on a connection each
		resp, err := tr.RoundTrip(get(t, u))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		open = append(open, resp.Body)
	}
	for _, body := range open {
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
	}
	if n := tr.idleNow(); n != 3 {
		t.Fatalf("%d connections are idle, want 3", n)
	}
	close(closes)
	for deadline := time.Now().Add(long); tr.idleNow() != 2; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are idle when the upstream has closed one of 3", tr.idleNow())
		}
	}
	<-time.After(5 * tr.idle.every) // more looks
	if n := tr.idleNow(); n != 2 {
		t.Errorf("%d connections are idle, want the 2 that are open", n)
	}
	if got := must(t, tr, get(t, u)); got != "3" {
		t.Errorf("connection %s, want 3", got)
	}
}
