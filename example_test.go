package clerkinvite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// exampleService is a service on a fake Clerk and an in-memory store. A host uses
// clerkapi.New and clerkinvite.NewPgxStore instead.
func exampleService() (*clerkinvite.Service, *clerkinvitetest.Clerk) {
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	if err != nil {
		panic(err)
	}
	return svc, clerk
}

// exampleTenant is an exampleService with three members of tenant acme: Grace is active, Ada and Joan are pending.
func exampleTenant(ctx context.Context) *clerkinvite.Service {
	svc, clerk := exampleService()
	clerk.AddVerifiedUser("grace@example.com")
	for _, email := range []string{"ada@example.com", "grace@example.com", "joan@example.com"} {
		if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			panic(err)
		}
	}
	return svc
}

func ExampleNew() {
	_, err := clerkinvite.New(clerkinvite.Config{ExpiresInDays: 1000})
	fmt.Println(err)
	// Output:
	// clerkinvite: Config.API is missing: set it to the result of clerkapi.New
	// clerkinvite: Config.Store is missing: set it to the result of NewPgxStore
	// clerkinvite: Config.ExpiresInDays must be 1 to 365, or 0 for 30
}

func ExampleService_Invite() {
	ctx := context.Background()
	svc, clerk := exampleService()
	clerk.AddVerifiedUser("grace@example.com")

	for _, email := range []string{"grace@example.com", "Ada@Example.com", "ada@example.com"} {
		member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
		if err != nil {
			status, message := clerkinvite.HTTPError(err)
			fmt.Println(status, message)
			continue
		}
		fmt.Println(member.Email, member.Status, "waiting:", clerkinvite.IsPending(member.ClerkUserID))
	}
	fmt.Println("emails:", clerk.Emails())
	// Output:
	// grace@example.com active waiting: false
	// ada@example.com pending waiting: true
	// 409 ada@example.com is already invited to this tenant
	// emails: 1
}

// Tenant acme is the organization org_acme. An existing user is asked, unless AddExisting is set, and a
// member of the organization is linked without an email.
func ExampleOrganization() {
	ctx := context.Background()
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: clerk, Organizations: clerk, Store: clerkinvitetest.NewMemoryStore(),
		Authorize: func(_ context.Context, p *clerkinvite.InviteParams) error { // no call can forget the organization
			p.Organization = &clerkinvite.Organization{ID: "org_" + p.TenantID, AddExisting: p.Email == "grace@example.com"}
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	clerk.AddOrganization("org_acme", clerkinvitetest.OrganizationSpec{})
	ada := clerk.AddVerifiedUser("ada@example.com")
	clerk.AddVerifiedUser("grace@example.com")
	for _, email := range []string{"ada@example.com", "grace@example.com"} {
		member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
		if err != nil {
			panic(err)
		}
		fmt.Println(email, member.Status)
	}
	invitation := clerk.OpenInvitations("ada@example.com")[0]
	if err := clerk.AcceptOrganization(invitation.ID, ada.ID); err != nil {
		panic(err)
	}
	changed, err := svc.ResolveUser(ctx, ada.ID) // at sign-in
	if err != nil {
		panic(err)
	}
	fmt.Println(changed[0].Email, changed[0].Status, "emails:", clerk.Emails())

	member, err := svc.Remove(ctx, changed[0].Ref())
	if err != nil {
		panic(err)
	}
	fmt.Println(member.Status, "members left:", len(clerk.Members("org_acme")))
	// Output:
	// ada@example.com pending
	// grace@example.com active
	// ada@example.com active emails: 1
	// removed members left: 1
}

// Do not look for the member before inviting: a
// look-up before the insert lets two callers through. Only Invite decides.
func ExampleService_Invite_incorrect() {
	ctx := context.Background()
	svc, clerk := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}

	// Wrong: anything can happen between Get and Invite, and Invite returns the duplicate anyway.
	if _, err := svc.Get(ctx, ref); errors.Is(err, clerkinvite.ErrNotFound) {
		_, _ = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
	}
	// Right: one call, whose error decides.
	_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
	var duplicate *clerkinvite.DuplicateEmailError
	fmt.Println(errors.As(err, &duplicate), clerk.Emails())
	// Output: true 1
}

