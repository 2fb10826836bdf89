package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/clerkinvite/clerkinvite"
)

// Store is a [clerkinvite.Store] in one SQLite file. It is safe for concurrent use, and any number
// of processes of one machine may have the same file open.
//
// Within a process the writers queue; between processes SQLite's lock of the file decides, for
// which a call waits as long as its context lasts, and at most ten seconds. A call that ends with an
// error has written nothing, unless it was the disk that failed.
type Store struct {
	path string
	// db has as many connections as are asked for at once. Reading never waits for writing.
	db *sql.DB
	// writer has one, so that writers queue for it, in order, instead of polling for the lock.
	writer *sql.DB
}

var _ clerkinvite.Store = (*Store)(nil)

// pragmas are those of every connection, see the DSN in Open.
//
//   - busy_timeout: how long, in milliseconds, to wait for the lock of another process. The driver ends the
//     wait with the context.
//   - synchronous=FULL: a commit is on the disk before it is answered. With NORMAL, a power failure takes back the last
//     commits, and with them rows whose invitation Clerk has already sent: nothing would know of it any more.
//   - secure_delete: what Purge erases and a link that is forgotten are overwritten, not just unlinked.
//   - foreign_keys: the history cannot be without its member, nor outlive it.
var pragmas = []string{"busy_timeout(10000)", "synchronous(FULL)", "secure_delete(ON)", "foreign_keys(ON)"}

