package harness

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A Wire carries TCP connections to a server and can fail as networks do. It keeps
// its address through all of it. It is safe for concurrent use.
type Wire struct {
	Addr string // where to connect in place of the server
	to   string

	mu    sync.Mutex
	fault Fault
	turn  chan struct{} // closed when the fault changes
	l     net.Listener
	conns map[net.Conn]struct{}
	work  sync.WaitGroup
}

// A Fault is what a wire does to connections.
type Fault struct {
	Cut   bool          // break them, and refuse new ones
	Mute  bool          // keep them, and carry nothing
	Delay time.Duration // carry each piece so much later
}

// NewWire returns a wire to an address. It ends with the test.
func NewWire(t testing.TB, to string) *Wire {
	t.Helper()
	w := &Wire{to: to, turn: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	w.listen(t, FreeAddress(t)) // it is listened on again after a cut
	w.Addr = w.l.Addr().String()
	t.Cleanup(func() {
		w.Set(t, Fault{Cut: true})
		w.work.Wait()
	})
	return w
}

// Set replaces the fault; the zero Fault is a sound wire.
func (w *Wire) Set(t testing.TB, f Fault) {
	t.Helper()
	w.mu.Lock()
	was := w.fault
	w.fault = f
	close(w.turn)
	w.turn = make(chan struct{})
	if f.Cut {
		w.l.Close()
		for c := range w.conns {
			c.Close()
		}
	}
	w.mu.Unlock()
	if was.Cut && !f.Cut {
		w.listen(t, w.Addr)
	}
}

func (w *Wire) listen(t testing.TB, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.l = l
	w.mu.Unlock()
	w.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.work.Go(func() { w.join(c) })
		}
	})
}

func (w *Wire) join(a net.Conn) {
	defer a.Close()
	b, err := net.DialTimeout("tcp", w.to, 5*time.Second)
	if err != nil {
		return
	}
	defer b.Close()
	defer w.drop(a, b)
	if !w.keep(a, b) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		w.carry(b, a)
		b.Close()
	})
	w.carry(a, b)
	a.Close()
	both.Wait()
}

func (w *Wire) keep(cs ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		w.conns[c] = struct{}{}
	}
	return !w.fault.Cut
}

func (w *Wire) drop(cs ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		delete(w.conns, c)
	}
}

// carry moves bytes in one direction until either end closes.
func (w *Wire) carry(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.pass()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// pass waits as long as the fault holds a piece up.
func (w *Wire) pass() {
	for {
		w.mu.Lock()
		f, turn := w.fault, w.turn
		w.mu.Unlock()
		switch {
		case f.Mute:
			<-turn
		case f.Delay > 0:
			<-time.After(f.Delay)
			return
		default:
			return
		}
	}
}