func ExampleService_Get() {
	ctx := context.Background()
	svc, _ := exampleService()
	_, err := svc.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(clerkinvite.HTTPError(err))
	// Output: 404 no such member
}

func ExampleService_Reserve() {
	ctx := context.Background()
	svc, clerk := exampleService()
	member, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(member.Status, err, clerk.Emails())
	// Output: reserved <nil> 0
}

// A request handler delivers the members that it has reserved, and leaves the others to Run.
func ExampleService_DeliverMembers() {
	ctx := context.Background()
	svc, _ := exampleService()
	var mine []clerkinvite.Ref
	for _, email := range []string{"ada@example.com", "joan@example.com"} {
		member, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
		if err != nil {
			panic(err)
		}
		mine = append(mine, member.Ref())
	}
	report, err := svc.DeliverMembers(ctx, mine[1:])
	fmt.Println("invited:", report.Invited, "error:", err)
	// Output: invited: 1 error: <nil>
}

func ExampleService_InTx() {
	ctx := context.Background()
	svc, clerk := exampleService()

	// With PostgreSQL this is store.WithTx(tx), and the row commits or rolls back with tx.
	var tx clerkinvite.TxStore = clerkinvitetest.NewMemoryStore()
	member, err := svc.InTx(tx).Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(member.Status, err, clerk.RequestCount())
	// Output: reserved <nil> 0
}

func ExampleService_Deliver() {
	ctx := context.Background()
	svc, clerk := exampleService()
	for _, email := range []string{"ada@example.com", "joan@example.com"} {
		if _, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			panic(err)
		}
	}
	report, err := svc.Deliver(ctx, nil)
	fmt.Println("invited:", report.Invited, "error:", err, "emails:", clerk.Emails())
	// Output: invited: 2 error: <nil> emails: 2
}

// Clerk sends the email, but its response is lost. Nothing is lost or
// sent twice.
func ExampleService_Deliver_lostAnswer() {
	ctx := context.Background()
	clerk := clerkinvitetest.NewClerk()
	now := time.Now()
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: func() time.Time { return now },
	})
	if err != nil {
		panic(err)
	}
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.HTML502})
	_, err = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(clerkinvite.HTTPError(err))

	now = now.Add(2 * time.Minute) // the attempt's lease has ended
	report, err := svc.Deliver(ctx, nil)
	fmt.Println("invited:", report.Invited, "error:", err, "emails:", clerk.Emails())
	// Output:
	// 502 invitation service unavailable; the invitation is saved and will be retried
	// invited: 1 error: <nil> emails: 1
}

func ExampleService_HandleEvent() {
	ctx := context.Background()
	svc, clerk := exampleService()
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	if err != nil {
		panic(err)
	}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}
	webhook, err := clerk.Accept("ada@example.com")
	if err != nil {
		panic(err)
	}
	event, err := verifier.Verify(webhook.Payload, webhook.Sign(clerkinvitetest.WebhookSecret))
	if err != nil {
		panic(err)
	}
	changed, err := svc.HandleEvent(ctx, event)
	fmt.Println(len(changed), changed[0].Status, err)
	// Output: 1 active <nil>
}

func ExampleService_WebhookHandler() {
	ctx := context.Background()
	svc, clerk := exampleService()
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	if err != nil {
		panic(err)
	}
	handler := svc.WebhookHandler(verifier)
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}
	webhook, err := clerk.Accept("ada@example.com")
	if err != nil {
		panic(err)
	}
	for _, secret := range []string{clerkinvitetest.WebhookSecret, "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBrZXk="} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, webhook.Request(secret, "/webhooks/clerk"))
		fmt.Println(w.Code)
	}
	// Output:
	// 204
	// 400
}

func ExampleService_ResolveUser() {
	ctx := context.Background()
	svc, clerk := exampleService()
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}
	user := clerk.AddVerifiedUser("ada@example.com") // the webhook never comes; she signs in
	members, err := svc.ResolveUser(ctx, user.ID)
	fmt.Println(len(members), members[0].ClerkUserID == user.ID, err)
	// Output: 1 true <nil>
}

func ExampleService_Resolve() {
	ctx := context.Background()
	svc, clerk := exampleService()
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}
	members, err := svc.Resolve(ctx, clerk.AddVerifiedUser("ada@example.com"))
	fmt.Println(len(members), members[0].Status, err)
	// Output: 1 active <nil>
}

