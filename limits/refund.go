package limits

import "sort"

// A reservation that was too large is refunded, but not always whole. While it
// stood, the bucket filled up again, and what it would have lost at its brim
// without the reservation, it has lost at the provider. Giving that back as well
// would let more through than the provider does: a burst's worth, where requests
// are first taken for long and turn out to be short.
//
// In the terms of a queue: a bucket's charges are work that is done at its rate,
// and ahead is the work left. With less work the same server would have been idle
// earlier, so a refund is at most the least that was left at any time since.

// A span is the time from the turn from to the next span, in which the work left
// was never below low. Turns count the changes of buckets, so they order those of
// one instant as well.
type span struct {
	from int64
	low  micros
	open int // reservations made in the span that have not ended
}

// A Past is the recent past of one bucket: from and low ascend, because what comes
// before a lower low looks back on that one too. There are as few as the open
// reservations need.
type Past []span

// Reserve opens a reservation: the turn is that of its charge.
func (s *Past) Reserve(turn int64) { *s = append(*s, span{turn, maxMicros, 1}) }

// Note notes what is left to pay, before a change.
func (s *Past) Note(left micros) {
	last := len(*s) - 1
	if last < 0 {
		return
	}
	(*s)[last].low = min((*s)[last].low, left)
	s.tidy(last)
}

// Refund is how much of n may be given back of what was charged in a turn, once
// what is left now has been noted. It changes the past as if the charge had been
// smaller from the start.
func (s *Past) Refund(turn int64, n micros, ends bool) micros {
	all := *s
	i := sort.Search(len(all), func(i int) bool { return all[i].from > turn }) - 1
	if i < 0 {
		return 0
	}
	n = min(n, all[i].low)
	for j := i; j < len(all); j++ {
		all[j].low -= n
	}
	if ends {
		all[i].open--
	}
	s.tidy(i)
	return n
}

// tidy makes lows ascend again at a span that sank, and drops it if nobody looks
// back on it any more.
func (s *Past) tidy(i int) {
	all := *s
	for i > 0 && all[i-1].low >= all[i].low {
		all[i].from, all[i].open = all[i-1].from, all[i].open+all[i-1].open
		all = append(all[:i-1], all[i:]...)
		i--
	}
	if all[i].open <= 0 {
		all = append(all[:i], all[i+1:]...)
	}
	*s = all
}
