package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

// done prints the document of a command that has nothing else to say.
func (t *tool) done(text string) error {
	return t.print(struct {
		OK bool `json:"ok"`
	}{true}, func(w io.Writer) { fmt.Fprintln(w, text) })
}

func schemaCommands() []command {
	return []command{
		{
			name: "migrate", summary: "create or update the tables",
			details: `It is safe while the application runs, and any number of processes may run it. Does nothing if the tables are up to date. Fails if
another tool created the tables from the library's SQL: continue with that tool. Reports missing parts of the tables, but does not
recreate them.

  clerkinvite migrate
  clerkinvite migrate --schema invitations    # creates the schema, too

As JSON: {"ok": true}`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error {
				return func(ctx context.Context, _ []string) error {
					if err := t.withStore(ctx, migrate); err != nil {
						return err
					}
					return t.done("The tables are up to date.")
				}
			},
		},
		{
			name: "validate", summary: "check the tables",
			details: `Changes nothing, and works no matter which tool created the tables. It prints every fault. The exit code is 1 if there is one.

  clerkinvite validate

As JSON: {"ok": true}, or {"error": "…"}`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error {
				return func(ctx context.Context, _ []string) error {
					if err := t.withStore(ctx, (*clerkinvite.PgxStore).Validate); err != nil {
						return err
					}
					return t.done("The tables match this version.")
				}
			},
		},
	}
}

// migrate also validates, because Migrate does not repair manual changes.
func migrate(store *clerkinvite.PgxStore, ctx context.Context) error { //nolint:revive // as (*clerkinvite.PgxStore).Validate
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	err := store.Validate(ctx)
	if err == nil || errors.Is(err, clerkinvite.ErrSchemaNewer) {
		return nil
	}
	return fmt.Errorf("all migrations are recorded as done, but something is missing or different; restore it from a backup, "+
		"or by hand with the SQL in the library's directory migrations:\n%w", err)
}

// requireTables returns an error of the caller if the library's tables do not exist.
func (t *tool) requireTables(ctx context.Context, pool *pgxpool.Pool) error {
	var exist bool
	err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", t.table("clerkinvite_member").Sanitize()).Scan(&exist)
	if err == nil && !exist {
		err = usagef("the library's tables do not exist; run \"clerkinvite migrate\" first, or set --schema to their schema; nothing was written")
	}
	return err
}

func (t *tool) withStore(ctx context.Context, do func(*clerkinvite.PgxStore, context.Context) error) error {
	store, pool, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(store, ctx)
}
