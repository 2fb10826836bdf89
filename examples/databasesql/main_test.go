package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestDatabaseSQL(t *testing.T) {
	t.Parallel()
	testkit.RequireOutput(t, run)
}

func setup(t *testing.T) (*host, *clerkinvitetest.Clerk) {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	h, err := newHost(t.Context(), pgtest.New(t).Pool(t), clerk)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.db.Close()) })
	return h, clerk
}

type counts struct{ members, history, audits int }

func (h *host) count(t *testing.T) (c counts) {
	t.Helper()
	require.NoError(t, h.db.QueryRowContext(t.Context(), `
SELECT (SELECT count(*) FROM clerkinvite_member), (SELECT count(*) FROM clerkinvite_history), (SELECT count(*) FROM audit)`).
		Scan(&c.members, &c.history, &c.audits))
	return c
}

func TestCommit(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	results, err := h.reserveAll(t.Context(), "acme", []string{"ada@example.com", "joan@example.com"})
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, clerkinvite.StatusReserved, r.Member.Status)
	}
	require.Equal(t, counts{members: 2, history: 2, audits: 1}, h.count(t))
	require.Zero(t, clerk.RequestCount(), "nothing is sent before the commit")

	report, err := h.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, report.Invited)
	require.Equal(t, 2, clerk.Emails())
}

// A failure after the reservation rolls it back.
func TestRollback(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	two := []string{"a@example.com", "b@example.com"}
	_, err := h.inviteAll(t.Context(), "globex", two)
	require.ErrorIs(t, err, errClosed, "no such tenant")
	require.Zero(t, h.count(t))

	_, err = h.db.ExecContext(t.Context(), `ALTER TABLE audit ADD CHECK (entry <> '2 invited')`)
	require.NoError(t, err)
	_, err = h.inviteAll(t.Context(), "acme", two)
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "23514", pg.Code)
	require.Zero(t, h.count(t))

	_, err = h.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, clerk.RequestCount(), "nothing to send")
}

// A duplicate does not abort the transaction: later statements are committed.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	_, err := h.inviteAll(t.Context(), "acme", []string{"ada@example.com"})
	require.NoError(t, err)
	results, err := h.inviteAll(t.Context(), "acme", []string{"joan@example.com", "Ada@Example.com", "joan@example.com", "not an address"})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	for i, email := range map[int]string{1: "ada@example.com", 2: "joan@example.com"} {
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, results[i].Err, &dup)
		require.Equal(t, email, dup.Member.Email)
	}
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, results[3].Err, &invalid)
	now := h.count(t)
	require.Equal(t, counts{members: 2, history: now.history, audits: 2}, now)
	require.Equal(t, 2, clerk.Emails())
}

// begin opens a connection and a transaction on it.
func begin(t *testing.T, db *sql.DB) (*sql.Conn, *sql.Tx) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	tx, err := conn.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	return conn, tx
}

// Writes of pgx belong to the *sql.Tx: they are visible after its commit, and rolled back
// with it.
func TestInPgxUsesHostTransaction(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	for _, commit := range []bool{false, true} {
		conn, tx := begin(t, h.db)
		require.NoError(t, inPgx(t.Context(), conn, func(pgxTx pgx.Tx) error {
			member, err := h.invites.InTx(h.store.WithTx(pgxTx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
			require.NoError(t, err)
			// The store uses a nested savepoint for this change.
			next := *member
			next.Status, next.ClerkUserID, next.Sent, next.NextAttemptAt = clerkinvite.StatusActive, "user_1", next.Send, nil
			results, err := h.store.WithTx(pgxTx).Update(t.Context(), []clerkinvite.Change{{Old: member, New: &next}})
			require.NoError(t, err)
			require.NoError(t, results[0].Err)
			nested, err := pgxTx.Begin(t.Context())
			require.NoError(t, err)
			_, err = nested.Exec(t.Context(), `DELETE FROM clerkinvite_member`)
			require.NoError(t, err)
			return nested.Rollback(t.Context())
		}))
		var user string
		require.NoError(t, tx.QueryRowContext(t.Context(), `SELECT clerk_user_id FROM clerkinvite_member`).Scan(&user))
		require.Equal(t, "user_1", user)
		require.Zero(t, h.count(t).members)
		if commit {
			require.NoError(t, tx.Commit())
			require.Equal(t, 1, h.count(t).members)
			continue
		}
		require.NoError(t, tx.Rollback())
		require.Zero(t, h.count(t))
	}
}

// After an error the *sql.Tx is open, and the host rolls it back.
func TestInPgxFails(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	conn, tx := begin(t, h.db)
	failure := errors.New("failure")
	require.ErrorIs(t, inPgx(t.Context(), conn, func(pgxTx pgx.Tx) error {
		_, err := h.invites.InTx(h.store.WithTx(pgxTx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.NoError(t, err)
		return failure
	}), failure)
	require.NoError(t, tx.Rollback())
	require.Zero(t, h.count(t))
	_, err := conn.ExecContext(t.Context(), `SELECT 1`)
	require.NoError(t, err, "the connection still works")
}

// After the transaction has ended, nothing is written.
func TestInPgxWithoutTransaction(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	conn, tx := begin(t, h.db)
	require.NoError(t, tx.Commit())
	var pg *pgconn.PgError
	require.ErrorAs(t, inPgx(t.Context(), conn, func(pgx.Tx) error { panic("there is no transaction") }), &pg)
	require.Equal(t, "25P01", pg.Code, "no_active_sql_transaction")

	// The transaction's context ends, so database/sql rolls it back, unnoticed by the host.
	conn, err := h.db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = conn.BeginTx(ctx, nil)
	require.NoError(t, err)
	cancel()
	require.Eventually(t, func() bool {
		err := inPgx(t.Context(), conn, func(pgxTx pgx.Tx) error {
			_, err := h.invites.InTx(h.store.WithTx(pgxTx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
			return err
		})
		return err != nil
	}, 10*time.Second, time.Millisecond)
	require.Zero(t, h.count(t))
}

// It also works with sql.Open("pgx", …).
func TestInPgxWithSQLOpen(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", pgtest.New(t).DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	conn, tx := begin(t, db)
	require.NoError(t, inPgx(t.Context(), conn, func(pgxTx pgx.Tx) error {
		_, err := pgxTx.Exec(t.Context(), `CREATE TABLE made (id int)`)
		return err
	}))
	require.NoError(t, tx.Commit())
	_, err = db.ExecContext(t.Context(), `DROP TABLE made`)
	require.NoError(t, err)
}
