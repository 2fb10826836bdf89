package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PgxDB is what [NewPgxStore] works on. *pgxpool.Pool fits, and so does *pgx.Conn for
// a program that calls the library from one goroutine at a time ([Service.Run] has two). A pgx.Tx does not fit:
// the library calls Clerk between two statements, and that must not happen inside a
// transaction. For the part that may, see [PgxStore.WithTx].
type PgxDB interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// PgxOptions are the options of [NewPgxStore].
type PgxOptions struct {
	// Schema is where the tables are. Defaults to whatever the search_path of the
	// connections says. It is one identifier as PostgreSQL stores it: without quotes,
	// and compared with its case.
	Schema string

	// OnChange lets tables of the host's own follow the members: what it writes in tx
	// is committed if and only if the changes are. It runs in the transaction of the
	// statement that made them, right after it, and gets every change that the history
	// records: a new member without Old, an erased one without New. It does not get
	// claims, postponed attempts and corrected roles, nor what was only found to be made
	// already. The members are copies.
	//
	// An error keeps the changes from being made, and is the error of each of the
	// members for which it stays when the batch is tried by halves; delivery tries again
	// later. So OnChange may be called several times for one change, each time after
	// what it did before was rolled back.
	//
	// Rows are locked meanwhile, and a connection is taken: it must be quick. It must
	// not call Clerk or the Service, and neither commits nor rolls back tx. It is called from
	// several goroutines at once.
	//
	// With OnChange each such Insert or Update is a READ COMMITTED transaction instead
	// of a single statement; inside of WithTx it is a savepoint of the host's.
	OnChange func(ctx context.Context, tx pgx.Tx, changes []Change) error
}

// PgxStore is a [Store] in PostgreSQL 14 or newer.
//
// It keeps nothing in the session (no prepared statements of its own, no session locks,
// no settings), so it works through PgBouncer in transaction mode and in every
// query execution mode of pgx. Time-outs of statements and locks are the host's to set.
//
// When the answer to a statement is lost, the statement may have taken effect or not.
// Outside of a host's transaction the store finds out by repeating it for up to a
// second, within the caller's context; nothing is written twice.
type PgxStore struct {
	db       PgxDB
	schema   string
	onChange onChange
	sql      pgxSQL
}

var _ Store = (*PgxStore)(nil)

// NewPgxStore returns a store on db. It does no I/O; opts may be nil. The tables are
// there after [PgxStore.Migrate], or after the host ran the SQL of [Migrations].
func NewPgxStore(db PgxDB, opts *PgxOptions) *PgxStore {
	s := &PgxStore{db: db}
	if opts != nil {
		s.schema, s.onChange = opts.Schema, opts.OnChange
	}
	s.sql = newPgxSQL(s.schema)
	return s
}

// WithTx returns the part of the store that may be used inside a host's transaction, so
// that a member is reserved if and only if the host's own rows are written. It never
// commits or rolls back, and repeats nothing.
//
// An address that another open transaction is just reserving is waited for. In READ
// COMMITTED the outcome is the usual one. In REPEATABLE READ and SERIALIZABLE, PostgreSQL
// answers 40001 for what was committed after the transaction's snapshot, which
// only the host can repeat.
func (s *PgxStore) WithTx(tx pgx.Tx) TxStore { return &pgxWriter{s, tx} }

// Insert implements [TxStore].
func (s *PgxStore) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	return (&pgxWriter{store: s}).Insert(ctx, rows)
}

// Update implements [TxStore].
func (s *PgxStore) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return (&pgxWriter{store: s}).Update(ctx, changes)
}

// pgxWriter inserts and updates members, in the host's transaction or, if tx is nil, by itself.
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
		err = w.write(ctx, w.store.onChange != nil, func(db pgxQuerier, _ bool) (made []Change, err error) {
			results, made, err = w.store.sql.insert(ctx, db, input)
			return made, err
		})
		return results, err
	})
}

// Update implements [TxStore].
func (w *pgxWriter) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return splitting(changes, func(changes []Change) (results []Result, err error) {
		input, err := pgxChanges(changes)
		if err != nil {
			return nil, err
		}
		// If another member has the user, the statement fails, and without a savepoint the host's transaction with it.
		begin := w.store.onChange.wants(changes) || w.tx != nil && slices.ContainsFunc(changes, Change.setsUser)
		err = w.write(ctx, begin, func(db pgxQuerier, maybeMade bool) (made []Change, err error) {
			results, made, err = w.store.sql.update(ctx, db, changes, input, maybeMade)
			return made, err
		})
		return results, w.store.sql.explain(ctx, w.db(), changes, err)
	})
}

// write calls f, in a transaction or savepoint if begin. It calls it again if the response was
// lost, but not in the host's transaction, which is lost too.
func (w *pgxWriter) write(ctx context.Context, begin bool, f func(db pgxQuerier, maybeMade bool) (made []Change, err error)) error {
	once := func(maybeMade bool) error {
		write := func(db pgxQuerier) ([]Change, error) { return f(db, maybeMade) }
		if begin {
			return w.store.onChange.inTx(ctx, w.begin, write)
		}
		_, err := write(w.db())
		return err
	}
	if w.tx != nil {
		return once(false)
	}
	return w.store.repeat(ctx, once)
}

// begin begins a savepoint in the host's transaction, or a transaction. That is READ COMMITTED
// whatever the default of the connection is: only then does a second statement see why the
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

