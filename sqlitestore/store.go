package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/clerkinvite/clerkinvite"
)

// Store is a [clerkinvite.Store] in one SQLite file. It is safe for concurrent use, and any number
// of processes on one machine may have the file open.
//
// Writers queue within a process. Between processes they wait for SQLite's file lock, until their
// context ends and at most ten seconds. A call that returns an error has written nothing, unless the
// disk failed.
type Store struct {
	path string
	// db has any number of connections. Readers never wait for the writer.
	db *sql.DB
	// writer has one connection, so writers queue for it in order instead of polling for the lock.
	writer *sql.DB
}

var _ clerkinvite.Store = (*Store)(nil)

// pragmas are set on every connection, see the DSN in Open.
//
//   - busy_timeout: how many milliseconds to wait for the lock of another process. The driver ends the wait
//     with the context.
//   - synchronous=FULL: a commit is on disk before it returns. With NORMAL, a power failure could undo the last
//     commits, and with them rows whose invitation Clerk has already sent.
//   - secure_delete: erased members and forgotten links are overwritten, not just unlinked.
//   - foreign_keys: a history entry needs its member.
var pragmas = []string{"busy_timeout(10000)", "synchronous(FULL)", "secure_delete(ON)", "foreign_keys(ON)"}

// Open returns a store in the file at path. It does no I/O; [Store.Migrate] creates the file and its
// tables. The directory must be writable, because SQLite keeps two more files there while the database
// is open, path-wal and path-shm. Open returns an error if path cannot be the path of a file.
func Open(path string) (*Store, error) {
	if path == "" || path == ":memory:" || strings.HasPrefix(path, "file:") || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("sqlitestore: Open: invalid path %q: must be the path of a file (clerkinvitetest.NewMemoryStore returns a store in memory)", path)
	}
	abs, err := filepath.Abs(path) // the working directory may change before a connection is opened
	if err != nil {
		return nil, err
	}
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/…
	}
	dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: slashed, RawQuery: url.Values{
		"mode": {"rw"}, // a wrong path is an error, not a new database
		// A transaction takes the write lock when it begins. If it read first, it could not write
		// after another transaction has written.
		"_txlock": {"immediate"},
		"_pragma": pragmas,
	}.Encode()}).String()
	s := &Store{path: abs}
	if s.db, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	s.db.SetMaxIdleConns(8)
	if s.writer, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	s.writer.SetMaxOpenConns(1)
	return s, nil
}

// Close closes the file after the current calls. The last process that closes it removes path-wal and
// path-shm. Without Close nothing is lost. Errors are SQLite's.
func (s *Store) Close() error { return errors.Join(s.writer.Close(), s.db.Close()) }

// Begin begins a transaction for the host's tables in the file and for [Store.WithTx]. It must be
// short, because it keeps the file's write lock and all other writers wait. If ctx ends before the
// commit, it is rolled back.
//
// It queues with the writes of the store, in order, so any number of goroutines may call it. Other
// calls of Begin, and methods of the Store that write, wait for the end of the transaction. If the
// goroutine that must end the transaction calls them, they wait forever. Errors are the context's and
// SQLite's.
func (s *Store) Begin(ctx context.Context) (*sql.Tx, error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return tx, nil
}

// DB returns connections to the file for the host's tables. Statements that read do not wait.
// Statements and transactions that write do not queue as with [Store.Begin]: they poll for the lock, for
// at most ten seconds, and may fail if there are many of them. A transaction takes the lock when it
// begins.
//
// A transaction with sql.TxOptions.ReadOnly begins without the lock and is for reading. The driver does
// not prevent writes in it: a write is committed, or fails with SQLITE_BUSY if another transaction has
// written since this one began to read.
//
// Store.Close closes the connections.
func (s *Store) DB() *sql.DB { return s.db }

// Insert implements [clerkinvite.TxStore].
func (s *Store) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return written(ctx, s.write, insert, rows)
}

// Update implements [clerkinvite.TxStore].
func (s *Store) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return written(ctx, s.write, update, changes)
}

