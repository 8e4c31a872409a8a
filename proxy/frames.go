package proxy

import (
	"encoding/binary"
	"io"
)

// Status codes of close frames (RFC 6455, section 7.4.1).
const (
	closeGoingAway = 1001
	closeInternal  = 1011
)

// frames passes a WebSocket's bytes on and follows the frames in them (RFC 6455,
// section 5.2), so that it is known where one more may be put.
type frames struct {
	io.Writer
	head   [14]byte // of the frame that begins
	n      int      // bytes of it that have come
	left   uint64   // bytes of the frame's payload that are to come
	closed bool     // a close frame has begun: none may follow
}

// Write implements io.Writer.
func (f *frames) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	f.follow(b[:n])
	return n, err
}

func (f *frames) follow(b []byte) {
	for len(b) > 0 {
		if f.left > 0 {
			k := min(f.left, uint64(len(b)))
			f.left -= k
			b = b[k:]
			continue
		}
		f.head[f.n] = b[0]
		f.n++
		b = b[1:]
		if f.n < 2 || f.n < f.headSize() {
			continue
		}
		f.closed = f.closed || f.head[0]&0xf == 8
		f.left, f.n = f.payload(), 0
	}
}

// headSize is the size of a head by its first two bytes.
func (f *frames) headSize() int {
	size := 2
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.head[1]&0x80 != 0 {
		size += 4 // the mask, which servers do not send
	}
	return size
}

func (f *frames) payload() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}

// open reports whether a frame may follow: the last one is whole, and was not the
// last one of all.
func (f *frames) open() bool { return f.left == 0 && f.n == 0 && !f.closed }

// closeFrame is a close frame of a server with a status code.
func closeFrame(code uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x88, 2}, code)
}
