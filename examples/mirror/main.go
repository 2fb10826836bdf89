// Mirror is an application that already has a table admin_user, with rows, queries and foreign keys.
// clerkinvite.Mirror keeps admin_user equal to the members at every commit, no matter what writes
// them, so nothing else in the application has to change.
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
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

// hostTables are the host's existing tables.
const hostTables = `
CREATE TABLE admin_user (
	id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	tenant_id     text NOT NULL,
	email         text NOT NULL,
	clerk_user_id text NOT NULL, -- 'pending_…' until the person has accepted
	deleted_at    timestamptz,
	created_at    timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT admin_user_email_key UNIQUE (tenant_id, email),
	CONSTRAINT admin_user_clerk_user_id_key UNIQUE (tenant_id, clerk_user_id)
);
CREATE TABLE document (
	title text PRIMARY KEY,
	owner uuid NOT NULL REFERENCES admin_user
);`

// mirror describes admin_user. Documents refer to its rows, so the row of a person who leaves stays.
var mirror = clerkinvite.Mirror{
	Table: "admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id", LeftColumn: "deleted_at",
}

// host is an application with members in one tenant.
type host struct {
	pool    *pgxpool.Pool
	clerk   *clerkinvitetest.Clerk
	invites *clerkinvite.Service
	tenant  string
}

// newHost adds the library to a database with the host's tables: it adopts the rows that exist, and then creates
// the mirror. In an application, the SQL that Up and Sync return is a migration. now is nil except in tests.
func newHost(ctx context.Context, pool *pgxpool.Pool, clerk *clerkinvitetest.Clerk, tenant string, now func() time.Time) (*host, error) {
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Now: now})
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	invites, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Now: now})
	if err != nil {
		return nil, err
	}
	h := &host{pool, clerk, invites, tenant}
	if err := h.adopt(ctx); err != nil {
		return nil, err
	}
	up, err := mirror.Up()
	if err != nil {
		return nil, err
	}
	sync, err := mirror.Sync()
	if err != nil {
		return nil, err
	}
	_, err = pool.Exec(ctx, up+sync) // one transaction
	return h, err
}

// adopt makes members of the rows that exist.
func (h *host) adopt(ctx context.Context) error {
	rows, err := h.pool.Query(ctx, `SELECT tenant_id::text, email::text, clerk_user_id, created_at FROM admin_user WHERE deleted_at IS NULL`)
	if err != nil {
		return err
	}
	people, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a clerkinvite.AdoptParams, err error) {
		err = row.Scan(&a.TenantID, &a.Email, &a.ClerkUserID, &a.ReservedAt)
		return a, err
	})
	if err != nil {
		return err
	}
	results, err := h.invites.Adopt(ctx, people)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	return err
}

func (h *host) ref(name string) clerkinvite.Ref {
	return clerkinvite.Ref{TenantID: h.tenant, Email: name + "@example.com"}
}

func (h *host) invite(ctx context.Context, name string) error {
	_, err := h.invites.Invite(ctx, clerkinvite.InviteParams{TenantID: h.tenant, Email: h.ref(name).Email})
	return err
}

// webhook handles a webhook. WebhookHandler verifies it first.
func (h *host) webhook(ctx context.Context, w clerkinvitetest.Webhook) error {
	event, err := clerkinvite.ParseEvent(w.Payload)
	if err != nil {
		return err
	}
	_, err = h.invites.HandleEvent(ctx, event)
	return err
}

// differences returns how many rows of admin_user differ from the members.
func (h *host) differences(ctx context.Context) (n int, err error) {
	sql, err := mirror.Differences()
	if err != nil {
		return 0, err
	}
	err = h.pool.QueryRow(ctx, "SELECT count(*) FROM ("+sql+") x").Scan(&n)
	return n, err
}

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error {
		return run(ctx, pool, os.Stdout, hostTables, "acme")
	})
}