// The log contains no address.
func ExampleMember_LogValue() {
	svc, _ := exampleService()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "member" || a.Key == "clerk_user_id" {
			return slog.Attr{} // different each time
		}
		return a
	}}))
	member, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	logger.Info("invited", "m", member, "err", err)
	// Output: level=INFO msg=invited m.tenant=acme m.status=pending m.send=1 m.sent=1 m.attempts=1 m.version=2 err=<nil>
}

// One result for each input, in the same order. An invalid input does not block the others.
func ExampleService_InviteMany() {
	ctx := context.Background()
	svc, clerk := exampleService()
	clerk.AddVerifiedUser("grace@example.com")

	var people []clerkinvite.InviteParams
	for _, email := range []string{"ada@example.com", "grace@example.com", "not an address", "ADA@example.com"} {
		people = append(people, clerkinvite.InviteParams{TenantID: "acme", Email: email})
	}
	results, err := svc.InviteMany(ctx, people, nil)
	for _, r := range results {
		if r.Err != nil {
			fmt.Println(clerkinvite.HTTPError(r.Err))
			continue
		}
		fmt.Println(r.Member.Email, r.Member.Status)
	}
	fmt.Println("error:", err, "emails:", clerk.Emails())
	// Output:
	// ada@example.com pending
	// grace@example.com active
	// 422 invalid Email: must be a single address such as name@example.com
	// 409 ada@example.com is already invited to this tenant
	// error: <nil> emails: 1
}

func ExampleService_ReserveMany() {
	ctx := context.Background()
	svc, clerk := exampleService()
	results, err := svc.ReserveMany(ctx, []clerkinvite.InviteParams{
		{TenantID: "acme", Email: "ada@example.com"},
		{TenantID: "acme", Email: "joan@example.com"},
	})
	for _, r := range results {
		fmt.Println(r.Member.Email, r.Member.Status, r.Err)
	}
	fmt.Println("error:", err, "emails:", clerk.Emails())

	report, err := svc.Deliver(ctx, nil) // Run does it every few seconds
	fmt.Println("invited:", report.Invited, "error:", err, "emails:", clerk.Emails())
	// Output:
	// ada@example.com reserved <nil>
	// joan@example.com reserved <nil>
	// error: <nil> emails: 0
	// invited: 2 error: <nil> emails: 2
}

// A table from before the library: a person who has joined, and one who is invited and accepts.
func ExampleService_Adopt() {
	ctx := context.Background()
	svc, clerk := exampleService()
	grace, open := clerk.AddVerifiedUser("grace@example.com"), clerk.CreateForeign("ada@example.com", nil)

	people := []clerkinvite.AdoptParams{
		{InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: "Grace@example.com", Role: "admin"}, ClerkUserID: grace.ID},
		{InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}, ClerkUserID: clerkinvite.PendingID(open.ID)},
		{InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: "joan@example.com"}, ClerkUserID: grace.ID},
	}
	results, err := svc.Adopt(ctx, people)
	for i, r := range results {
		fmt.Println(people[i].Email, r.Member.Status, r.Err)
	}
	fmt.Println("error:", err, "requests:", clerk.RequestCount())

	if _, err := clerk.Accept("ada@example.com"); err != nil { // the webhook is lost
		panic(err)
	}
	report, err := svc.Reconcile(ctx, nil)
	fmt.Println("activated:", report.Activated, "error:", err)
	// Output:
	// Grace@example.com active <nil>
	// ada@example.com pending <nil>
	// joan@example.com active another member of this tenant has this Clerk user or invitation
	// error: <nil> requests: 0
	// activated: 1 error: <nil>
}

// Adopt runs in the migration that moves the host's existing rows.
func ExampleReserver_Adopt() {
	ctx := context.Background()
	svc, _ := exampleService()

	// With PostgreSQL this is store.WithTx(tx), and the rows commit or roll back with tx.
	var tx clerkinvite.TxStore = clerkinvitetest.NewMemoryStore()
	results, err := svc.InTx(tx).Adopt(ctx, []clerkinvite.AdoptParams{
		{InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}, ClerkUserID: "user_2abc"},
	})
	fmt.Println(results[0].Member.Status, results[0].Err, err)
	// Output: active <nil> <nil>
}

