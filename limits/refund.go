package limits

// A reservation that was too large is refunded, but not always whole. While it
// stood, the bucket filled up again, and what it would have lost at its brim
// without the reservation, it has lost at the provider. Giving that back as well
// would let more through than the provider does: a burst's worth, where requests
// are first taken for long and turn out to be short.
//
// In the terms of a queue: a bucket's charges are work that is done at its rate,
// and ahead is the work left. With less work the same server would have been idle
// earlier, so a refund is at most the least that was left at any time since.

// maxLows bounds what is remembered of a bucket's past.
const maxLows = 64

// A low says that the work left has not been below ahead since the turn at. Turns
// count the changes of buckets, so they order those of one instant as well.
type low struct {
	at    int64
	ahead micros
}

// lows are the lows of one bucket, both at and ahead ascending: a low that a later
// one undercuts says nothing any more.
type lows []low

// note adds what is left, as the turn at begins. When there are too many, the two that differ
// least become one, which errs towards a smaller refund.
func (l *lows) note(at int64, ahead micros) {
	s := *l
	for len(s) > 0 && s[len(s)-1].ahead >= ahead {
		s = s[:len(s)-1]
	}
	s = append(s, low{at, ahead})
	if len(s) > maxLows {
		least := 1
		for i := 2; i < len(s); i++ {
			if s[i].ahead-s[i-1].ahead < s[least].ahead-s[least-1].ahead {
				least = i
			}
		}
		s[least].ahead = s[least-1].ahead
		s = append(s[:least-1], s[least:]...)
	}
	*l = s
}

// refund is how much of n may be given back of what was charged in the turn at,
// once what is left now has been noted. It lowers what is remembered as if the charge had
// been smaller from the start.
func (l *lows) refund(at int64, n micros) micros {
	s := *l
	first := 0
	for first < len(s) && s[first].at <= at {
		first++
	}
	if first == len(s) {
		return 0
	}
	n = min(n, s[first].ahead)
	for i := first; i < len(s); i++ {
		s[i].ahead -= n
	}
	kept := first
	for kept > 0 && s[kept-1].ahead >= s[first].ahead {
		kept--
	}
	*l = append(s[:kept], s[first:]...)
	return n
}
