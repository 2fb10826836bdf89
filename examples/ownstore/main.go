// Ownstore is an application that keeps members in its own table admin_user, with
// a clerkinvite.Store of 300 lines. See store.go and schema.sql; main.go only
// demonstrates it.
//
//	go run ./examples/ownstore
//
// It starts a temporary PostgreSQL, or uses a temporary schema in DATABASE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// run shows all steps.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	if _, err := pool.Exec(ctx, schema); err != nil {
		return err
	}
	clerk := clerkinvitetest.NewClerk()
	invites, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: &Store{pool}})
	if err != nil {
		return err
	}
	invite := func(email string) error {
		_, err := invites.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
		return err
	}
	clerk.AddVerifiedUser("grace@example.com")

	for i, step := range []struct {
		what string
		do   func() error
	}{
		{"ada is invited; grace already has a Clerk account", func() error {
			return errors.Join(invite("ada@example.com"), invite("grace@example.com"))
		}},
		{"ada again: 23505", func() error {
			status, message := clerkinvite.HTTPError(invite("ada@example.com"))
			_, _ = fmt.Fprintf(out, "   HTTP %d  %s\n", status, message)
			return nil
		}},
		{"ada accepts, and Clerk's webhook arrives", func() error {
			webhook, err := clerk.Accept("ada@example.com")
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
		{"grace leaves", func() error {
			_, err := invites.Remove(ctx, clerkinvite.Ref{TenantID: "acme", Email: "grace@example.com"})
			return err
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

// show prints the host's table.
func show(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	rows, err := pool.Query(ctx, `SELECT email, status, coalesce(nullif(clerk_user_id, ''), '-') FROM admin_user ORDER BY email`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var email, status, userID string
		if err := rows.Scan(&email, &status, &userID); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "   %-18s %-8s %s\n", email, status, userID)
	}
	return rows.Err()
}
