// Adopt writes a member for each row of admin_user, a table that is older than the library, and lists the rows
// that it could not adopt. If there are members already, it also lists the new ones. Without -commit it only
// creates the library's tables. docs/migrating.md has the steps before and after.
//
//	DATABASE_URL=postgres://… go run ./examples/adopt [-commit]
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// oldRows selects users before invitations and newer rows before older ones, because the first row with an address or
// a user is adopted. It works without the columns role, created_at and id, too, because it reads them from the row as JSON.
const oldRows = `
SELECT coalesce(tenant_id::text, ''), coalesce(email::text, ''), coalesce(clerk_user_id, ''), coalesce(to_jsonb(a) ->> 'role', ''),
	coalesce((to_jsonb(a) ->> 'created_at')::timestamptz, now()) AS invited_at
FROM admin_user AS a
ORDER BY clerk_user_id NOT LIKE 'user\_%', invited_at DESC, to_jsonb(a) -> 'id' DESC`

func main() {
	commit := flag.Bool("commit", false, "keep the members")
	flag.Parse()
	ctx := context.Background()
	conn := must(pgx.Connect(ctx, os.Getenv("DATABASE_URL")))
	store := clerkinvite.NewPgxStore(conn, nil) // with OnChange, if you use it
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	api := must(clerkapi.New("sk_test_unused", nil)) // Adopt does not call Clerk
	invites := must(clerkinvite.New(clerkinvite.Config{API: api, Store: store}))

	tx := must(conn.Begin(ctx))
	must(tx.Exec(ctx, "LOCK TABLE admin_user IN SHARE MODE")) // no other session writes to it
	rows := must(tx.Query(ctx, oldRows))
	people := must(pgx.CollectRows(rows, func(row pgx.CollectableRow) (a clerkinvite.AdoptParams, err error) {
		err = row.Scan(&a.TenantID, &a.Email, &a.ClerkUserID, &a.Role, &a.ReservedAt)
		return a, err
	}))
	known := make(map[string]bool)
	for _, id := range must(pgx.CollectRows(must(tx.Query(ctx, "SELECT id::text FROM clerkinvite_member")), pgx.RowTo[string])) {
		known[id] = true
	}
	adopted := 0
	for i, r := range must(invites.InTx(store.WithTx(tx)).Adopt(ctx, people)) {
		outcome := "new member"
		if r.Err == nil {
			adopted++
			if len(known) == 0 || known[r.Member.ID] {
				continue
			}
		} else {
			outcome = r.Err.Error()
		}
		fmt.Printf("%q %q %q: %s\n", people[i].TenantID, people[i].Email, people[i].ClerkUserID, outcome)
	}
	fmt.Println(adopted, "members,", len(people)-adopted, "rows not adopted")
	if *commit {
		if err := tx.Commit(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err) // nothing is kept
	}
	return v
}
