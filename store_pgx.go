package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// PgxDB is the database of a [PgxStore]: a *pgxpool.Pool, or a *pgx.Conn if the program calls
// the library from only one goroutine at a time ([Service.Run] uses two). It must not be a
// transaction, because the library calls Clerk between two statements. To write in a
// transaction, see [PgxStore.WithTx].
type PgxDB interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// PgxOptions are the options of [NewPgxStore].
type PgxOptions struct {
	// Schema is the schema of the tables. It is one identifier as PostgreSQL stores it:
	// without quotes, and case-sensitive. By default, the connections' search_path decides.
	Schema string

	// Now replaces PostgreSQL's clock ([PgxStore.Clock]) in tests: set it to Config.Now.
	Now func() time.Time

	// OnChange keeps the host's tables in sync with the members. It is called after the
	// statement that made the changes, in the same transaction: its writes in tx are committed
	// if and only if the changes are.
	//
	// It gets copies of all changes that the history records. A new member has no Old, and
	// an erased member has no New. It is not called for claims, postponed attempts,
	// changes of Data, or repeats of a change that is already stored.
	//
	// If it returns an error, the changes are rolled back. The batch is then split to
	// isolate the failing members. They get the error, and a later delivery retries them.
	// So OnChange may be called several times for one change, each time after its earlier
	// writes were rolled back. If it panics, the same happens, and then the panic continues.
	//
	// OnChange is called concurrently. It must be quick, because it runs while row locks and a
	// connection are held. It must not call Clerk or the Service, and must not commit or roll
	// back tx. Outside WithTx its context has a deadline, so that one member cannot delay the
	// others for long.
	//
	// With OnChange, each Insert or Update with recorded changes uses a READ COMMITTED
	// transaction instead of a single statement. Within WithTx it uses a savepoint.
	OnChange func(ctx context.Context, tx pgx.Tx, changes []Change) error
}

// PgxStore is a [Store] in PostgreSQL 14 or newer.
//
// It works with every query execution mode of pgx. It keeps no session locks or settings, so it
// works with PgBouncer in transaction mode: see docs/performance.md for pgx's default mode, which
// prepares statements. The host sets the timeouts of statements and locks.
//
// If the response to a statement is lost, the statement may or may not have taken effect.
// Outside a host's transaction the store repeats it for one to two seconds, within the caller's
// context, and writes nothing twice. It also repeats it after a deadlock or a serialization failure.
type PgxStore struct {
	db       PgxDB
	schema   string
	onChange onChange
	now      func() time.Time
	sql      pgxSQL

	hookRecorded *atomic.Bool // a pointer, because a PgxStore can be printed by value
}

var _ Store = (*PgxStore)(nil)

// NewPgxStore returns a store on db. It does no I/O; opts may be nil. [PgxStore.Migrate], or
// the SQL of [Migrations], creates the tables.
func NewPgxStore(db PgxDB, opts *PgxOptions) *PgxStore {
	s := &PgxStore{db: db, hookRecorded: new(atomic.Bool)}
	if opts != nil {
		s.schema, s.onChange, s.now = opts.Schema, opts.OnChange, opts.Now
	}
	s.sql = newPgxSQL(s.schema)
	return s
}

// WithTx returns a TxStore that writes in the host's transaction, so that a member is reserved
// if and only if the host's rows are written. It never commits, rolls back or repeats anything.
//
// Insert waits for other open transactions that reserve the same address. In READ COMMITTED
// it then returns the usual result. In REPEATABLE READ and SERIALIZABLE, PostgreSQL returns
// 40001 for an address that was committed after the snapshot; retry the whole transaction.
//
// If two transactions reserve the same addresses in different orders, they deadlock, and
// PostgreSQL aborts one with 40P01; retry the whole transaction. ReserveMany and Adopt sort their
// addresses, so a single call per transaction avoids this for people who have no row yet.
func (s *PgxStore) WithTx(tx pgx.Tx) TxStore { return &pgxWriter{s, tx} }

// Insert implements [TxStore].
func (s *PgxStore) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	return (&pgxWriter{store: s}).Insert(ctx, rows)
}

// Update implements [TxStore].
func (s *PgxStore) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return (&pgxWriter{store: s}).Update(ctx, changes)
}

// pgxWriter inserts and updates members, in the host's transaction or, if tx is nil, outside it.
type pgxWriter struct {
	store *PgxStore
	tx    pgx.Tx
}

