package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// Whatever the sizes of what comes and of the reads, the bytes are the same, and a
// connection that has been read to its end holds no buffer.
func TestReadingAheadLosesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for b := sent; len(b) > 0; {
			n := min(len(b), 1+rand.IntN(20_000))
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	}()
	c, err := dialPlain(new(net.Dialer).DialContext)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ahead := false
	var got []byte
	for err == nil {
		size := 1 + rand.IntN(8<<10)
		if len(got) < len(sent)/2 {
			size = burst // as net/http reads
		}
		buf := make([]byte, size)
		var n int
		n, err = c.Read(buf)
		got = append(got, buf[:n]...)
		ahead = ahead || c.(*conn).ahead != nil
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d and %v, or others than were sent", len(got), len(sent), err)
	}
	if !ahead {
		t.Error("nothing was read ahead")
	}
	if c.(*conn).ahead != nil {
		t.Error("a buffer is held behind the end")
	}
}

func TestWritingThroughAPooledBuffer(t *testing.T) {
	client, server := net.Pipe()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 5_000)
	go func() {
		defer client.Close()
		_, _ = (&conn{Conn: client}).ReadFrom(io.LimitReader(bytes.NewReader(sent), int64(len(sent))))
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d and %v, or others than were sent", len(got), len(sent), err)
	}
}
