package redisstore

import (
	"math"
	"time"

	"penstock/limits"
)

// Chunks spare round trips: units that are charged at the server before anybody
// asks for them, and slots that are held before anybody needs them. They never let
// the replicas exceed a limit together, because
//
//   - a chunk is charged like any other use, and only while a fifth of the limit
//     is left after it: near the end everything is charged one by one;
//   - what is unspent loses its worth as time passes over the stretch it was
//     charged on, because the bucket has earned that back by then;
//   - all chunks of a rate together are at most 15 % of its burst and live for a
//     twentieth of the time that the bucket takes to fill, and refunds never lift
//     such a bucket above 80 %: what a refund would take back from under an unspent
//     chunk is less than what is missing.
const (
	chunkPart  = 20 // a replica's chunk is at most the limit ÷ this…
	chunkAll   = 15 // …and the limit × this ÷ 100 ÷ replicas
	chunkLife  = 2 * time.Second
	chunkLeast = 10 * time.Millisecond // a shorter life is not worth it
	chunkTakes = 8                     // takes in the last seconds that make a chunk worth it
	chunkFloor = 5                     // 1 ÷ this of a limit is left, and refunds do not lift it above the rest
)

// A chunk is units of a rate or a budget that were withdrawn and are spent here.
type chunk struct {
	units    int64
	from, to micros // the stretch of a rate's time on which they were charged; to is the end of a budget's window
	until    micros // when the rest is given back
	use      meter  // units
	takes    meter
}

// left is what may still be spent.
func (c *chunk) left(l *level, now micros) int64 {
	if now >= c.until {
		return 0
	}
	return min(c.units, c.carried(l, now))
}

// carried is the most that may be unspent at a time: of a rate, what has not been
// earned back since.
func (c *chunk) carried(l *level, now micros) int64 {
	switch {
	case now >= c.to:
		return 0
	case l.kind == purse:
		return maxMicros
	}
	return limits.RateOf(l.limit, 0).Earned(c.to - max(now, c.from))
}

// spend takes n units, which are left.
func (c *chunk) spend(n int64, l *level, now micros) { c.units = c.left(l, now) - n }

// refund puts units back as far as the chunk carries them, and returns the rest.
func (c *chunk) refund(n int64, l *level, now micros) (rest int64) {
	if now >= c.until || l.kind == purse {
		return n
	}
	have := c.left(l, now)
	c.units = max(have, min(have+n, c.carried(l, now)))
	return n - (c.units - have)
}

// dropChunk notes what is left of a chunk as a change to be told.
func (l *level) dropChunk(now micros) {
	n := min(l.chunk.units, l.chunk.carried(l, now))
	l.chunk.units, l.chunk.until = 0, 0
	switch {
	case n <= 0:
	case l.kind == purse:
		l.pay(-n, now)
	default:
		l.pending.add(-worthDown(limits.RateOf(l.limit, 0), n))
	}
}

// chunkable reports whether chunks are taken from a rate or a budget at all. Every
// replica comes to the same answer.
func chunkable(l *limits.Limit) bool {
	if l.Shadow || l.Burst/chunkPart < 2 {
		return false
	}
	return kindOf(l) == purse || duration(chunkTime(l)) >= chunkLeast
}

// chunkTime is how long a chunk lives.
func chunkTime(l *limits.Limit) micros {
	life := chunkLife.Microseconds()
	if kindOf(l) == rate {
		life = min(life, limits.RateOf(l, 0).Room()/chunkPart)
	}
	return life
}

// wantChunk is the chunk that is worth withdrawing now, in units.
func (l *level) wantChunk(now time.Time, replicas int64) int64 {
	if !chunkable(l.limit) || l.chunk.takes.sum(now) < chunkTakes {
		return 0
	}
	burst := l.limit.Burst
	want := int64(l.chunk.use.sum(now))
	if l.kind == rate {
		want = max(want, limits.RateOf(l.limit, 0).Earned(500_000))
	}
	if want = min(want, burst/chunkPart, burst/100*chunkAll/max(1, replicas)); want < 2 {
		return 0
	}
	return want
}

// gotChunk notes a chunk that was granted. The mark is the arrival time of a rate
// after it, or the start of a budget's window.
func (l *level) gotChunk(got, mark, now micros) {
	c := &l.chunk
	c.until = now + chunkTime(l.limit)
	if l.kind == purse {
		_, end := l.limit.WindowAt(mark)
		c.units, c.from, c.to = got, now, end
		return
	}
	c.units, c.from, c.to = limits.RateOf(l.limit, 0).Earned(got), mark-got, mark
}

// spareSlots is how many slots may be held beside those in use: none where the
// limit is small or nearly used up, else as many again, and more where requests are
// short and many.
func (l *level) spareSlots(now time.Time, replicas int64) int64 {
	slots := l.limit.Amount
	used := int64(len(l.ids))
	if l.limit.Shadow || l.others+used > slots-slots/chunkFloor || !l.taken {
		return 0
	}
	lately := int64(l.chunk.takes.sum(now)) / (2 * chunkTakes)
	return min(slots/chunkPart, slots*chunkAll/100/max(1, replicas), used+1+lately)
}

// A meter is the sum of the last seconds, older parts counting less.
type meter struct {
	n  float64
	at time.Time
}

const meterTime = 2 * time.Second

func (m *meter) sum(now time.Time) float64 {
	if m.n == 0 {
		return 0
	}
	return m.n * math.Exp(-float64(now.Sub(m.at))/float64(meterTime))
}

func (m *meter) add(n float64, now time.Time) { m.n, m.at = m.sum(now)+n, now }
