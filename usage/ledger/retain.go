package ledger

import (
	"context"
	"math/rand/v2"
	"time"

	"penstock/database"
)

const (
	// keepDays is how long sums are kept at least.
	keepDays = 400 * day
	// perDelete is how many rows one transaction deletes, so that the writer is not
	// held up.
	perDelete = 2000
	// retainEvery is how often old rows are looked for.
	retainEvery = time.Hour
)

// retain deletes what is older than it has to be. Several gateways may do so at
// once.
func (l *Ledger) retain() {
	pause := rand.N(time.Minute) // not all replicas at once
	for {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.closing:
			timer.Stop()
			return
		}
		pause = retainEvery
		if n, err := l.Expire(time.Now()); err != nil {
			l.c.Log.Warn("old rows of the usage ledger could not be deleted; they will be tried again", "database", l.db.Name(), "error", err.Error())
		} else if n > 0 {
			l.c.Log.Info("old rows of the usage ledger are deleted", "database", l.db.Name(), "rows", n)
		}
	}
}

// Expire deletes the rows, and the sums, that are too old at a moment. It returns
// how many rows that were.
func (l *Ledger) Expire(now time.Time) (rows int64, err error) {
	until := now.Add(-l.c.Retention).UnixMicro()
	for {
		n, err := l.change("DELETE FROM usage_rows WHERE request_id IN (SELECT request_id FROM usage_rows WHERE began_at < ? ORDER BY began_at LIMIT ?)", until, perDelete)
		rows += n
		if err != nil {
			return rows, err
		}
		if n < perDelete {
			break
		}
		select {
		case <-l.closing:
			return rows, nil
		default:
		}
	}
	_, err = l.change("DELETE FROM usage_days WHERE day < ?", dayOf(now.Add(-max(keepDays, l.c.Retention+day))))
	return rows, err
}

func (l *Ledger) change(query string, args ...any) (n int64, err error) {
	ctx, cancel := context.WithTimeout(l.life, writeFor)
	defer cancel()
	err = l.db.Write(ctx, func(tx *database.Tx) error {
		result, err := tx.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, err
}