// Insert implements [TxStore].
func (w *pgxWriter) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	return splitting(rows, func(rows []*Member) (results []Result, err error) {
		input, err := pgxRows(rows)
		if err != nil {
			return nil, err
		}
		begin := w.store.onChange != nil
		err = w.write(ctx, begin, len(rows), func(db pgxQuerier, _ bool) (applied []Change, err error) {
			results, applied, err = w.store.sql.insert(ctx, db, input)
			return applied, err
		})
		return results, w.fault(err, begin)
	})
}

// Update implements [TxStore].
func (w *pgxWriter) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return splitting(changes, func(changes []Change) (results []Result, err error) {
		input, err := pgxChanges(changes)
		if err != nil {
			return nil, err
		}
		// If another member has the user or the address, the statement fails. Without a savepoint, the host's transaction would fail, too.
		begin := w.store.onChange.wants(changes) || w.tx != nil && slices.ContainsFunc(changes, Change.setsKey)
		err = w.write(ctx, begin, len(changes), func(db pgxQuerier, mayBeApplied bool) (applied []Change, err error) {
			results, applied, err = w.store.sql.update(ctx, db, changes, input, mayBeApplied)
			return applied, err
		})
		return results, w.fault(w.store.sql.explain(ctx, w.db(), changes, err), begin)
	})
}

// fault returns the error of a statement, as a rowError if one of its rows caused it. In the host's
// transaction without a savepoint it returns no rowError, because nothing can be written after an error.
func (w *pgxWriter) fault(err error, begin bool) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || w.tx != nil && !begin {
		return err
	}
	if again, _ := sqlFailure(err); again {
		return err
	}
	switch class := pg.Code[:min(2, len(pg.Code))]; {
	case class == "22", class == "23", class == "44", class == "P0", // invalid data, a constraint, a view's check, RAISE in a trigger
		strings.Contains(pg.Where, "clerkinvite_mirror()"):
		return rowError{err}
	}
	return err
}

// write calls f, which writes a batch of n rows, in a transaction or savepoint if begin. It calls f again
// if the response was lost, but not in the host's transaction, which is then lost, too. Batches that
// exchange addresses could deadlock again and again, so the second deadlock is a rowError: halves
// of the batch hold fewer locks.
func (w *pgxWriter) write(ctx context.Context, begin bool, n int, f func(db pgxQuerier, mayBeApplied bool) (applied []Change, err error)) error {
	once := func(mayBeApplied bool) error {
		write := func(db pgxQuerier) ([]Change, error) { return f(db, mayBeApplied) }
		if begin {
			if err := w.recordHook(ctx); err != nil {
				return err
			}
			return w.store.onChange.inTx(ctx, w.tx == nil, w.begin, write)
		}
		_, err := write(w.db())
		return err
	}
	if w.tx != nil {
		return once(false)
	}
	deadlocks := 0
	return w.store.repeat(ctx, func(mayBeApplied bool) error {
		err := once(mayBeApplied)
		if !isDeadlock(err) {
			return err
		}
		if deadlocks++; deadlocks > 1 && n > 1 {
			return rowError{err}
		}
		return err
	})
}

func isDeadlock(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40P01"
}

// recordHook records in the database that the host uses OnChange, once per store. The command
// clerkinvite cannot call the hook, so it then refuses to change members. recordHook does nothing in a
// host's transaction, which may be rolled back or take long. A delivery outside it will record the hook.
func (w *pgxWriter) recordHook(ctx context.Context) error {
	if w.store.onChange == nil || w.tx != nil || w.store.hookRecorded.Load() {
		return nil
	}
	now, err := w.Clock(ctx)
	if err == nil {
		_, err = w.store.sql.swapTime(ctx, w.db(), storeutil.HookTime, time.Time{}, now)
	}
	w.store.hookRecorded.Store(err == nil)
	return err
}

// begin begins a savepoint in the host's transaction, or a new transaction. The new transaction is
// READ COMMITTED regardless of the connection's default, so that a second statement can see why the
// first changed nothing.
func (w *pgxWriter) begin(ctx context.Context) (pgx.Tx, error) {
	if w.tx != nil {
		return w.tx.Begin(ctx)
	}
	return w.store.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
}

func (w *pgxWriter) db() pgxQuerier {
	if w.tx != nil {
		return w.tx
	}
	return w.store.db
}

// Clock implements [Store] with PostgreSQL's clock.
func (s *PgxStore) Clock(ctx context.Context) (time.Time, error) {
	return (&pgxWriter{store: s}).Clock(ctx)
}

