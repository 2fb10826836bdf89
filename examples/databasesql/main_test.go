package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
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

// admin_user is equal to the members after each step, no matter who writes them. The comparison uses no SQL of the library.
func TestAdminUserFollows(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ tenant, change string }{
		"text": {"acme", ""},
		"uuid and citext": {"7d9f1e52-0c4b-4f0a-9a55-2f6b1c0e8d31", `CREATE EXTENSION citext; INSERT INTO tenant VALUES ('7d9f1e52-0c4b-4f0a-9a55-2f6b1c0e8d31');
			ALTER TABLE admin_user DROP CONSTRAINT admin_user_tenant_id_fkey, ALTER tenant_id TYPE uuid USING tenant_id::uuid, ALTER email TYPE citext`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, clerk := setup(t)
			exec := func(query string, args ...any) {
				_, err := h.db.ExecContext(t.Context(), query, args...)
				require.NoError(t, err)
			}
			exec(test.change)
			up, err := mirror.Up()
			require.NoError(t, err)
			exec(up)
			ref := func(name string) clerkinvite.Ref {
				return clerkinvite.Ref{TenantID: test.tenant, Email: name + "@example.com"}
			}
			agree := func(step string, rows int) {
				t.Helper()
				var different int
				require.NoError(t, h.db.QueryRowContext(t.Context(), `
SELECT count(*) FROM (SELECT tenant_id::text, email::text, clerk_user_id FROM admin_user) a
FULL JOIN (SELECT tenant_id, email, clerk_user_id FROM clerkinvite_member WHERE status IN ('pending', 'active')) m USING (tenant_id, email, clerk_user_id)
WHERE a IS NULL OR m IS NULL`).Scan(&different))
				require.Zero(t, different, step)
				admins, err := h.listAdmins(t.Context(), test.tenant)
				require.NoError(t, err)
				require.Len(t, admins, rows, step)
			}

			for i := range 40 {
				email := ref(fmt.Sprint("old", i)).Email
				id := clerkinvite.PendingID(clerk.CreateForeign(email, nil).ID)
				if i%2 == 1 {
					id = clerk.AddVerifiedUser(email).ID
				}
				exec(`INSERT INTO admin_user VALUES ($1, $2, $3)`, test.tenant, email, id)
			}
			admins, err := h.listAdmins(t.Context(), test.tenant)
			require.NoError(t, err)
			var people []clerkinvite.AdoptParams
			for _, a := range admins {
				people = append(people, clerkinvite.AdoptParams{InviteParams: clerkinvite.InviteParams{TenantID: a.TenantID, Email: a.Email}, ClerkUserID: a.ClerkUserID})
			}
			results, err := h.invites.Adopt(t.Context(), people)
			require.NoError(t, err)
			for _, r := range results {
				require.NoError(t, r.Err)
			}
			agree("adopted", 40)

			var invited atomic.Int32
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					results, err := h.inviteAll(t.Context(), test.tenant, []string{"ada@example.com"})
					if assert.NoError(t, err) && results[0].Err == nil {
						invited.Add(1)
					}
				})
			}
			wg.Wait()
			require.Equal(t, []int{1, 1}, []int{int(invited.Load()), clerk.EmailsTo("ada@example.com")})
			agree("eight concurrent invites", 41)

			command, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: h.store})
			require.NoError(t, err)
			_, err = command.Revoke(t.Context(), ref("old2"))
			require.NoError(t, err)
			agree("revoked by another program", 40)

			event, err := clerkinvite.ParseEvent(clerk.DeleteUser(people[slices.IndexFunc(people, func(a clerkinvite.AdoptParams) bool { return a.Email == "old3@example.com" })].ClerkUserID).Payload)
			require.NoError(t, err)
			_, err = h.invites.HandleEvent(t.Context(), event)
			require.NoError(t, err)
			agree("a user is deleted at Clerk", 39)

			clerk.Fail(clerkinvitetest.Fault{Status: 503, Times: -1})
			_, err = h.inviteAll(t.Context(), test.tenant, []string{"grace@example.com"})
			require.NoError(t, err)
			agree("Clerk is down", 39)
			clerk.ClearFaults()
			_, err = h.invites.Invite(t.Context(), clerkinvite.InviteParams{TenantID: test.tenant, Email: "grace@example.com"})
			require.NoError(t, err)
			agree("Clerk is back", 40)
		})
	}
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