// Find implements [Store].
func (s *PgxStore) Find(ctx context.Context, q Query) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.find(ctx, s.db, q)
		return err
	})
	return found, err
}

// Due implements [Store].
func (s *PgxStore) Due(ctx context.Context, at time.Time, limit int) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.due(ctx, s.db, at, limit)
		return err
	})
	return found, err
}

// Page implements [Store].
func (s *PgxStore) Page(ctx context.Context, q PageQuery) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.page(ctx, s.db, q)
		return err
	})
	return found, err
}

// History implements [Store].
func (s *PgxStore) History(ctx context.Context, tenantID, id string) (entries []HistoryEntry, err error) {
	err = s.repeat(ctx, func(bool) error {
		entries, err = s.sql.history(ctx, s.db, tenantID, id)
		return err
	})
	return entries, err
}

// Backlog counts what waits at the given time, for a gauge or a health check. It reads
// by two indexes, and never more than 10,000 rows of each. A store's error is returned as it is.
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

// repeat calls f until it succeeds, fails for good or ctx ends. maybeMade tells f that an
// earlier call of it may have taken effect.
func (s *PgxStore) repeat(ctx context.Context, f func(maybeMade bool) error) error {
	maybeMade := false
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := f(maybeMade)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		again, effect := failure(err)
		if conn, ok := s.db.(interface{ IsClosed() bool }); ok && conn.IsClosed() {
			again = false // a single connection does not come back
		}
		if !again || wait > 640*time.Millisecond {
			return err
		}
		maybeMade = maybeMade || effect
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // no secret: callers that met shall not meet again
		}
	}
}

// failure tells whether it is worth repeating a statement that failed with err, and
// whether the statement may nevertheless have taken effect.
//
// pgconn.SafeToRetry is no help: since pgx 5.9 it is true for some answers that were
// lost after the commit.
func failure(err error) (again, maybeMade bool) {
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
	case strings.HasPrefix(pg.Code, "08"), // the connection, PgBouncer's to the server included
		pg.Code == "57P01", pg.Code == "57P02", pg.Code == "57P03", pg.Code == "57P05", // shut down, crashed, starting, idle too long
		pg.Code == "40003": // completion unknown
		return true, !notSent
	case pg.Code == "40001", pg.Code == "40P01": // serialization failure, deadlock: rolled back
		return true, false
	case pg.Code == "53300": // too many connections
		return notSent, false
	}
	return false, false
}

// setsUser reports whether c gives the row another Clerk user (or pending) id, which
// another row may have already.
func (c Change) setsUser() bool {
	return c.New != nil && c.New.ClerkUserID != "" && c.New.ClerkUserID != c.Old.ClerkUserID
}

// rowError is the failure of a batch that at least one of its rows is to blame for: a row
// that fails so alone has the error in it. It does not unwrap, so that nobody takes an error of
// the host's for one of our statements.
type rowError struct{ err error }

func (e rowError) Error() string { return e.err.Error() }

// splitting writes a batch with write. A batch that one of its rows is to blame for is
// halved until those rows are known: one of them must not stop the others.
func splitting[T any](batch []T, write func([]T) ([]Result, error)) ([]Result, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	results, err := write(batch)
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
	results = make([]Result, 0, len(batch))
	for _, half := range [][]T{batch[:len(batch)/2], batch[len(batch)/2:]} {
		part, err := splitting(half, write)
		if err != nil {
			// The other half may be written, so this is no error of the whole.
			part = slices.Repeat([]Result{{Err: err}}, len(half))
		}
		results = append(results, part...)
	}
	return results, nil
}

// onChange is [PgxOptions].OnChange, or nil.
type onChange func(ctx context.Context, tx pgx.Tx, changes []Change) error

// wants reports whether the hook is to be told of one of the changes.
func (f onChange) wants(changes []Change) bool {
	return f != nil && slices.ContainsFunc(changes, Change.Recorded)
}

// inTx calls write in a transaction or savepoint, and the hook with what write has made.
func (f onChange) inTx(ctx context.Context, begin func(context.Context) (pgx.Tx, error), write func(pgxQuerier) (made []Change, err error)) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// Also when the hook panics or ctx has ended. After a commit it does nothing.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	made, err := write(tx)
	if err != nil {
		return err
	}
	if f == nil || len(made) == 0 {
		return tx.Commit(ctx)
	}
	changes := make([]Change, len(made))
	for i, c := range made {
		changes[i] = Change{c.Old.Clone(), c.New.Clone()}
	}
	err = f(ctx, tx, changes)
	switch conn := tx.Conn(); {
	case err != nil && conn.IsClosed():
		return err // which says nothing of the rows
	case err == nil && conn.PgConn().TxStatus() == 'E':
		// To be found before the commit, after which a savepoint cannot be rolled back to.
		err = fmt.Errorf("clerkinvite: OnChange returned no error, but one of its statements failed: %w", pgx.ErrTxCommitRollback)
	case err == nil:
		err = tx.Commit(ctx)
		// One of PostgreSQL's is that of a constraint of the host's that is looked at on commit.
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return err
		}
	}
	return blamed(ctx, err)
}

// blamed returns what the hook failed with as a rowError, unless it is no fault of a row's.
func blamed(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	again, _ := failure(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case again && errors.As(err, &pg): // a deadlock, a shutdown
		return err
	}
	return rowError{err}
}
