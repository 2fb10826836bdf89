package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// count returns how many rows a table has, as db sees it.
func count(t *testing.T, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, table string,
) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// In these cases SQLite rolls the transaction back, and *sql.Tx does not notice. Neither earlier nor later calls write a
// member, because the host's rows are not written.
func TestHostTransactionEndedBySQLite(t *testing.T) {
	t.Parallel()
	fails := func(query string) func(*testing.T, *sql.Tx) {
		return func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			_, err := tx.ExecContext(t.Context(), query)
			require.Error(t, err)
		}
	}
	for what, end := range map[string]func(*testing.T, *sql.Tx){
		"interrupted": func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			for timeout := 5 * time.Millisecond; count(t, tx, "seat") > 0; timeout *= 2 { // until the statement has begun before the timeout
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				_, err := tx.ExecContext(ctx, "INSERT INTO seat WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
				cancel()
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		},
		"or rollback": fails("INSERT OR ROLLBACK INTO seat VALUES (1)"),
		"a trigger":   fails("DELETE FROM seat"),
		"the disk is full": func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			_, err := tx.ExecContext(t.Context(), "PRAGMA max_page_count = 1") // raised to the present number of pages
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "INSERT INTO letter VALUES (zeroblob(100000))")
			require.ErrorContains(t, err, "full")
			_, err = tx.ExecContext(t.Context(), "PRAGMA max_page_count = 1000000")
			require.NoError(t, err)
		},
		"by hand": func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			_, err := tx.ExecContext(t.Context(), "ROLLBACK")
			require.NoError(t, err)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			store, clerk := newStore(t), clerkinvitetest.NewClerk()
			svc := newService(t, store, clerk)
			old, err := insertNew(t.Context(), store, reserved("acme", "old@example.com"))
			require.NoError(t, err)
			_, err = store.DB().ExecContext(t.Context(), `
CREATE TABLE letter (content BLOB);
CREATE TABLE seat (n INTEGER PRIMARY KEY);
CREATE TRIGGER kept BEFORE DELETE ON seat BEGIN SELECT RAISE(ROLLBACK, 'kept'); END`)
			require.NoError(t, err)
			for _, leave := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
				tx, err := store.DB().BeginTx(t.Context(), nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(t.Context(), "INSERT INTO seat VALUES (1)")
				require.NoError(t, err)
				reserver := svc.InTx(store.WithTx(tx))
				_, err = reserver.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "before@example.com"})
				require.NoError(t, err)

				end(t, tx)
				for range 2 { // the first call leaves no transaction behind
					_, err = reserver.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "after@example.com"})
					require.ErrorIs(t, err, sql.ErrTxDone)
					require.ErrorContains(t, err, "SQLite has already rolled back the host's transaction")
					_, err = store.WithTx(tx).Update(t.Context(), []clerkinvite.Change{{Old: old[0]}})
					require.ErrorIs(t, err, sql.ErrTxDone)
				}
				require.ErrorContains(t, leave(tx), "no transaction is active")
			}
			require.Zero(t, count(t, store.DB(), "seat"))
			found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
			require.NoError(t, err)
			require.Equal(t, old, found)

			// The connection still works, and calls in an ended transaction return sql.ErrTxDone.
			tx, err := store.DB().BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer tx.Rollback()
			_, err = insertNew(t.Context(), store.WithTx(tx), reserved("acme", "again@example.com"))
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			_, err = insertNew(t.Context(), store.WithTx(tx), reserved("acme", "late@example.com"))
			require.ErrorIs(t, err, sql.ErrTxDone)
			report, err := svc.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, []int{2, 2}, []int{report.Invited, clerk.Emails()})
		})
	}
}