// The invitations commit or roll back with the host's rows.
func ExampleReserver_Reserve() {
	ctx := context.Background()
	svc, clerk := exampleService()
	var tx clerkinvite.TxStore = clerkinvitetest.NewMemoryStore() // store.WithTx(tx)
	reserver := svc.InTx(tx)
	for range 2 {
		member, err := reserver.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		fmt.Printf("%t %T\n", member != nil, err)
	}
	fmt.Println(clerk.RequestCount(), "requests")
	// Output:
	// true <nil>
	// false *clerkinvite.DuplicateEmailError
	// 0 requests
}

func ExampleReserver_ReserveMany() {
	ctx := context.Background()
	svc, clerk := exampleService()

	// With PostgreSQL this is store.WithTx(tx), and the rows commit or roll back with tx.
	var tx clerkinvite.TxStore = clerkinvitetest.NewMemoryStore()
	results, err := svc.InTx(tx).ReserveMany(ctx, []clerkinvite.InviteParams{
		{TenantID: "acme", Email: "ada@example.com"},
		{TenantID: "acme", Email: "joan@example.com"},
	})
	fmt.Println(len(results), err, clerk.RequestCount())
	// Output: 2 <nil> 0
}

// Call Run in the host's main: it ends with the host's context.
func ExampleService_Run() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	svc, clerk := exampleService()
	if _, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}

	ended := make(chan error)
	go func() { ended <- svc.Run(ctx, nil) }()

	for clerk.Emails() == 0 {
		time.Sleep(time.Millisecond)
	}
	stop() // the host shuts down
	fmt.Println(<-ended)

	member, err := svc.Get(context.Background(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(member.Status, err)
	// Output:
	// context canceled
	// pending <nil>
}

func ExampleService_Resend() {
	ctx := context.Background()
	clerk := clerkinvitetest.NewClerk()
	now := time.Now()
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: func() time.Time { return now },
	})
	if err != nil {
		panic(err)
	}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}); err != nil {
		panic(err)
	}
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	_, err = svc.Resend(ctx, ref)
	status, _ := clerkinvite.HTTPError(err)
	fmt.Println(status, "emails:", clerk.Emails())

	now = now.Add(2 * time.Minute) // Config.ResendCooldown has passed
	member, err := svc.Resend(ctx, ref)
	fmt.Println(member.Status, err, "emails:", clerk.Emails(), "open:", len(clerk.OpenInvitations(ref.Email)))
	// Output:
	// 429 emails: 1
	// pending <nil> emails: 2 open: 1
}

func ExampleService_Link() {
	ctx := context.Background()
	svc, clerk := exampleService()
	member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	if err != nil {
		fmt.Println(err)
		return
	}

	link, err := svc.Link(ctx, member.Ref()) // show link.Reveal() to the admin who asked for it
	fmt.Println(link, err, link.Reveal() == member.URL.Reveal())

	clerk.RevokeInDashboard(member.InvitationID)
	_, err = svc.Link(ctx, member.Ref())
	fmt.Println(err)
	// Output:
	// [secret] <nil> true
	// no invitation link is available: Clerk does not list the invitation
}

func ExampleService_Revoke() {
	ctx := context.Background()
	svc, clerk := exampleService()
	for _, email := range []string{"ada@example.com", "joan@example.com"} {
		if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			panic(err)
		}
	}
	member, err := svc.Revoke(ctx, clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(member.Status, err, "open:", len(clerk.OpenInvitations("ada@example.com")))

	// Joan was faster.
	if _, err := clerk.Accept("joan@example.com"); err != nil {
		panic(err)
	}
	_, err = svc.Revoke(ctx, clerkinvite.Ref{TenantID: "acme", Email: "joan@example.com"})
	fmt.Println(clerkinvite.HTTPError(err))
	// Output:
	// revoked <nil> open: 0
	// 409 a member that is active cannot become revoked
}

func ExampleService_Remove() {
	ctx := context.Background()
	svc, clerk := exampleService()
	clerk.AddVerifiedUser("grace@example.com")
	ref := clerkinvite.Ref{TenantID: "acme", Email: "grace@example.com"}
	invite := func() {
		member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
		fmt.Println(member.Status, err)
	}
	invite()
	member, err := svc.Remove(ctx, ref)
	fmt.Println(member.Status, err)
	invite() // she may come back
	// Output:
	// active <nil>
	// removed <nil>
	// active <nil>
}