// Clock implements [TxStore].
func (w *pgxWriter) Clock(ctx context.Context) (at time.Time, err error) {
	if w.store.now != nil {
		return w.store.now(), ctx.Err()
	}
	read := func(bool) error {
		at, err = queryOne[time.Time](ctx, w.db(), "SELECT clock_timestamp()")
		return err
	}
	if w.tx != nil {
		err = read(false)
	} else {
		err = w.store.repeat(ctx, read)
	}
	return at.UTC(), err
}

// Find implements [Store].
func (s *PgxStore) Find(ctx context.Context, q Query) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.find(ctx, s.db, q)
		return err
	})
	return found, err
}

// Due implements [Store].
func (s *PgxStore) Due(ctx context.Context, q DueQuery) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.due(ctx, s.db, q)
		return err
	})
	return found, err
}

// Page implements [Store].
func (s *PgxStore) Page(ctx context.Context, q PageQuery) (found []*Member, err error) {
	sql, arg, err := s.sql.page(q)
	if err != nil || sql == "" {
		return nil, err
	}
	err = s.repeat(ctx, func(bool) error {
		found, err = queryMembers(ctx, s.db, sql, arg)
		return err
	})
	// SQL does not guarantee the order of rows from a join.
	slices.SortFunc(found, func(a, b *Member) int {
		return cmp.Or(strings.Compare(a.TenantID, b.TenantID), strings.Compare(a.ID, b.ID))
	})
	if q.NewestFirst {
		slices.Reverse(found)
	}
	return found, err
}

// Counts implements [Store].
func (s *PgxStore) Counts(ctx context.Context, tenantID string) (counts map[Status]int, err error) {
	err = s.repeat(ctx, func(bool) error {
		counts, err = s.sql.counts(ctx, s.db, tenantID)
		return err
	})
	return counts, err
}

// History implements [Store].
func (s *PgxStore) History(ctx context.Context, tenantID, id string) (entries []HistoryEntry, err error) {
	err = s.repeat(ctx, func(bool) error {
		entries, err = s.sql.history(ctx, s.db, tenantID, id)
		return err
	})
	return entries, err
}

// Backlog counts the members that wait at the given time, for a gauge or a health check. It
// reads at most 10,000 rows of each of two indexes. Errors are PostgreSQL's.
func (s *PgxStore) Backlog(ctx context.Context, now time.Time) (b Backlog, err error) {
	err = s.repeat(ctx, func(bool) error {
		b, err = s.sql.backlog(ctx, s.db, now)
		return err
	})
	return b, err
}

// SwapTime implements [Store].
func (s *PgxStore) SwapTime(ctx context.Context, name string, old, next time.Time) (known time.Time, err error) {
	err = s.repeat(ctx, func(bool) error {
		known, err = s.sql.swapTime(ctx, s.db, name, old, next)
		return err
	})
	return known, err
}

// repeat calls f until it succeeds, fails permanently or ctx ends. mayBeApplied tells f that an
// earlier call may have taken effect.
func (s *PgxStore) repeat(ctx context.Context, f func(mayBeApplied bool) error) error {
	mayBeApplied := false
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := f(mayBeApplied)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		again, effect := sqlFailure(err)
		if conn, ok := s.db.(interface{ IsClosed() bool }); ok && conn.IsClosed() {
			again = false // a single connection does not reconnect
		}
		if !again || wait > 640*time.Millisecond {
			return err
		}
		mayBeApplied = mayBeApplied || effect
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // jitter, for callers that failed at the same time
		}
	}
}

// sqlFailure reports whether a statement that failed with err should be repeated, and whether
// it may have taken effect.
//
// It does not use pgconn.SafeToRetry, which since pgx 5.9 is true for some responses that were
// lost after the commit.
func sqlFailure(err error) (again, mayBeApplied bool) {
	if row := (rowError{}); errors.As(err, &row) {
		return false, false
	}
	var connect *pgconn.ConnectError
	notSent := errors.As(err, &connect)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true, !notSent
	}
	switch {
	case strings.HasPrefix(pg.Code, "08"), // the connection, or PgBouncer's connection to the server
		pg.Code == "57P01", pg.Code == "57P02", pg.Code == "57P03", pg.Code == "57P05", // shutdown, crash, starting up, idle time-out
		pg.Code == "40003": // completion unknown
		return true, !notSent
	case pg.Code == "40001", pg.Code == "40P01": // serialization failure, deadlock: rolled back
		return true, false
	case pg.Code == "53300": // too many connections
		return notSent, false
	}
	return false, false
}

