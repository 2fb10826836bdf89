// Quickstart shows the whole life of an invitation in one run.
//
//	go run ./examples/quickstart
//
// It needs only Go: it starts a fake Clerk on loopback, calls it through Clerk's SDK, and
// keeps the rows in memory. With -database postgres://…, the rows are in a temporary schema
// of that database.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func main() {
	database := flag.String("database", "", "keep the rows in a temporary schema of the PostgreSQL database with this `URL`")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // drop the schema even if "| head" has closed the output
	ctx := context.Background()
	store, closeStore, err := openStore(ctx, *database)
	if err != nil {
		log.Fatal("quickstart: ", err)
	}
	err = run(ctx, store)
	closeStore()
	if err != nil {
		log.Fatal("quickstart: ", err)
	}
}

// now is the clock. The last but one step advances it instead of waiting a minute.
// In production, leave Config.Now and PgxOptions.Now out.
var now = time.Now

// openStore returns a store in the database with the URL, or in memory.
func openStore(ctx context.Context, url string) (store clerkinvite.Store, closeStore func(), err error) {
	if url == "" {
		fmt.Println("Store: in memory (-database postgres://… uses PostgreSQL)")
		return clerkinvitetest.NewMemoryStore(), func() {}, nil
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, nil, err
	}
	schema := fmt.Sprintf("clerkinvite_quickstart_%d", time.Now().UnixNano())
	pgStore := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema, Now: func() time.Time { return now() }})
	if err := pgStore.Migrate(ctx); err != nil {
		pool.Close()
		return nil, nil, err
	}
	fmt.Println("Store: PostgreSQL")
	return pgStore, func() {
		_, _ = pool.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{schema}.Sanitize()+" CASCADE")
		pool.Close()
	}, nil
}

// run runs all steps against a fake Clerk.
func run(ctx context.Context, store clerkinvite.Store) error {
	clerk := clerkinvitetest.NewClerk()
	server := httptest.NewServer(clerk.Handler())
	defer server.Close()
	fmt.Println("Clerk: a fake on loopback, through Clerk's SDK")

	api, err := clerkapi.New("sk_test_quickstart", &clerkapi.Options{BaseURL: server.URL + "/v1"})
	if err != nil {
		return err
	}
	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Now: func() time.Time { return now() }})
	if err != nil {
		return err
	}
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	if err != nil {
		return err
	}
	webhooks := svc.WebhookHandler(verifier)
	invite := func(email string) (*clerkinvite.Member, error) {
		return svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email, Role: "admin", InvitedBy: "user_you"})
	}

	step("grace@example.com already has a Clerk account: she is linked, without an email")
	clerk.AddVerifiedUser("grace@example.com")
	m, err := invite("grace@example.com")
	if err != nil {
		return err
	}
	show(m, clerk)

	step("ada@example.com is new: Clerk sends an invitation, and the row has a pending ID")
	if m, err = invite("Ada@Example.com"); err != nil {
		return err
	}
	show(m, clerk)

	step("Inviting her again is a duplicate: the database says so, and Clerk is not called")
	if _, err = invite("ada@example.com"); err == nil {
		return errors.New("the duplicate was not detected")
	}
	status, message := clerkinvite.HTTPError(err)
	fmt.Printf("   HTTP %d  %s\n", status, message)

	step("Clerk sends joan@example.com her email, but its response is lost")
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.HTML502})
	if _, err = invite("joan@example.com"); err == nil {
		return errors.New("the fault had no effect")
	}
	status, message = clerkinvite.HTTPError(err)
	fmt.Printf("   HTTP %d  %s\n", status, message)
	if m, err = svc.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: "joan@example.com"}); err != nil {
		return err
	}
	show(m, clerk)

	step("A minute later Deliver checks Clerk before it sends, and adopts the invitation")
	now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	report, err := svc.Deliver(ctx, nil)
	if err != nil {
		return err
	}
	now = time.Now
	fmt.Printf("   %d recovered; emails sent to joan@example.com: %d\n", report.Invited, clerk.EmailsTo("joan@example.com"))
	if m, err = svc.Get(ctx, m.Ref()); err != nil {
		return err
	}
	show(m, clerk)

	step("Ada follows the link and signs up; Clerk's signed webhook arrives")
	webhook, err := clerk.Accept("ada@example.com")
	if err != nil {
		return err
	}
	recorder := httptest.NewRecorder()
	webhooks.ServeHTTP(recorder, webhook.Request(clerkinvitetest.WebhookSecret, "/webhooks/clerk"))
	fmt.Printf("   HTTP %d\n", recorder.Code)
	if recorder.Code != http.StatusNoContent {
		return errors.New("the webhook was rejected: " + recorder.Body.String())
	}
	if m, err = svc.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		return err
	}
	show(m, clerk)
	fmt.Printf("\nEmails in total: %d\n", clerk.Emails())
	return nil
}

var steps int

func step(what string) {
	steps++
	fmt.Printf("\n%d. %s\n", steps, what)
}

// show prints a row, and how many emails went to that person.
func show(m *clerkinvite.Member, clerk *clerkinvitetest.Clerk) {
	id := m.ClerkUserID
	if id == "" {
		id = "(none yet)"
	}
	fmt.Printf("   %-18s %-9s %s  emails: %d\n", m.Email, m.Status, id, clerk.EmailsTo(m.Email))
}
