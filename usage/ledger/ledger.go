// Package ledger keeps one row for each finished request in the database, and their
// sums by day. It answers what was used, by whom, and what it cost.
package ledger

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"penstock/database"
	"penstock/usage"
)

const (
	// maxBatch is how many rows are written in one transaction.
	maxBatch = 1000
	// writeFor bounds one transaction.
	writeFor = 15 * time.Second
	// Between attempts to write, the pause doubles from the one to the other.
	minPause = 50 * time.Millisecond
	maxPause = time.Second
	// logEvery is the least time between two lines about the same trouble.
	logEvery = 30 * time.Second
)

// Config says how a ledger works.
type Config struct {
	Flush     time.Duration // longest time that a row waits to be written
	Buffer    int           // rows held while the database cannot be written
	Retention time.Duration // how long rows are kept; 0 keeps them
	Metrics   Metrics
	Log       *slog.Logger
}

// Metrics are told what becomes of rows. They are safe for concurrent use.
type Metrics interface {
	LedgerWrote(rows int)
	LedgerDropped(rows int)
	LedgerFailed() // a transaction, which is tried again
}

// A Ledger writes rows in the background. It is safe for concurrent use.
type Ledger struct {
	db   *database.DB
	c    Config
	rows chan entry

	closing chan struct{} // closed by Close: write what is left, then end
	life    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup
	once    sync.Once

	mu     sync.Mutex
	failed time.Time // since when rows cannot be written; zero while they can
	logged time.Time
	lost   int // rows dropped since the last line about it
}

// An entry is a row, or what Sync waits for: a channel that is closed when the rows
// before it are written.
type entry struct {
	row     *usage.Row
	written chan struct{}
}

// New starts a ledger, which belongs to the caller: Close ends it. The database
// stays the caller's.
func New(db *database.DB, c Config) *Ledger {
	l := &Ledger{db: db, c: c, rows: make(chan entry, c.Buffer), closing: make(chan struct{})}
	l.life, l.end = context.WithCancel(context.Background())
	l.work.Go(l.write)
	if c.Retention > 0 {
		l.work.Go(l.retain)
	}
	return l
}

// Record hands a row over. It never waits: when the database has not been writable
// for so long that the buffer is full, the row is dropped and counted. The row must
// not be changed afterwards.
func (l *Ledger) Record(r *usage.Row) {
	select {
	case l.rows <- entry{row: r}:
	default:
		l.drop(1)
	}
}

// Sync waits until the rows that have been recorded by now are written, so that
// what is read afterwards misses none of them. It gives up when ctx ends, and does
// not wait while the database cannot be written, or when the ledger has ended.
func (l *Ledger) Sync(ctx context.Context) {
	written := make(chan struct{})
	if !l.Healthy() || l.life.Err() != nil {
		return
	}
	select {
	case l.rows <- entry{written: written}:
	case <-ctx.Done():
		return
	}
	select {
	case <-written:
	case <-ctx.Done():
	case <-l.life.Done():
	}
}

// Queued is how many rows wait to be written.
func (l *Ledger) Queued() int { return len(l.rows) }

// Healthy reports whether the last attempt to write succeeded.
func (l *Ledger) Healthy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed.IsZero()
}

// Close writes what has been recorded and ends the ledger. It reports an error when
// that did not succeed before ctx ended; what is left is then lost, and counted.
// Rows that are recorded from now on may be lost.
func (l *Ledger) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.closing) })
	stop := context.AfterFunc(ctx, l.end)
	l.work.Wait()
	stop()
	l.end()
	lost := 0
	for range len(l.rows) {
		if e := <-l.rows; e.row != nil {
			lost++
		}
	}
	if lost > 0 {
		l.c.Metrics.LedgerDropped(lost)
	}
	if l.Healthy() && lost == 0 {
		return nil
	}
	return errors.New("the usage of the last requests could not be written to the database")
}

// write is the one writer.
func (l *Ledger) write() {
	batch := make([]*usage.Row, 0, maxBatch)
	for {
		var written chan struct{}
		batch, written = l.gather(batch[:0])
		switch {
		case len(batch) > 0:
			l.store(batch)
		case written == nil:
			return
		}
		if written != nil {
			close(written)
		}
	}
}

// gather waits for rows, and then until there are many, the first has waited long
// enough, or somebody waits for them to be written. It returns neither when the
// ledger ends.
func (l *Ledger) gather(batch []*usage.Row) (_ []*usage.Row, written chan struct{}) {
	var due <-chan time.Time // from the first row on
	for len(batch) < maxBatch {
		var e entry
		select {
		case e = <-l.rows:
		case <-due:
			return batch, nil
		case <-l.closing:
			select { // what is left, without waiting
			case e = <-l.rows:
			default:
				return batch, nil
			}
		}
		if e.row == nil {
			return batch, e.written
		}
		if batch = append(batch, e.row); due == nil {
			timer := time.NewTimer(l.c.Flush)
			defer timer.Stop()
			due = timer.C
		}
	}
	return batch, nil
}

// store writes a batch, however long that takes. A batch that the database refuses
// for what it says is written row by row, so that the others are not lost with it.
func (l *Ledger) store(batch []*usage.Row) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := l.insert(batch)
		if err == nil {
			l.c.Metrics.LedgerWrote(len(batch))
			l.recovered()
			return
		}
		l.c.Metrics.LedgerFailed()
		l.trouble(err)
		switch {
		case database.Refused(err) && len(batch) == 1, l.life.Err() != nil:
			l.drop(len(batch))
			return
		case database.Refused(err):
			for i := range batch {
				l.store(batch[i : i+1])
			}
			return
		}
		l.sleep(pause)
	}
}

// sleep waits, unless the ledger gives up first.
func (l *Ledger) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.life.Done():
	}
}

func (l *Ledger) drop(n int) {
	l.c.Metrics.LedgerDropped(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += n
}

// trouble notes that rows cannot be written, and says so now and then.
func (l *Ledger) trouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.failed.IsZero() {
		l.failed = now
	}
	if now.Sub(l.logged) < logEvery {
		return
	}
	l.c.Log.Error("usage cannot be written to the database; requests go on, and rows are held until it can",
		"database", l.db.Name(), "error", err.Error(), "since", l.failed.UTC().Format(time.RFC3339), "queued", len(l.rows), "dropped", l.lost)
	l.logged, l.lost = now, 0
}

func (l *Ledger) recovered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed.IsZero() {
		return
	}
	l.c.Log.Info("usage is written to the database again", "database", l.db.Name(), "after", time.Since(l.failed).Round(time.Millisecond).String(), "dropped", l.lost)
	l.failed, l.logged, l.lost = time.Time{}, time.Time{}, 0
}