// Find implements [clerkinvite.Store].
func (s *Store) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	found, err := find(ctx, s.db, q)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return found, nil
}

// Due implements [clerkinvite.Store].
func (s *Store) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	found, err := due(ctx, s.db, q)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return found, nil
}

// Page implements [clerkinvite.Store].
func (s *Store) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	found, err := page(ctx, s.db, q)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return found, nil
}

// Counts implements [clerkinvite.Store].
func (s *Store) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	found, err := counts(ctx, s.db, tenantID)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return found, nil
}

// History implements [clerkinvite.Store].
func (s *Store) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	entries, err := history(ctx, s.db, tenantID, id)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return entries, nil
}

// SwapTime implements [clerkinvite.Store].
func (s *Store) SwapTime(ctx context.Context, name string, old, next time.Time) (known time.Time, err error) {
	if next.IsZero() || micros(next) == micros(old) {
		known, err = readTime(ctx, s.db, name)
		return known, s.explain(ctx, err)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		known, err = swapTime(ctx, tx, name, old, next)
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	return known, nil
}

// Clock implements [clerkinvite.Store]. It returns the zero time: all processes with this store run on
// one machine, and share its clock already.
func (s *Store) Clock(ctx context.Context) (time.Time, error) { return time.Time{}, ctx.Err() }

// Backlog counts the members that wait at the given time, for a gauge or a health check. It reads at
// most 10,000 rows of each of two indexes. Errors are SQLite's and the context's.
func (s *Store) Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error) {
	b, err := backlog(ctx, s.db, now)
	return b, s.explain(ctx, err)
}

// written writes rows in a transaction or savepoint, which in begins and ends. If the database refuses
// rows, it bisects the batch to isolate them, so that the other rows are written.
func written[T any](ctx context.Context, in func(context.Context, func(*sql.Tx) error) error,
	write func(context.Context, *sql.Tx, []T) ([]clerkinvite.Result, error), rows []T,
) (results []clerkinvite.Result, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	err = in(ctx, func(tx *sql.Tx) error {
		results, err = write(ctx, tx, rows)
		return err
	})
	switch {
	case err == nil:
		return results, nil
	case !refused(err):
		return nil, err
	case len(rows) == 1:
		return []clerkinvite.Result{{Err: err}}, nil
	}
	n := len(rows) / 2
	first, err := written(ctx, in, write, rows[:n])
	if err != nil {
		return nil, err
	}
	second, err := written(ctx, in, write, rows[n:])
	switch {
	case errors.Is(err, sql.ErrTxDone): // the host's transaction has been rolled back, with the first half
		return nil, err
	case err != nil: // the first half may be written, so the call has not failed
		second = slices.Repeat([]clerkinvite.Result{{Err: err}}, len(rows)-n)
	}
	return append(first, second...), nil
}

// refused reports whether a row may have caused the error: a constraint, RAISE or a function in a trigger
// of the host, or text that checkText rejects.
func refused(err error) bool {
	switch code(err) & 0xff { // the primary code
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return !errors.Is(err, sql.ErrTxDone)
	}
	return errors.Is(err, errText)
}

// write calls f in a transaction.
func (s *Store) write(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(tx); err != nil {
		return s.explain(ctx, err)
	}
	return s.explain(ctx, tx.Commit())
}

// explain returns the error of ctx if it has ended, otherwise err with an explanation.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if code(err) == sqlite3.SQLITE_BUSY_SNAPSHOT {
		return fmt.Errorf("sqlitestore: another transaction has written since this one began to read; begin it with BEGIN IMMEDIATE: %w", err)
	}
	switch code(err) & 0xff { // the primary code
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("sqlitestore: another transaction or process has the write lock of %s: %w", s.path, err)
	case sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("sqlitestore: cannot open %s (Migrate creates the file; its directory must be writable): %w", s.path, err)
	}
	return err
}

