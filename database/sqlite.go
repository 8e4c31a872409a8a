package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite" // the driver, named sqlite
)

// applicationID marks a file as Penstock's: "PSTK".
const applicationID = 0x5053544b

// checkFor bounds the integrity check at the start, which reads the whole file. A
// file too large for it has been looked at in part.
const checkFor = 3 * time.Second

// connection are the settings of every connection to an SQLite file.
//
// synchronous=FULL syncs the log at every commit: what was answered 2xx (a key, a
// team) survives a power cut. The ledger pays for one sync in a batch, about once a
// second.
//
// Transactions begin immediate, because one that reads first and writes later fails
// at once when another writes.
const connection = "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)&_pragma=journal_size_limit(67108864)"

func dsn(path, more string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + connection + more
}

func openSQLite(ctx context.Context, path string, change bool) (*DB, error) {
	path = strings.TrimPrefix(strings.TrimPrefix(path, "sqlite://"), "sqlite:")
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist) && change:
		if err := createSQLite(ctx, path); err != nil {
			return nil, fmt.Errorf("database %s: create it: %w; its directory has to exist and be writable", path, err)
		}
	case err != nil:
		return nil, fmt.Errorf("database: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("database %s: not a regular file; set database.url to the path of a file", path)
	case info.Size() == 0:
		return nil, fmt.Errorf("database %s: the file is empty, which Penstock's never is; restore a backup, or delete the file to begin anew", path)
	}
	db := &DB{name: path}
	if db.write, err = sql.Open("sqlite", dsn(path, "&_pragma=journal_mode(WAL)")); err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn(path, "&_pragma=query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), db.write.Close())
	}
	db.read.SetMaxOpenConns(4)
	if err := db.recognise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), db.Close())
	}
	if db.file, err = os.Stat(path); err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	return db, nil
}

// InPlace reports an error when the SQLite file is not at its path any more: it was
// moved, deleted or replaced. The system would let the process go on in the file that
// it has open, and all that is written there would be missing after a restart.
func (db *DB) InPlace() error {
	if db.file == nil {
		return nil
	}
	now, err := os.Stat(db.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the file %s was moved or deleted; put it back, or restart to begin anew", db.name)
	case err == nil && !os.SameFile(db.file, now):
		return fmt.Errorf("the file %s is another one than was opened; put the former one back, or restart to go on with this one", db.name)
	}
	return nil
}

// createSQLite makes the file under another name and moves it into place when it is
// whole, so that one that exists is never half made.
func createSQLite(ctx context.Context, path string) error {
	draft := path + ".new"
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if err := os.Remove(draft + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	pool, err := sql.Open("sqlite", dsn(draft, ""))
	if err != nil {
		return err
	}
	pool.SetMaxOpenConns(1)
	db := &DB{write: pool, read: pool, name: path}
	if _, err := pool.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return errors.Join(err, pool.Close())
	}
	if err := db.schema(ctx, true); err != nil {
		return errors.Join(err, pool.Close())
	}
	if err := pool.Close(); err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// recognise refuses a file that is damaged or not Penstock's.
func (db *DB) recognise(ctx context.Context) error {
	const advice = "restore a backup, or set database.url to another file"
	var id int64
	if err := db.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return fmt.Errorf("cannot be read (%w); %s", err, advice)
	}
	if id != applicationID {
		return errors.New("belongs to another program; " + advice)
	}
	bounded, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	var result string
	err := db.write.QueryRowContext(bounded, "PRAGMA quick_check(1)").Scan(&result)
	switch {
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		return nil // a large file, sound so far
	case err != nil:
		return fmt.Errorf("is damaged (%w); %s", err, advice)
	case result != "ok":
		return fmt.Errorf("is damaged (%s); %s", strings.ReplaceAll(result, "\n", " "), advice)
	}
	return nil
}

// The primary result codes (sqlite.org/rescode.html) that say that the data itself
// was refused.
var sqliteRefusals = map[int]bool{18: true, 19: true, 20: true, 25: true} // TOOBIG, CONSTRAINT, MISMATCH, RANGE

func sqliteRefused(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && sqliteRefusals[e.Code()&0xff]
}