// run shows all steps.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer, tables, tenant string) error {
	clerk := clerkinvitetest.NewClerk()
	if err := oldRows(ctx, pool, clerk, tables, tenant); err != nil {
		return err
	}
	h, err := newHost(ctx, pool, clerk, tenant, nil)
	if err != nil {
		return err
	}
	if err := h.show(ctx, out, "The 40 existing rows are adopted, then mirrored", "old1"); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(ctx context.Context) error
		show string
	}{
		{"Eight admins invite ada at the same time", h.eightInvites, "ada"},
		{"ada accepts, and Clerk's webhook arrives", func(ctx context.Context) error {
			w, err := clerk.Accept(h.ref("ada").Email)
			if err != nil {
				return err
			}
			return h.webhook(ctx, w)
		}, "ada"},
		{"old1 wrote a document and is removed: the row stays for the document, without the user", func(ctx context.Context) error {
			if _, err := pool.Exec(ctx, `INSERT INTO document SELECT 'compilers', id FROM admin_user WHERE email = 'old1@example.com'`); err != nil {
				return err
			}
			_, err := h.invites.Remove(ctx, h.ref("old1"))
			return err
		}, "old1"},
		{"An operator revokes old2 with the command, which does not know the host", func(ctx context.Context) error {
			command, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvite.NewPgxStore(pool, nil)})
			if err != nil {
				return err
			}
			_, err = command.Revoke(ctx, h.ref("old2"))
			return err
		}, "old2"},
		{"old3's user is deleted at Clerk", func(ctx context.Context) error {
			m, err := h.invites.Get(ctx, h.ref("old3"))
			if err != nil {
				return err
			}
			return h.webhook(ctx, clerk.DeleteUser(m.ClerkUserID))
		}, "old3"},
		{"Clerk is down: grace is reserved and has no row yet", func(ctx context.Context) error {
			clerk.Fail(clerkinvitetest.Fault{Status: 503, Times: -1})
			err := h.invite(ctx, "grace")
			if failed := new(clerkinvite.ClerkInvitationError); !errors.As(err, &failed) {
				return fmt.Errorf("grace was invited: %w", err)
			}
			return nil
		}, "grace"},
		{"Clerk is back, and grace is invited", func(ctx context.Context) error {
			clerk.ClearFaults()
			return h.invite(ctx, "grace")
		}, "grace"},
		{"old4 asks to be forgotten", func(ctx context.Context) error { return h.invites.Purge(ctx, h.ref("old4")) }, "old4"},
	} {
		if err := step.do(ctx); err != nil {
			return err
		}
		if err := h.show(ctx, out, step.what, step.show); err != nil {
			return err
		}
	}
	return nil
}

// oldRows creates the host's tables with 40 rows: every second person has accepted.
func oldRows(ctx context.Context, pool *pgxpool.Pool, clerk *clerkinvitetest.Clerk, tables, tenant string) error {
	if _, err := pool.Exec(ctx, tables); err != nil {
		return err
	}
	for i := range 40 {
		email := fmt.Sprintf("old%d@example.com", i)
		var id string
		if i%2 == 1 {
			id = clerk.AddVerifiedUser(email).ID
		} else {
			id = clerkinvite.PendingID(clerk.CreateForeign(email, nil).ID)
		}
		if _, err := pool.Exec(ctx, `INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ($1, $2, $3)`, tenant, email, id); err != nil {
			return err
		}
	}
	return nil
}

// eightInvites fails unless exactly one of eight concurrent invites succeeds.
func (h *host) eightInvites(ctx context.Context) error {
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = h.invite(ctx, "ada") })
	}
	wg.Wait()
	duplicates := 0
	for _, err := range errs {
		if dup := new(clerkinvite.DuplicateEmailError); errors.As(err, &dup) {
			duplicates++
		} else if err != nil {
			return err
		}
	}
	if sent := h.clerk.EmailsTo(h.ref("ada").Email); duplicates != 7 || sent != 1 {
		return fmt.Errorf("%d duplicates and %d emails", duplicates, sent)
	}
	return nil
}

// show prints a member beside its row, and fails if the tables differ.
func (h *host) show(ctx context.Context, out io.Writer, what, name string) error {
	status, member := "none", "-"
	switch m, err := h.invites.Get(ctx, h.ref(name)); {
	case errors.Is(err, clerkinvite.ErrNotFound):
	case err != nil:
		return err
	case m.ClerkUserID == "":
		status = string(m.Status)
	default:
		status, member = string(m.Status), m.ClerkUserID
	}
	var rows int
	var row string
	if err := h.pool.QueryRow(ctx, `
SELECT count(*) FILTER (WHERE deleted_at IS NULL), coalesce(max(regexp_replace(clerk_user_id, '^left_.*', 'left_…')) FILTER (WHERE email = $1), '-')
FROM admin_user`, h.ref(name).Email).Scan(&rows, &row); err != nil {
		return err
	}
	n, err := h.differences(ctx)
	if err != nil || n > 0 {
		return errors.Join(fmt.Errorf("after %q %d rows differ", what, n), err)
	}
	_, err = fmt.Fprintf(out, "%s\n   %s: member %s %s, admin_user %s; %d rows, both tables agree\n", what, name, status, member, row, rows)
	return err
}
