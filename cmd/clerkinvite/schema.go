package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/clerkinvite/clerkinvite"
)

func schemaCommands() []command {
	document := func(t *tool, done string) error {
		return t.print(struct {
			OK bool `json:"ok"`
		}{true}, func(w io.Writer) { fmt.Fprintln(w, done) })
	}
	return []command{
		{
			name: "migrate", summary: "make the tables, or bring them up to this version",
			details: `Safe while the application runs, and when many call it at once. Does nothing if the tables are up to date. It refuses
tables that another tool has made from the library's SQL: go on with that tool. What somebody has taken away from the tables it
names, and does not make again.

  clerkinvite migrate
  clerkinvite migrate --schema invitations    # makes the schema too

As JSON: {"ok": true}`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error {
				return func(ctx context.Context, _ []string) error {
					if err := t.withStore(ctx, migrate); err != nil {
						return err
					}
					return document(t, "The tables are up to date.")
				}
			},
		},
		{
			name: "validate", summary: "check that the tables are there and current",
			details: `Changes nothing, and works no matter who made the tables. Every fault is named; the exit code is 1 then.

  clerkinvite validate

As JSON: {"ok": true}, or {"error": "…"}`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error {
				return func(ctx context.Context, _ []string) error {
					if err := t.withStore(ctx, (*clerkinvite.PgxStore).Validate); err != nil {
						return err
					}
					return document(t, "The tables are what this version needs.")
				}
			},
		},
	}
}

// migrate also looks what came of it: what was changed by hand after a migration is not made again.
func migrate(store *clerkinvite.PgxStore, ctx context.Context) error { //nolint:revive // as (*clerkinvite.PgxStore).Validate
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	err := store.Validate(ctx)
	if err == nil || errors.Is(err, clerkinvite.ErrSchemaNewer) {
		return nil
	}
	return fmt.Errorf("all migrations are recorded as done, and yet something is missing or different; bring it back from a backup, "+
		"or by hand with the SQL in the library's directory migrations:\n%w", err)
}

func (t *tool) withStore(ctx context.Context, do func(*clerkinvite.PgxStore, context.Context) error) error {
	store, pool, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(store, ctx)
}