// setsKey reports whether c gives the row a new ClerkUserID or Email, which can violate a unique key.
func (c Change) setsKey() bool {
	return c.New != nil && (c.New.ClerkUserID != "" && c.New.ClerkUserID != c.Old.ClerkUserID || c.New.Email != c.Old.Email)
}

// rowError is a failure of a batch that may not occur without some of its rows, for example because
// PostgreSQL or the hook rejects them. The batch is split, and the Result of a row that still fails
// gets the error in it. rowError does not unwrap, because an error from the host's statements must not
// be mistaken for one of the library's.
type rowError struct{ err error }

func (e rowError) Error() string { return e.err.Error() }

// splitting writes a batch with write. If rows make the batch fail, it bisects the batch to isolate
// them, so that the other rows are written. If the hook panics for a row, the panic continues after
// that.
func splitting[T any](batch []T, write func([]T) ([]Result, error)) ([]Result, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	results, err := writeBatch(batch, write)
	if err == nil {
		return results, nil
	}
	var row rowError
	if !errors.As(err, &row) {
		return nil, err
	}
	if len(batch) == 1 {
		return []Result{{Err: row.err}}, nil
	}
	results = make([]Result, len(batch))
	n := len(batch) / 2
	func() {
		defer splitInto(results[n:], batch[n:], write) // even if the first half panics
		splitInto(results[:n], batch[:n], write)
	}()
	return results, nil
}

// writeBatch calls write. A panic for more than one row becomes a rowError.
func writeBatch[T any](batch []T, write func([]T) ([]Result, error)) (results []Result, err error) {
	if len(batch) > 1 {
		defer func() {
			if p := recover(); p != nil {
				err = rowError{fmt.Errorf("clerkinvite: OnChange panicked: %v", p)}
			}
		}()
	}
	return write(batch)
}

// splitInto writes half of a batch.
func splitInto[T any](results []Result, half []T, write func([]T) ([]Result, error)) {
	part, err := splitting(half, write)
	if err != nil {
		// The other half may be written, so the whole batch has not failed.
		part = slices.Repeat([]Result{{Err: err}}, len(half))
	}
	copy(results, part)
}

// onChange is [PgxOptions].OnChange, or nil.
type onChange func(ctx context.Context, tx pgx.Tx, changes []Change) error

// wants reports whether the hook gets one of the changes.
func (f onChange) wants(changes []Change) bool {
	return f != nil && slices.ContainsFunc(changes, Change.Recorded)
}

// inTx calls write in a new transaction or in a savepoint, and then calls the hook with the changes that
// write made.
func (f onChange) inTx(ctx context.Context, own bool, begin func(context.Context) (pgx.Tx, error), write func(pgxQuerier) (applied []Change, err error)) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// Roll back even if the hook panics or ctx has ended. After a commit this does nothing.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	applied, err := write(tx)
	if err != nil {
		return err
	}
	if f == nil || len(applied) == 0 {
		return tx.Commit(ctx)
	}
	changes := make([]Change, len(applied))
	for i, c := range applied {
		changes[i] = Change{c.Old.Clone(), c.New.Clone()}
	}
	hook, cancel := ctx, context.CancelFunc(func() {})
	if own {
		hook, cancel = shareOfTime(ctx, len(changes))
	}
	defer cancel()
	err = f(hook, tx, changes)
	switch conn := tx.Conn(); {
	case err != nil && hook.Err() != nil && ctx.Err() == nil:
		return rowError{err} // pgx may have closed the connection because hook ended
	case err != nil && conn.IsClosed():
		return err // not a row's fault
	case err == nil && conn.PgConn().TxStatus() == 'E':
		// Check this before the commit: afterwards a savepoint cannot be rolled back.
		err = fmt.Errorf("clerkinvite: OnChange returned nil although one of its statements failed: %w", pgx.ErrTxCommitRollback)
	case err == nil:
		err = tx.Commit(ctx)
		// An error of PostgreSQL comes from a deferred constraint of the host.
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return err
		}
	}
	return blamed(ctx, err)
}

// hookTime is divided among the changes if the caller's context has no deadline.
const hookTime = time.Minute

// shareOfTime returns a context for one call of the hook with n changes. It ends before ctx, so that
// blocking for one row does not use up the time of the others.
func shareOfTime(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	left := hookTime
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	if n == 1 {
		return context.WithTimeout(ctx, left/2)
	}
	return context.WithTimeout(ctx, left/4)
}

// blamed returns an error of the hook as a rowError if a row may have caused it, and unchanged otherwise.
func blamed(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	again, _ := sqlFailure(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case again && errors.As(err, &pg): // a deadlock, a shutdown
		return err
	}
	return rowError{err}
}
