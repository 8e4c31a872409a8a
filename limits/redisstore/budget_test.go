package redisstore_test

import (
	"context"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// A budgeted is a replica and a budget that it spends.
type budgeted struct {
	*redisstore.Store
	t *testing.T
	l *limits.Limit
}

// take takes n, and returns what gives so much of it back.
func (b budgeted) take(n int64) (back func(n int64)) {
	b.t.Helper()
	charges := []limits.Charge{{Limit: b.l, N: n}}
	if v, err := b.Take(context.Background(), 1, nil, charges); err != nil || !v.OK {
		b.t.Fatalf("take %d: %+v, %v", n, v, err)
	}
	return func(n int64) {
		charges[0].N = n
		if err := b.Give(context.Background(), 1, charges); err != nil {
			b.t.Fatal(err)
		}
	}
}

// spent is what a level that was asked for says.
func (b budgeted) spent() int64 {
	b.t.Helper()
	levels, err := limits.LevelsNow(context.Background(), b, []*limits.Limit{b.l})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.l.Amount - levels[0].Remaining
}

func (b budgeted) soon(what string, want int64) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); b.spent() != want; sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %d spent, want %d", what, b.spent(), want)
		}
	}
}

func twoBudgeted(t *testing.T) (a, b budgeted, empty func()) {
	t.Helper()
	server := redistest.Start(t)
	opt := redisstore.Options{Prefix: prefix()}
	at := redisstore.Server{Addresses: []string{server.Addr}}
	l := limitstest.Budget("a", 1000, 24*time.Hour)
	return budgeted{open(t, at, opt), t, l}, budgeted{open(t, at, opt), t, l}, func() {
		if err := server.Client().FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// A replica without requests knows what the others have spent as soon as somebody
// looks.
func TestLevelsOfAnIdleReplica(t *testing.T) {
	a, b, _ := twoBudgeted(t)
	b.take(10)
	back := a.take(500)
	b.soon("taken elsewhere", 510)
	back(450)
	b.soon("given back elsewhere", 60)
}

// covers DIST-05: a server that has lost its state is told what was spent, neither
// less, by what is taken at that moment, nor more, by what is given back.
func TestBudgetAfterALoss(t *testing.T) {
	a, b, empty := twoBudgeted(t)
	a.take(300)
	back := a.take(200)
	back(150) // which the server has not been told yet
	empty()
	a.soon("given back just before the loss", 350)
	b.soon("elsewhere", 350)
	empty()
	back = a.take(100)
	a.soon("taken just after the loss", 450)
	empty()
	back(90)
	a.soon("given back just after the loss", 360)
	b.soon("elsewhere", 360)
}
