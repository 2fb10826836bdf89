// Databasesql is a host on database/sql. In one *sql.Tx of its own it takes seats,
// writes an audit row and reserves several invitations: all of it is committed, or
// none of it. Only then does Clerk hear of them.
//
//	go run ./examples/databasesql
//
// It starts a PostgreSQL of its own, or works in a schema of its own in DATABASE_URL.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

// hostTables are tables that the host has anyway.
const hostTables = `
CREATE TABLE seats (
	tenant_id text PRIMARY KEY,
	taken     integer NOT NULL DEFAULT 0,
	paid      integer NOT NULL,
	CONSTRAINT seats_taken_check CHECK (taken <= paid)
);
CREATE TABLE audit (
	id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant_id text NOT NULL REFERENCES seats,
	entry     text NOT NULL
);
INSERT INTO seats (tenant_id, paid) VALUES ('acme', 3);`

// errNoSeats is the host's own error. It rolls everything back.
var errNoSeats = errors.New("there are not that many seats left")

// host is an application on database/sql.
type host struct {
	db      *sql.DB
	store   *clerkinvite.PgxStore
	invites *clerkinvite.Service
}

// newHost returns a host whose own statements and the library's share one pool. A host
// that opens its database with sql.Open("pgx", url) changes that line to these two, or
// gives the library a small pool of its own.
func newHost(ctx context.Context, pool *pgxpool.Pool, api clerkinvite.ClerkAPI) (*host, error) {
	h := &host{db: stdlib.OpenDBFromPool(pool), store: clerkinvite.NewPgxStore(pool, nil)}
	if err := h.store.Migrate(ctx); err != nil {
		return nil, err
	}
	if _, err := h.db.ExecContext(ctx, hostTables); err != nil {
		return nil, err
	}
	var err error
	h.invites, err = clerkinvite.New(clerkinvite.Config{API: api, Store: h.store})
	return h, err
}

// inviteAll reserves an invitation for each address, one seat each, and then sends
// them. An address that is in the tenant already takes no seat; its Result says so.
func (h *host) inviteAll(ctx context.Context, tenant string, emails []string) ([]clerkinvite.Result, error) {
	results, err := h.reserveAll(ctx, tenant, emails)
	if err != nil {
		return nil, err
	}
	// Committed: now, or in the background, Clerk is told.
	_, err = h.invites.Deliver(ctx, nil)
	return results, err
}

func (h *host) reserveAll(ctx context.Context, tenant string, emails []string) (results []clerkinvite.Result, err error) {
	// A *sql.Conn, because a *sql.Tx does not tell which connection it is on.
	conn, err := h.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // nothing, after the commit

	params := make([]clerkinvite.InviteParams, len(emails))
	for i, email := range emails {
		params[i] = clerkinvite.InviteParams{TenantID: tenant, Email: email}
	}
	err = inPgx(ctx, conn, func(pgxTx pgx.Tx) error {
		results, err = h.invites.InTx(h.store.WithTx(pgxTx)).ReserveMany(ctx, params)
		return err
	})
	if err != nil {
		return nil, err
	}
	reserved := 0
	for _, r := range results {
		if r.Err == nil {
			reserved++
		}
	}

	took, err := tx.ExecContext(ctx, `UPDATE seats SET taken = taken + $2 WHERE tenant_id = $1 AND taken + $2 <= paid`, tenant, reserved)
	if err != nil {
		return nil, err
	}
	if n, err := took.RowsAffected(); err != nil || n == 0 {
		return nil, errors.Join(errNoSeats, err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO audit (tenant_id, entry) VALUES ($1, $2)`,
		tenant, fmt.Sprintf("%d invited", reserved)); err != nil {
		return nil, err
	}
	return results, tx.Commit()
}

// inPgx calls f with the transaction that is open on conn, as pgx sees it. Inside of f
// that one is to be used, and the *sql.Tx is not: it would wait for f to return. If f
// fails, the *sql.Tx is to be rolled back.
func inPgx(ctx context.Context, conn *sql.Conn, f func(tx pgx.Tx) error) error {
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver's connection is a %T, not one of pgx", driverConn)
		}
		// BEGIN has been sent already, so this is a savepoint. PostgreSQL refuses it where no
		// transaction is open any more, as when database/sql has rolled it back because its
		// context ended: what f writes is never committed on its own.
		tx, err := c.Conn().BeginTx(ctx, pgx.TxOptions{
			BeginQuery: "SAVEPOINT clerkinvite", CommitQuery: "RELEASE SAVEPOINT clerkinvite",
		})
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err // without tx.Rollback, which would end the host's transaction behind its back
		}
		return tx.Commit(ctx)
	})
}

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// run tells the story.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	clerk := clerkinvitetest.NewClerk()
	clerk.AddVerifiedUser("grace@example.com")
	h, err := newHost(ctx, pool, clerk)
	if err != nil {
		return err
	}
	defer func() { _ = h.db.Close() }()

	for i, step := range []struct {
		what   string
		emails []string
	}{
		{"ada and grace are invited: two seats, one commit, then Clerk (grace has an account already)", []string{"ada@example.com", "grace@example.com"}},
		{"ada again, and joan: the duplicate takes no seat and does not abort the transaction", []string{"ada@example.com", "joan@example.com"}},
		{"two more, but all three seats are taken: nothing of it has happened", []string{"edith@example.com", "mary@example.com"}},
	} {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		_, _ = fmt.Fprintln(out, step.what)
		results, err := h.inviteAll(ctx, "acme", step.emails)
		switch {
		case errors.Is(err, errNoSeats):
			_, _ = fmt.Fprintln(out, "   rolled back:", err)
		case err != nil:
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				status, message := clerkinvite.HTTPError(r.Err)
				_, _ = fmt.Fprintf(out, "   HTTP %d  %s\n", status, message)
			}
		}
		if err := h.show(ctx, out, clerk); err != nil {
			return err
		}
	}
	return nil
}

// show prints what is in the database and what Clerk has sent.
func (h *host) show(ctx context.Context, out io.Writer, clerk *clerkinvitetest.Clerk) error {
	var taken, paid, entries int
	if err := h.db.QueryRowContext(ctx, `SELECT taken, paid, (SELECT count(*) FROM audit) FROM seats`).Scan(&taken, &paid, &entries); err != nil {
		return err
	}
	rows, err := h.db.QueryContext(ctx, `SELECT email, status FROM clerkinvite_member ORDER BY email`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var email, status string
		if err := rows.Scan(&email, &status); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "   %-18s %-9s emails: %d\n", email, status, clerk.EmailsTo(email))
	}
	_, _ = fmt.Fprintf(out, "   seats: %d of %d, audit rows: %d\n", taken, paid, entries)
	return rows.Err()
}
