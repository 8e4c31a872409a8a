package keys

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"penstock/database/databasetest"
)

// stoppable returns the URL of a PostgreSQL server through a relay that can be cut,
// as a network is: stop breaks its connections and takes no new ones.
func stoppable(t *testing.T) (address string, stop, again func()) {
	t.Helper()
	u, err := url.Parse(databasetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, to: u.Host}
	r.listen("127.0.0.1:0")
	t.Cleanup(r.cut)
	u.Host = r.l.Addr().String()
	return u.String(), r.cut, func() { r.listen(u.Host) }
}

type relay struct {
	t  *testing.T
	to string
	l  net.Listener

	mu    sync.Mutex
	conns []net.Conn
	work  sync.WaitGroup
}

func (r *relay) listen(address string) {
	r.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.l = l
	r.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.work.Go(func() { r.join(c) })
		}
	})
}

func (r *relay) join(a net.Conn) {
	defer a.Close()
	b, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer b.Close()
	r.mu.Lock()
	r.conns = append(r.conns, a, b)
	r.mu.Unlock()
	r.work.Go(func() {
		_, _ = io.Copy(b, a)
		b.Close()
	})
	_, _ = io.Copy(a, b)
}

// cut may be called again.
func (r *relay) cut() {
	r.l.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.work.Wait()
}
