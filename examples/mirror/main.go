// Mirror is a host that already has a table admin_user, with queries and foreign keys on
// it. PgxOptions.OnChange keeps admin_user in sync with the members at every commit, so
// nothing else in the application has to change.
//
//	go run ./examples/mirror
//
// It starts a temporary PostgreSQL, or uses a temporary schema in DATABASE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

// hostTables are the host's existing tables.
const hostTables = `
CREATE TABLE admin_user (
	id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	email         text NOT NULL,
	clerk_user_id text NOT NULL, -- 'pending_…' until the person has accepted
	tenant_id     text NOT NULL,
	created_at    timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT admin_user_email_key UNIQUE (tenant_id, email),
	CONSTRAINT admin_user_clerk_user_id_key UNIQUE (tenant_id, clerk_user_id)
);
CREATE TABLE document (
	title text PRIMARY KEY,
	owner uuid NOT NULL REFERENCES admin_user
);`

// The changes of admin_user, one statement for any number of members.
const (
	// A person who was invited or linked has a row. The key is the address, so a person who
	// was in the table before, or comes back, keeps the ID and everything that refers to it.
	joinSQL = `
INSERT INTO admin_user (tenant_id, email, clerk_user_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (tenant_id, email) DO UPDATE SET clerk_user_id = excluded.clerk_user_id`

	// A person who left keeps the row, because documents refer to it, but not the Clerk
	// user: from this commit on, a query for the signed-in user does not find them.
	leaveSQL = `
UPDATE admin_user a SET clerk_user_id = 'left_' || a.id
FROM unnest($1::text[], $2::text[]) AS m (tenant_id, email)
WHERE a.tenant_id = m.tenant_id AND a.email = m.email`

	// A purged person has no row. If a document still refers to it, the foreign key makes the
	// purge fail: the host must first decide what happens to the document.
	eraseSQL = `
DELETE FROM admin_user a
USING unnest($1::text[], $2::text[]) AS m (tenant_id, email)
WHERE a.tenant_id = m.tenant_id AND a.email = m.email`
)

// mirror is the OnChange of the store. It runs in the transaction that changes the members:
// if it fails, they are unchanged.
//
// A reserved member has no Clerk user ID, not even a pending one, so it has no row yet.
func mirror(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	var join, leave, erase people
	for _, c := range changes {
		was, is := "", ""
		if c.Old != nil {
			was = c.Old.ClerkUserID
		}
		if c.New != nil {
			is = c.New.ClerkUserID
		}
		switch {
		case c.New == nil:
			erase.add(c.Old)
		case is == was: // not visible in admin_user, such as a reservation
		case is == "":
			leave.add(c.New)
		default:
			join.add(c.New)
		}
	}
	// In this order, because the same user may leave and join under another address.
	if err := erase.exec(ctx, tx, eraseSQL, erase.tenants, erase.emails); err != nil {
		return err
	}
	if err := leave.exec(ctx, tx, leaveSQL, leave.tenants, leave.emails); err != nil {
		return err
	}
	return join.exec(ctx, tx, joinSQL, join.tenants, join.emails, join.users)
}

// people are the columns of rows to change.
type people struct{ tenants, emails, users []string }

func (p *people) add(m *clerkinvite.Member) {
	p.tenants, p.emails, p.users = append(p.tenants, m.TenantID), append(p.emails, m.Email), append(p.users, m.ClerkUserID)
}

func (p *people) exec(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	if len(p.tenants) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, sql, args...)
	return err
}

// newService returns a service whose members are mirrored. now is nil except in tests.
func newService(ctx context.Context, pool *pgxpool.Pool, api clerkinvite.ClerkAPI, now func() time.Time) (*clerkinvite.Service, error) {
	if _, err := pool.Exec(ctx, hostTables); err != nil {
		return nil, err
	}
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: mirror, Now: now})
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	return clerkinvite.New(clerkinvite.Config{API: api, Store: store, Now: now})
}

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// run shows all steps.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	clerk := clerkinvitetest.NewClerk()
	clerk.AddVerifiedUser("grace@example.com")
	invites, err := newService(ctx, pool, clerk, nil)
	if err != nil {
		return err
	}
	ref := func(name string) clerkinvite.Ref {
		return clerkinvite.Ref{TenantID: "acme", Email: name + "@example.com"}
	}
	invite := func(name string) error {
		_, err := invites.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: ref(name).Email})
		return err
	}

	for i, step := range []struct {
		what string
		do   func() error
	}{
		{"ada is invited: her row has a pending ID", func() error { return invite("ada") }},
		{"grace already has a Clerk account: she is linked immediately", func() error { return invite("grace") }},
		{"ada accepts, and Clerk's webhook arrives", func() error {
			webhook, err := clerk.Accept(ref("ada").Email)
			if err != nil {
				return err
			}
			event, err := clerkinvite.ParseEvent(webhook.Payload) // WebhookHandler verifies it first
			if err != nil {
				return err
			}
			_, err = invites.HandleEvent(ctx, event)
			return err
		}},
		{"grace writes a document and is removed: her row stays for the document, without her user", func() error {
			if _, err := pool.Exec(ctx, `INSERT INTO document SELECT 'compilers', id FROM admin_user WHERE email = $1`, ref("grace").Email); err != nil {
				return err
			}
			_, err := invites.Remove(ctx, ref("grace"))
			return err
		}},
		{"grace cannot be purged yet: the document refers to her row, and the foreign key protects it", func() error {
			var refused *pgconn.PgError
			if err := invites.Purge(ctx, ref("grace")); !errors.As(err, &refused) {
				return fmt.Errorf("the purge was not refused: %w", err)
			}
			_, _ = fmt.Fprintf(out, "   refused by %s\n", refused.ConstraintName)
			return nil
		}},
		{"the document is deleted, and grace purged", func() error {
			if _, err := pool.Exec(ctx, `DELETE FROM document`); err != nil {
				return err
			}
			return invites.Purge(ctx, ref("grace"))
		}},
	} {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		_, _ = fmt.Fprintln(out, step.what)
		if err := step.do(); err != nil {
			return err
		}
		if err := show(ctx, pool, out); err != nil {
			return err
		}
	}
	return nil
}

// show prints the host's table beside the members.
func show(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	rows, err := pool.Query(ctx, `
SELECT email, status, coalesce(m.clerk_user_id, '-'), coalesce(replace(a.clerk_user_id, a.id::text, '…'), '-')
FROM clerkinvite_member m LEFT JOIN admin_user a USING (tenant_id, email) ORDER BY email`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var email, status, member, admin string
		if err := rows.Scan(&email, &status, &member, &admin); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "   %-18s member: %-8s %-19s admin_user: %s\n", email, status, member, admin)
	}
	return rows.Err()
}
