package limits

import (
	"fmt"
	"strings"
	"time"
)

// A budget is spent in fixed windows and is whole again when the next one begins:
// calendar months or spans of days, both in UTC. A request counts in the window in
// which it was admitted, whatever it turns out to cost and whenever it ends.

// anchor is the Monday from which spans of days are counted, so that weeks begin on
// Mondays: 1970-01-05, in microseconds since 1970.
const anchor = 4 * day

const day = micros(24 * time.Hour / time.Microsecond)

// WindowAt returns the start and the end of the window that contains a time, all in
// microseconds since 1970. The end belongs to the next window.
func (l *Limit) WindowAt(at micros) (start, end micros) {
	if l.Monthly {
		t := time.UnixMicro(at).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		return first.UnixMicro(), first.AddDate(0, 1, 0).UnixMicro()
	}
	length := max(l.Window.Microseconds(), 1)
	since := (at - anchor) % length
	if since < 0 {
		since += length
	}
	return at - since, at - since + length
}

// Period is the window as people say it.
func (l *Limit) Period() string {
	if l.Monthly {
		return "month"
	}
	for _, unit := range [...]struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := l.Window / unit.length; {
		case l.Window%unit.length != 0:
		case n == 1:
			return unit.name
		case n > 1:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return l.Window.String()
}

// A Purse is the state of a budget: what was charged since its window began. It is
// all that a store keeps, so that every store gives the same verdicts: a charge of
// n fits when Spent + n is at most the limit's Amount.
type Purse struct {
	Start micros // of the window
	Spent int64  // millionths of a US dollar
}

// At is the purse at a time: empty when a new window has begun. A clock that steps
// back does not open an old window again.
func (p Purse) At(l *Limit, at micros) Purse {
	if start, _ := l.WindowAt(at); start > p.Start {
		return Purse{Start: start}
	}
	return p
}

// Left is how long the purse's window lasts from a time on.
func (p Purse) Left(l *Limit, at micros) micros {
	_, end := l.WindowAt(p.Start)
	return max(end-at, 0)
}

// USD writes an amount in millionths of a US dollar, rounded to what matters: $100,
// $0.25, $0.000013.
func USD(micro int64) string {
	sign := ""
	if micro < 0 {
		sign, micro = "-", -micro
	}
	whole, rest := micro/1e6, micro%1e6
	switch {
	case rest == 0:
		return fmt.Sprintf("%s$%d", sign, whole)
	case rest%10_000 == 0:
		return fmt.Sprintf("%s$%d.%02d", sign, whole, rest/10_000)
	}
	return strings.TrimRight(fmt.Sprintf("%s$%d.%06d", sign, whole, rest), "0")
}

// Moment tells when so much time will have passed, by the calendar.
func Moment(after time.Duration) string {
	return time.Now().Add(after).UTC().Round(time.Second).Format(time.RFC3339)
}
