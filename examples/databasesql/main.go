// Databasesql is an application on database/sql. In one *sql.Tx it reserves several invitations
// and writes an audit row, so either everything is committed or nothing. It calls Clerk after the
// commit. Its queries, which look like sqlc's, read its own table admin_user, which a
// clerkinvite.Mirror keeps equal to the members.
//
//	go run ./examples/databasesql
//
// It starts a temporary PostgreSQL, or uses a temporary schema in DATABASE_URL.
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

// hostTables are the host's existing tables.
const hostTables = `
CREATE TABLE tenant (
	id   text PRIMARY KEY,
	open boolean NOT NULL DEFAULT true
);
CREATE TABLE audit (
	id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant_id text NOT NULL REFERENCES tenant,
	entry     text NOT NULL
);
CREATE TABLE admin_user (
	tenant_id     text NOT NULL REFERENCES tenant,
	email         text NOT NULL,
	clerk_user_id text NOT NULL,
	PRIMARY KEY (tenant_id, email)
);
INSERT INTO tenant (id) VALUES ('acme');`

// mirror keeps admin_user equal to the members.
var mirror = clerkinvite.Mirror{Table: "admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id"}

// errClosed is the host's own error. It rolls everything back.
var errClosed = errors.New("this tenant is closed")

// host is an application on database/sql.
type host struct {
	db      *sql.DB
	store   *clerkinvite.PgxStore
	invites *clerkinvite.Service
}

// newHost returns a host that shares one pool with the library. A host that uses
// sql.Open("pgx", url) replaces it by a pgxpool and OpenDBFromPool, or gives the library a
// small separate pool.
func newHost(ctx context.Context, pool *pgxpool.Pool, api clerkinvite.ClerkAPI) (*host, error) {
	h := &host{db: stdlib.OpenDBFromPool(pool), store: clerkinvite.NewPgxStore(pool, nil)}
	if err := h.store.Migrate(ctx); err != nil {
		return nil, err
	}
	up, err := mirror.Up()
	if err != nil {
		return nil, err
	}
	if _, err := h.db.ExecContext(ctx, hostTables+up); err != nil {
		return nil, err
	}
	h.invites, err = clerkinvite.New(clerkinvite.Config{API: api, Store: h.store})
	return h, err
}

// inviteAll reserves an invitation for each address, and then sends them. The Result of a
// duplicate has its error.
func (h *host) inviteAll(ctx context.Context, tenant string, emails []string) ([]clerkinvite.Result, error) {
	results, err := h.reserveAll(ctx, tenant, emails)
	if err != nil {
		return nil, err
	}
	// After the commit, DeliverMembers or a background Run calls Clerk.
	var refs []clerkinvite.Ref
	for _, r := range results {
		if r.Err == nil {
			refs = append(refs, r.Member.Ref())
		}
	}
	_, err = h.invites.DeliverMembers(ctx, refs)
	return results, err
}

func (h *host) reserveAll(ctx context.Context, tenant string, emails []string) (results []clerkinvite.Result, err error) {
	// A *sql.Conn, because a *sql.Tx does not expose its connection.
	conn, err := h.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // no effect after the commit

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

	audited, err := tx.ExecContext(ctx, `INSERT INTO audit (tenant_id, entry) SELECT id, $2 FROM tenant WHERE id = $1 AND open`,
		tenant, fmt.Sprintf("%d invited", reserved))
	if err != nil {
		return nil, err
	}
	if n, err := audited.RowsAffected(); err != nil || n == 0 {
		return nil, errors.Join(errClosed, err)
	}
	return results, tx.Commit()
}

// inPgx calls f with the transaction that is open on conn, as a pgx.Tx. f must not use the
// *sql.Tx: it would wait for f to return. If f fails, roll the *sql.Tx back.
func inPgx(ctx context.Context, conn *sql.Conn, f func(tx pgx.Tx) error) error {
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver's connection is a %T; want pgx's", driverConn)
		}
		// BEGIN has been sent already, so this is a savepoint. If database/sql has rolled the
		// transaction back, because its context ended, PostgreSQL rejects the savepoint: what f
		// writes is never committed alone.
		tx, err := c.Conn().BeginTx(ctx, pgx.TxOptions{
			BeginQuery: "SAVEPOINT clerkinvite", CommitQuery: "RELEASE SAVEPOINT clerkinvite",
		})
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err // without tx.Rollback, which would end the host's transaction
		}
		return tx.Commit(ctx)
	})
}

// AdminUser is a row of admin_user, as sqlc would generate it.
type AdminUser struct{ TenantID, Email, ClerkUserID string }

const listAdmins = `SELECT tenant_id, email, clerk_user_id FROM admin_user WHERE tenant_id = $1 ORDER BY email`

func (h *host) listAdmins(ctx context.Context, tenantID string) (items []AdminUser, err error) {
	rows, err := h.db.QueryContext(ctx, listAdmins, tenantID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var i AdminUser
		if err := rows.Scan(&i.TenantID, &i.Email, &i.ClerkUserID); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// run shows all steps.
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
		before string // a statement of the host
		emails []string
	}{
		{"ada and grace are invited: one commit, then Clerk (grace has an account already)", ``, []string{"ada@example.com", "grace@example.com"}},
		{"ada again, and joan: the duplicate does not abort the transaction", ``, []string{"ada@example.com", "joan@example.com"}},
		{"two more, but the tenant has been closed: everything is rolled back", `UPDATE tenant SET open = false`, []string{"edith@example.com", "mary@example.com"}},
	} {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		_, _ = fmt.Fprintln(out, step.what)
		if _, err := h.db.ExecContext(ctx, step.before); err != nil {
			return err
		}
		results, err := h.inviteAll(ctx, "acme", step.emails)
		switch {
		case errors.Is(err, errClosed):
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

// show prints the database's contents and the emails that Clerk has sent.
func (h *host) show(ctx context.Context, out io.Writer, clerk *clerkinvitetest.Clerk) error {
	var entries int
	if err := h.db.QueryRowContext(ctx, `SELECT count(*) FROM audit`).Scan(&entries); err != nil {
		return err
	}
	admins, err := h.listAdmins(ctx, "acme")
	if err != nil {
		return err
	}
	for _, a := range admins {
		_, _ = fmt.Fprintf(out, "   %-18s %-19s emails: %d\n", a.Email, a.ClerkUserID, clerk.EmailsTo(a.Email))
	}
	_, _ = fmt.Fprintf(out, "   audit rows: %d\n", entries)
	return nil
}