// A request to erase a person's data.
func ExampleService_Purge() {
	ctx := context.Background()
	svc, clerk := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}); err != nil {
		panic(err)
	}
	err := svc.Purge(ctx, ref)
	fmt.Println(err, "open:", len(clerk.OpenInvitations(ref.Email)))
	_, err = svc.History(ctx, ref)
	fmt.Println(clerkinvite.HTTPError(err))
	// Output:
	// <nil> open: 0
	// 404 no such member
}

func ExampleService_List() {
	ctx := context.Background()
	svc, _ := exampleService()
	for _, email := range []string{"ada@example.com", "joan@example.com", "mary@example.com"} {
		if _, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			panic(err)
		}
	}
	p := clerkinvite.ListParams{TenantID: "acme", Limit: 2}
	for {
		page, err := svc.List(ctx, p)
		if err != nil {
			panic(err)
		}
		for _, member := range page.Members {
			fmt.Println(member.Email)
		}
		if page.Next == "" {
			break
		}
		fmt.Println("next page")
		p.Cursor = page.Next
	}
	// Output:
	// ada@example.com
	// joan@example.com
	// next page
	// mary@example.com
}

func ExampleService_List_newestFirst() {
	ctx := context.Background()
	svc, _ := exampleService()
	for _, email := range []string{"ada@example.com", "joan@example.com", "mary@example.com"} {
		if _, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}); err != nil {
			panic(err)
		}
	}
	page, err := svc.List(ctx, clerkinvite.ListParams{TenantID: "acme", NewestFirst: true, Limit: 2})
	if err != nil {
		panic(err)
	}
	for _, member := range page.Members {
		fmt.Println(member.Email)
	}
	// Output:
	// mary@example.com
	// joan@example.com
}

// A job that reminds people a week before their invitation expires.
func ExampleService_All_reminders() {
	ctx := context.Background()
	svc, _ := exampleService()
	for email, days := range map[string]int{"ada@example.com": 3, "joan@example.com": 30} {
		if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email, ExpiresInDays: days}); err != nil {
			panic(err)
		}
	}
	now := time.Now()
	for member, err := range svc.All(ctx, clerkinvite.ListParams{TenantID: "acme", ExpiresBefore: now.AddDate(0, 0, 7)}) {
		if err != nil {
			panic(err)
		}
		if member.ExpiresAt.After(now) { // the others have expired already
			fmt.Println("remind", member.Email)
		}
	}
	// Output: remind ada@example.com
}

func ExampleService_Counts() {
	ctx := context.Background()
	svc := exampleTenant(ctx)
	counts, err := svc.Counts(ctx, "acme")
	if err != nil {
		panic(err)
	}
	fmt.Println(counts[clerkinvite.StatusPending], "pending,", counts[clerkinvite.StatusActive], "active,", counts[clerkinvite.StatusExpired], "expired")
	// Output: 2 pending, 1 active, 0 expired
}

func ExampleService_ByUser() {
	ctx := context.Background()
	svc, clerk := exampleService()
	grace := clerk.AddVerifiedUser("grace@example.com")
	for _, tenant := range []string{"initech", "acme"} {
		if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: "grace@example.com", Role: "admin"}); err != nil {
			panic(err)
		}
	}
	members, err := svc.ByUser(ctx, grace.ID)
	if err != nil {
		panic(err)
	}
	for _, member := range members {
		fmt.Println(member.TenantID, member.Role)
	}
	// Output:
	// acme admin
	// initech admin
}

// Is this user a member of this tenant?
func ExampleService_Get_byUser() {
	ctx := context.Background()
	svc, clerk := exampleService()
	grace := clerk.AddVerifiedUser("grace@example.com")
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "grace@example.com", Role: "admin"}); err != nil {
		panic(err)
	}
	for _, tenant := range []string{"acme", "initech"} {
		switch member, err := svc.Get(ctx, clerkinvite.Ref{TenantID: tenant, ClerkUserID: grace.ID}); {
		case errors.Is(err, clerkinvite.ErrNotFound):
			fmt.Println(tenant, "no")
		case err != nil:
			panic(err)
		default:
			fmt.Println(tenant, member.Status, member.Role)
		}
	}
	// Output:
	// acme active admin
	// initech no
}