// Open returns the store in the file at path. It does no I/O: the file and its tables are
// there after [Store.Migrate]. The directory must be writable, since SQLite keeps two files beside the
// database while it is open, path-wal and path-shm. It is an error if path cannot be that of a file.
func Open(path string) (*Store, error) {
	if path == "" || path == ":memory:" || strings.HasPrefix(path, "file:") || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("sqlitestore: Open needs the path of a file, not %q; clerkinvitetest.NewMemoryStore is a store in memory", path)
	}
	abs, err := filepath.Abs(path) // connections are opened later, maybe in another directory
	if err != nil {
		return nil, err
	}
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/…
	}
	dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: slashed, RawQuery: url.Values{
		"mode": {"rw"}, // a wrong path is an error, and not a new and empty database
		// A transaction takes the write lock when it begins. One that reads first could not write
		// if another has written meanwhile.
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

// Close closes the file, after the calls under way. The last process to close it tidies up what SQLite
// keeps beside it; without Close nothing is lost either. Errors are SQLite's.
func (s *Store) Close() error { return errors.Join(s.writer.Close(), s.db.Close()) }

// Begin begins a transaction for the host's own tables in the file and for [Store.WithTx]. It holds the write lock
// of the file from its beginning, and everybody else who writes waits, so it must be short. If ctx ends before the commit, it is
// rolled back.
//
// It queues with the writes of the store, in order, so any number may be begun at once. A method of
// the Store that writes, and another Begin, waits for its end as long as the context lasts: from the goroutine that has to end it, for
// ever. Errors are the context's and SQLite's.
func (s *Store) Begin(ctx context.Context) (*sql.Tx, error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return tx, nil
}

// DB returns connections to the same file for the host's own tables. Statements that read wait for nobody.
// What writes does not queue as with [Store.Begin]: it tries again until it gets the lock, at most ten seconds long, and of many at
// once some may not get it. That is so for its transactions too, which take the lock when they begin.
//
// One with sql.TxOptions.ReadOnly begins without the lock, and is for reading. The driver does not stop it from
// writing: what it writes is committed, unless another has written since it began to read, which is SQLITE_BUSY at once.
//
// Store.Close closes it.
func (s *Store) DB() *sql.DB { return s.db }

// Insert implements [clerkinvite.TxStore].
func (s *Store) Insert(ctx context.Context, rows []*clerkinvite.Member) (results []clerkinvite.Result, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		results, err = insert(ctx, tx, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// Update implements [clerkinvite.TxStore].
func (s *Store) Update(ctx context.Context, changes []clerkinvite.Change) (results []clerkinvite.Result, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		results, err = update(ctx, tx, changes)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
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
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]*clerkinvite.Member, error) {
	found, err := due(ctx, s.db, at, limit)
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

// Backlog counts what waits at the given time, for a gauge or a health check. It reads
// by two indexes, and never more than 10,000 rows of each. Errors are SQLite's and the context's.
func (s *Store) Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error) {
	b, err := backlog(ctx, s.db, now)
	return b, s.explain(ctx, err)
}

// write calls f in a transaction of ours.
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

// explain returns the error of ctx if that has ended, and otherwise err with what helps.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if code(err) == sqlite3.SQLITE_BUSY_SNAPSHOT {
		return fmt.Errorf("sqlitestore: another has written since this transaction began to read; begin it with BEGIN IMMEDIATE: %w", err)
	}
	switch code(err) & 0xff { // the primary code
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("sqlitestore: a transaction or another process has kept the write lock of %s: %w", s.path, err)
	case sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("sqlitestore: cannot open %s (Migrate makes the file; its directory must be writable): %w", s.path, err)
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

// WithTx returns the part of the store that may be used inside a host's transaction, so that a member
// is reserved if and only if the host's own rows are written. It never commits or
// rolls back. A call that fails leaves nothing of its own behind in tx. No other goroutine may use tx meanwhile.
//
// SQLite itself may roll a whole transaction back when one of its statements is interrupted (by the end of its context, for
// example), finds the disk full, or says ROLLBACK, as INSERT OR ROLLBACK does. A [sql.Tx] does not know that, and what is
// executed on it afterwards is committed at once. The methods of the TxStore do know: they write nothing then and return an error that
// wraps [sql.ErrTxDone]. The host must roll back after any error of a statement that it does not expect.
//
// tx is one of [Store.Begin] or [Store.DB], or of another *sql.DB of the driver modernc.org/sqlite on the same
// file. There it should begin with BEGIN IMMEDIATE, as ours do
// (_txlock=immediate in the data source name): a transaction that reads first and writes later gets
// SQLITE_BUSY at once if another has written meanwhile, and only the host can repeat it.
// What tx writes is seen by others, [Store.Find] included, after its commit. The methods of Store that write wait
// for tx, so none may be called while tx is open by the goroutine that has it.
func (s *Store) WithTx(tx *sql.Tx) clerkinvite.TxStore { return &txStore{s, tx} }

type txStore struct {
	store *Store
	tx    *sql.Tx
}

// Insert implements [clerkinvite.TxStore].
func (s *txStore) Insert(ctx context.Context, rows []*clerkinvite.Member) (results []clerkinvite.Result, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	err = s.savepoint(ctx, func() error {
		results, err = insert(ctx, s.tx, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// Update implements [clerkinvite.TxStore].
func (s *txStore) Update(ctx context.Context, changes []clerkinvite.Change) (results []clerkinvite.Result, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	err = s.savepoint(ctx, func() error {
		results, err = update(ctx, s.tx, changes)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// savepoint calls f inside of a savepoint of the host's transaction.
func (s *txStore) savepoint(ctx context.Context, f func() error) error {
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
	err := f()
	if err == nil {
		_, err = s.tx.ExecContext(uninterrupted, "RELEASE clerkinvite")
	}
	if err != nil {
		err = s.store.explain(ctx, err)
		// These fail in a transaction that SQLite has rolled back already: the disk is full or broken.
		_, _ = s.tx.ExecContext(uninterrupted, "ROLLBACK TO clerkinvite")
		_, _ = s.tx.ExecContext(uninterrupted, "RELEASE clerkinvite")
	}
	return err
}

// open returns an error unless the host's transaction is open for SQLite too, and not for its [sql.Tx] only. Outside of one,
// SAVEPOINT would begin a transaction and RELEASE commit it: a member without the host's rows.
//
// It asks by a BEGIN, which in an open transaction is an error that changes nothing, and otherwise takes no
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

var errRolledBack = fmt.Errorf("sqlitestore: SQLite has ended the host's transaction already, after a statement of it that was interrupted "+
	"or failed: nothing is written, roll back and repeat the whole transaction: %w", sql.ErrTxDone)
