package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"penstock/limits"
	"penstock/limits/limitstest"
	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

// A twin is a reservation made in two stores.
type twin struct {
	id            uint64
	memory, redis []limits.Charge
}

// FuzzSameVerdicts does the same to a store in memory and to a shared one, and wants
// the same verdicts and levels. Windows are so long that nothing is earned meanwhile.
func FuzzSameVerdicts(f *testing.F) {
	f.Add([]byte{0, 9, 1, 5, 0, 30, 2, 1, 1, 7, 3, 4, 0, 10, 0, 11, 4, 4, 5, 5})
	f.Add([]byte("0720"))
	f.Add([]byte("NX20"))
	f.Add([]byte("00$02A"))
	f.Add([]byte{0, 255, 0, 100, 2, 0, 0, 39, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0})
	f.Add([]byte{6, 20, 6, 20, 6, 20, 2, 0, 2, 1, 6, 200, 3, 10, 0, 1, 5, 90, 0, 1})
	server := redisstore.Server{Addresses: []string{redistest.Start(f).Addr}}
	shared := open(f, server, redisstore.Options{Prefix: prefix()})
	f.Fuzz(func(t *testing.T, program []byte) {
		all := []*limits.Limit{
			limitstest.Bucket("requests", limits.Requests, 20, 24*time.Hour, 20), limitstest.Bucket("tokens", limits.Tokens, 38, 24*time.Hour, 38),
			limitstest.Slots("slots", 5), limitstest.Budget("budget", 39, 24*time.Hour), limitstest.Bucket("shadow", limits.Requests, 10, 24*time.Hour, 10),
		}
		all[4].Shadow = true
		owner := fmt.Sprint("team/", lastID.Add(1))
		for _, l := range all {
			l.ID, l.Group = owner+l.ID, owner
		}
		same(t, limits.NewMemory(), shared, all, program[:min(len(program), 200)])
	})
}

// same runs a program: pairs of what to do and how much.
func same(t *testing.T, memory, shared limits.Store, all []*limits.Limit, program []byte) {
	ctx := context.Background()
	var held []twin
	for i := 0; i+1 < len(program); i += 2 {
		op, arg := program[i], int64(program[i+1])
		l := all[op/8%4] // what is lowered or restored is not a shadow
		switch op % 8 {
		case 0, 1, 6: // take of some limits
			w := twin{id: lastID.Add(1)}
			for j, l := range all {
				if op%8 == 6 && (arg>>j)&1 == 0 {
					continue
				}
				c := limits.Charge{Limit: l, N: arg % 11, Keep: int64(op/64) % 2}
				if l.Dimension == limits.Concurrency {
					c.N = 1
				}
				w.memory = append(w.memory, c)
			}
			if len(w.memory) == 0 {
				continue
			}
			w.redis = slices.Clone(w.memory)
			m, err1 := memory.Take(ctx, w.id, nil, w.memory)
			r, err2 := shared.Take(ctx, w.id, nil, w.redis)
			if err1 != nil || err2 != nil || m.OK != r.OK || m.By != r.By {
				t.Fatalf("step %d: memory says %v by %v, redis %v by %v; %v %v", i/2, m.OK, m.By, r.OK, r.By, err1, err2)
			}
			if d := m.After - r.After; d > time.Second || d < -time.Second {
				t.Fatalf("step %d: memory says after %v, redis %v", i/2, m.After, r.After)
			}
			for j := range w.memory {
				if m.OK && w.memory[j].Over != w.redis[j].Over {
					t.Fatalf("step %d: over %s: memory says %v", i/2, w.memory[j].Limit, w.memory[j].Over)
				}
			}
			if m.OK {
				held = append(held, w)
			}
		case 2, 3, 7: // the end of a reservation, with a refund or more debt
			if len(held) == 0 {
				continue
			}
			k := int(arg) % len(held)
			w := held[k]
			held = slices.Delete(held, k, k+1)
			used := arg % 13
			for _, charges := range [][]limits.Charge{w.memory, w.redis} {
				for j := range charges {
					charges[j].N, charges[j].Ends = charges[j].N-used, true
				}
			}
			_ = memory.Give(ctx, w.id, w.memory)
			_ = shared.Give(ctx, w.id, w.redis)
		case 4:
			if l.Dimension == limits.Requests || l.Dimension == limits.Tokens {
				_ = memory.Lower(ctx, l, arg%l.Burst)
				_ = shared.Lower(ctx, l, arg%l.Burst)
			}
		case 5:
			if start, _ := all[3].WindowAt(time.Now().UnixMicro()); arg < 45 {
				_ = memory.Restore(ctx, all[3], start, arg)
				_ = shared.Restore(ctx, all[3], start, arg)
			}
		}
		m, _ := memory.Levels(ctx, all)
		r, _ := shared.Levels(ctx, all)
		for j := range all {
			// What is not told yet is not rounded yet.
			if d := m[j].Remaining - r[j].Remaining; d < -1 || d > 1 || d != 0 && all[j].Dimension == limits.Spend {
				t.Fatalf("step %d (%d): %s: memory has %d left, redis %d", i/2, op%8, all[j], m[j].Remaining, r[j].Remaining)
			}
		}
	}
}