// code returns SQLite's extended result code, or 0 if err is not SQLite's.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// WithTx returns the part of the store that works inside a host's transaction: a member is reserved if
// and only if the host's rows are written. It never commits or rolls back. A call that fails writes
// nothing in tx. No other goroutine may use tx during a call.
//
// SQLite may roll the whole transaction back when a statement is interrupted (for example because its
// context ends), finds the disk full, or uses ROLLBACK, as INSERT OR ROLLBACK does. A [sql.Tx] does not
// notice that, and later statements on it are committed immediately. The methods of the TxStore do
// notice: they write nothing and return an error that wraps [sql.ErrTxDone]. The host must roll back
// after any unexpected error of a statement.
//
// tx is from [Store.Begin] or [Store.DB], or from another *sql.DB of the driver modernc.org/sqlite on
// the same file. Such a transaction should begin with BEGIN IMMEDIATE, as ours do (_txlock=immediate in
// the data source name). Otherwise, if it reads first and writes later, it gets SQLITE_BUSY immediately
// if another transaction has written in between, and only the host can repeat it.
//
// Others, [Store.Find] included, see the writes of tx after its commit. Methods of the Store that write
// wait for tx, so the goroutine that has tx must not call them while tx is open.
func (s *Store) WithTx(tx *sql.Tx) clerkinvite.TxStore { return &txStore{s, tx} }

type txStore struct {
	store *Store
	tx    *sql.Tx
}

// Clock implements [clerkinvite.TxStore].
func (s *txStore) Clock(ctx context.Context) (time.Time, error) { return s.store.Clock(ctx) }

// Insert implements [clerkinvite.TxStore].
func (s *txStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return written(ctx, s.savepoint, insert, rows)
}

// Update implements [clerkinvite.TxStore].
func (s *txStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return written(ctx, s.savepoint, update, changes)
}

// savepoint calls f inside a savepoint in the host's transaction.
func (s *txStore) savepoint(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	uninterrupted := context.WithoutCancel(ctx)
	if err := s.open(uninterrupted); err != nil {
		return s.store.explain(ctx, err)
	}
	if _, err := s.tx.ExecContext(uninterrupted, "SAVEPOINT clerkinvite"); err != nil {
		return s.store.explain(ctx, err)
	}
	err := f(s.tx)
	if err == nil {
		_, err = s.tx.ExecContext(uninterrupted, "RELEASE clerkinvite")
	}
	if err != nil {
		err = s.store.explain(ctx, err)
		// These fail in a transaction that SQLite has rolled back already: the disk is full or broken.
		_, _ = s.tx.ExecContext(uninterrupted, "ROLLBACK TO clerkinvite")
		_, _ = s.tx.ExecContext(uninterrupted, "RELEASE clerkinvite")
		if ended := s.open(uninterrupted); ended != nil {
			err = fmt.Errorf("%w: %w", err, ended)
		}
	}
	return err
}

// open returns an error unless the host's transaction is open in SQLite, too, and not only in its
// [sql.Tx]. Outside a transaction, SAVEPOINT would begin one and RELEASE would commit it: a member
// without the host's rows.
//
// It tries a BEGIN. In an open transaction that is an error and changes nothing; otherwise it takes no
// lock. DEFERRED makes it an error in any other database, where BEGIN may commit.
func (s *txStore) open(ctx context.Context) error {
	_, err := s.tx.ExecContext(ctx, "BEGIN DEFERRED")
	switch {
	case err == nil:
		_, err = s.tx.ExecContext(ctx, "ROLLBACK")
		return errors.Join(errRolledBack, err)
	case code(err) == sqlite3.SQLITE_ERROR:
		return nil
	case errors.Is(err, sql.ErrTxDone):
		return err
	}
	return fmt.Errorf("sqlitestore: cannot tell whether the host's transaction is open; it must be one of modernc.org/sqlite: %w", err)
}

var errRolledBack = fmt.Errorf("sqlitestore: SQLite has already rolled back the host's transaction, after a statement that was interrupted "+
	"or failed; nothing is written; roll back and repeat the whole transaction: %w", sql.ErrTxDone)