func ExampleService_All() {
	ctx := context.Background()
	svc := exampleTenant(ctx)
	waiting := clerkinvite.ListParams{TenantID: "acme", Statuses: []clerkinvite.Status{clerkinvite.StatusPending}}
	for member, err := range svc.All(ctx, waiting) {
		if err != nil {
			panic(err)
		}
		fmt.Println(member.Email, member.Status)
	}
	// Output:
	// ada@example.com pending
	// joan@example.com pending
}

func ExampleMirror() {
	mirror := clerkinvite.Mirror{Table: "admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id"}
	up, err := mirror.Up() // the next migration
	if err != nil {
		fmt.Println(err)
		return
	}
	down, err := mirror.Down()
	if err != nil {
		fmt.Println(err)
		return
	}
	first, _, _ := strings.Cut(up, "\n")
	fmt.Print(first, "\n…\n\n", down)
	// Output:
	// -- Keeps the host's table equal to the members. Generated by clerkinvite.Mirror.
	// …
	//
	// DROP TRIGGER IF EXISTS clerkinvite_mirror ON clerkinvite_member;
	// DROP TRIGGER IF EXISTS clerkinvite_mirror_update ON clerkinvite_member;
	// DROP TRIGGER IF EXISTS clerkinvite_mirror_truncate ON clerkinvite_member;
	// DROP FUNCTION IF EXISTS clerkinvite_mirror();
}

func ExampleService_History() {
	ctx := context.Background()
	svc, _ := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}); err != nil {
		panic(err)
	}
	if _, err := svc.Revoke(ctx, ref); err != nil {
		panic(err)
	}
	moves, err := svc.History(ctx, ref)
	if err != nil {
		panic(err)
	}
	for _, move := range moves {
		fmt.Printf("%q to %q\n", move.From, move.To)
	}
	// Output:
	// "" to "reserved"
	// "reserved" to "pending"
	// "pending" to "revoked"
}

func ExampleWithActor() {
	svc, _ := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	ctx := clerkinvite.WithActor(context.Background(), "user_boss") // for example in the middleware that signs admins in
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email, Role: "viewer"}); err != nil {
		panic(err)
	}
	role := "editor"
	if _, err := svc.Update(clerkinvite.WithActor(ctx, "user_owner"), ref, clerkinvite.MemberUpdate{Role: &role}); err != nil {
		panic(err)
	}
	entries, err := svc.History(ctx, ref)
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		fmt.Printf("%s, %s, by %s\n", e.To, e.Role, e.Actor)
	}
	// Output:
	// reserved, viewer, by user_boss
	// pending, viewer, by user_boss
	// pending, editor, by user_owner
}

func ExampleService_Update() {
	ctx := context.Background()
	svc, clerk := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email, Role: "viewer"}); err != nil {
		panic(err)
	}
	role, data := "editor", json.RawMessage(`{"seat": 4}`)
	member, err := svc.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &role, Data: &data})
	fmt.Println(member.Role, string(member.Data), err, "emails:", clerk.Emails())
	// Output: editor {"seat": 4} <nil> emails: 1
}

// The webhook was lost.
func ExampleService_Reconcile() {
	ctx := context.Background()
	svc, clerk := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}); err != nil {
		panic(err)
	}
	if _, err := clerk.Accept(ref.Email); err != nil {
		panic(err)
	}
	report, err := svc.Reconcile(ctx, nil)
	fmt.Println("activated:", report.Activated, "error:", err)

	member, err := svc.Get(ctx, ref)
	fmt.Println(member.Status, err)
	// Output:
	// activated: 1 error: <nil>
	// active <nil>
}

// What would Reconcile do?
func ExampleService_Reconcile_dryRun() {
	ctx := context.Background()
	svc, clerk := exampleService()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	if _, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}); err != nil {
		panic(err)
	}
	if _, err := clerk.Accept(ref.Email); err != nil {
		panic(err)
	}
	report, err := svc.Reconcile(ctx, &clerkinvite.ReconcileOptions{DryRun: true})
	fmt.Println("would activate:", report.Activated, "error:", err)

	member, err := svc.Get(ctx, ref)
	fmt.Println(member.Status, err)
	// Output:
	// would activate: 1 error: <nil>
	// pending <nil>
}