// If a host's trigger on our table ends the host's transaction, the call ends: the remaining rows of the batch are not written
// outside a transaction. Outside the host's transaction only the row is refused.
func TestTriggerEndsTransaction(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	old, err := insertNew(t.Context(), store, reserved("acme", "ada@example.com"), reserved("acme", "grace@example.com"))
	require.NoError(t, err)
	_, err = store.DB().ExecContext(t.Context(), `
CREATE TABLE seat (email TEXT UNIQUE);
INSERT INTO seat VALUES ('ada@example.com'), ('joan@example.com');
CREATE TRIGGER seated AFTER UPDATE ON clerkinvite_member BEGIN INSERT OR ROLLBACK INTO seat VALUES (new.email); END;
CREATE TRIGGER reserved AFTER INSERT ON clerkinvite_member WHEN new.email = 'joan@example.com' BEGIN SELECT RAISE(ROLLBACK, 'taken'); END`)
	require.NoError(t, err)
	update := func(store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
		return store.Update(t.Context(), []clerkinvite.Change{{Old: old[0], New: pending(old[0])}, {Old: old[1], New: pending(old[1])}})
	}
	insert := func(store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
		return store.Insert(t.Context(), []*clerkinvite.Member{reserved("acme", "joan@example.com"), reserved("acme", "mary@example.com")})
	}
	for cause, write := range map[string]func(clerkinvite.TxStore) ([]clerkinvite.Result, error){"seat.email": update, "taken": insert} {
		tx, err := store.DB().BeginTx(t.Context(), nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = tx.Rollback() })
		_, err = write(store.WithTx(tx))
		require.ErrorContains(t, err, cause)
		require.ErrorIs(t, err, sql.ErrTxDone)
		require.ErrorContains(t, tx.Commit(), "no transaction is active")
	}
	found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.ElementsMatch(t, old, found)
	require.Equal(t, 2, count(t, store.DB(), "clerkinvite_history"))

	for cause, write := range map[string]func(clerkinvite.TxStore) ([]clerkinvite.Result, error){"seat.email": update, "taken": insert} {
		results, err := write(store)
		require.NoError(t, err)
		require.ErrorContains(t, results[0].Err, cause)
		require.NoError(t, results[1].Err)
	}
}

// A read-only transaction does not wait. The driver lets it write, but not after another transaction has written.
func TestReadOnlyTransaction(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	writer, err := store.DB().BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer writer.Rollback()
	reader, err := store.DB().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err)
	defer reader.Rollback()
	require.Zero(t, count(t, reader, "clerkinvite_member"))
	_, err = insertNew(t.Context(), store.WithTx(writer), reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	require.NoError(t, writer.Commit())
	_, err = insertNew(t.Context(), store.WithTx(reader), reserved("acme", "grace@example.com"))
	require.ErrorContains(t, err, "begin it with BEGIN IMMEDIATE")
	require.NoError(t, reader.Commit())

	reader, err = store.DB().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err)
	defer reader.Rollback()
	_, err = insertNew(t.Context(), store.WithTx(reader), reserved("acme", "grace@example.com"))
	require.NoError(t, err)
	require.NoError(t, reader.Commit())
	require.Equal(t, 2, count(t, store.DB(), "clerkinvite_member"))
}

// Concurrent transactions of the host queue, with each other and with the store's writes.
func TestTransactionsQueue(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	svc := newService(t, store, clerkinvitetest.NewClerk())
	_, err := store.DB().ExecContext(t.Context(), "CREATE TABLE seat (n INTEGER PRIMARY KEY)")
	require.NoError(t, err)
	const n = 40
	reserve := func(i int) error {
		tx, err := store.Begin(t.Context())
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO seat VALUES (?)", i); err != nil {
			return err
		}
		if _, err := svc.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{
			TenantID: "acme", Email: fmt.Sprintf("%d@example.com", i),
		}); err != nil {
			return err
		}
		return tx.Commit()
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { assert.NoError(t, reserve(i)) })
		wg.Go(func() {
			_, err := svc.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "other", Email: fmt.Sprintf("%d@example.com", i)})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.Equal(t, []int{n, 2 * n}, []int{count(t, store.DB(), "seat"), count(t, store.DB(), "clerkinvite_member")})

	// Waiting ends with the context; reads do not wait.
	tx, err := store.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = store.Due(t.Context(), clerkinvite.DueQuery{At: testTime})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = store.Begin(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = insertNew(ctx, store, reserved("acme", "ada@example.com"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
