package sqlitestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	store, err := sqlitestore.Open(filepath.Join(dir, "clerkinvite.db"))
	if err != nil {
		panic(err)
	}
	defer store.Close()
	if err := store.Migrate(ctx); err != nil {
		panic(err)
	}

	clerk := clerkinvitetest.NewClerk() // clerkapi.New in your program
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	if err != nil {
		panic(err)
	}
	m, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "Ada@example.com"})
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Email, m.Status)
	_, err = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(clerkinvite.HTTPError(err))
	// Output:
	// ada@example.com pending
	// 409 ada@example.com is already invited to this tenant
}

// The host's own row and the member are written together or not at all.
func ExampleStore_WithTx() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := sqlitestore.Open(filepath.Join(dir, "clerkinvite.db"))
	if err != nil {
		panic(err)
	}
	defer store.Close()
	if err := store.Migrate(ctx); err != nil {
		panic(err)
	}
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: store})
	if err != nil {
		panic(err)
	}
	if _, err := store.DB().ExecContext(ctx, "CREATE TABLE seat (email TEXT NOT NULL PRIMARY KEY) STRICT"); err != nil {
		panic(err)
	}

	reserve := func(email string) error {
		tx, err := store.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO seat (email) VALUES (?)", email); err != nil {
			return err
		}
		if _, err := svc.InTx(store.WithTx(tx)).Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			return err
		}
		return tx.Commit()
	}
	if err := reserve("ada@example.com"); err != nil {
		panic(err)
	}
	report, err := svc.Deliver(ctx, nil) // or leave it to Run
	if err != nil {
		panic(err)
	}
	fmt.Println("invited:", report.Invited)
	// Output:
	// invited: 1
}
