package clerkinvitetest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// Clerk has no user with the address, and creates the invitation inv_123.
func ExampleClerkFuncs() {
	api := clerkinvitetest.ClerkFuncs{
		FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil },
		CreateInvitationFunc: func(_ context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
			return &clerkinvite.Invitation{ID: "inv_123", Email: r.Email, Status: clerkinvite.InvitationPending}, nil
		},
	}
	svc, _ := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvitetest.NewMemoryStore()})
	m, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(m.ClerkUserID, err)
	// Output: pending_inv_123 <nil>
}

// To test how an application handles errors, return the adapter's error.
func ExampleClerkFuncs_error() {
	api := clerkinvitetest.ClerkFuncs{
		FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
			return nil, &clerkinvite.APIError{StatusCode: 401, Code: "clerk_key_invalid", LongMessage: "The key is wrong."}
		},
	}
	svc, _ := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvitetest.NewMemoryStore()})
	_, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(clerkinvite.HTTPError(err))
	fmt.Println(errors.Unwrap(err))
	// Output:
	// 502 invitation service unavailable; the invitation is saved and will be retried
	// clerk: HTTP 401 clerk_key_invalid: The key is wrong.
}

// A person is invited, follows the link, and the webhook reaches the application.
func ExampleClerk() {
	ctx := context.Background()
	clerk := clerkinvitetest.NewClerk()
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	verifier, _ := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	webhooks := svc.WebhookHandler(verifier)

	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	m, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ada.TenantID, Email: ada.Email})
	fmt.Println(m.Status, m.ClerkUserID, clerk.EmailsTo(ada.Email), err)

	webhook, _ := clerk.Accept(ada.Email)
	response := httptest.NewRecorder()
	webhooks.ServeHTTP(response, webhook.Request(clerkinvitetest.WebhookSecret, "/webhooks/clerk"))
	m, err = svc.Get(ctx, ada)
	fmt.Println(response.Code, m.Status, m.ClerkUserID, err)
	// Output:
	// pending pending_inv_000001 1 <nil>
	// 204 active user_000001 <nil>
}

// A tenant is an organization. The person accepts the invitation and becomes a member.
func ExampleClerk_AddOrganization() {
	ctx := context.Background()
	clerk := clerkinvitetest.NewClerk()
	clerk.AddOrganization("org_acme", clerkinvitetest.OrganizationSpec{MaxMembers: 5})
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Organizations: clerk, Store: clerkinvitetest.NewMemoryStore()})
	verifier, _ := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	webhooks := svc.WebhookHandler(verifier)

	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	m, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ada.TenantID, Email: ada.Email, Organization: &clerkinvite.Organization{ID: "org_acme"}})
	fmt.Println(m.Status, m.ClerkUserID, clerk.EmailsTo(ada.Email), err)

	_, _ = clerk.Accept(ada.Email) // user.created, which this application does not receive
	for _, event := range clerk.OrganizationEvents() {
		webhooks.ServeHTTP(httptest.NewRecorder(), event.Request(clerkinvitetest.WebhookSecret, "/webhooks/clerk"))
	}
	m, err = svc.Get(ctx, ada)
	fmt.Println(m.Status, m.ClerkUserID, len(clerk.Members("org_acme")), err)
	// Output:
	// pending pending_orginv_000001 1 <nil>
	// active user_000001 1 <nil>
}

// The real adapter in front of the fake.
func ExampleClerk_Handler() {
	clerk := clerkinvitetest.NewClerk()
	clerk.SetSecretKey("sk_test_1")
	server := httptest.NewServer(clerk.Handler())
	defer server.Close()
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: server.URL + "/v1"})
	if err != nil {
		panic(err)
	}
	inv, err := api.CreateInvitation(context.Background(), clerkinvite.InvitationRequest{Email: "ada@example.com"})
	fmt.Println(inv.ID, inv.Status, err)
	_, err = api.CreateInvitation(context.Background(), clerkinvite.InvitationRequest{Email: "ada@example.com"})
	fmt.Println(err)
	// Output:
	// inv_000001 pending <nil>
	// clerk: HTTP 400 duplicate_record: There are already pending invitations for the following email addresses: [address] (trace 00000000000000000000000000000002)
}

// Clerk sends the email, but its response is lost.
func ExampleClerk_Fail() {
	clerk := clerkinvitetest.NewClerk()
	clerk.Fail(clerkinvitetest.Fault{
		Call: clerkinvitetest.CallCreate,
		When: clerkinvitetest.After,
		Kind: clerkinvitetest.HTML502,
	})
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	_, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	var failed *clerkinvite.ClerkInvitationError
	fmt.Println(errors.As(err, &failed), failed.Outcome, failed.Member.Status, clerk.Emails())
	// Output: true uncertain reserved 1
}

// Clerk limits every create for 30 seconds. After that, the same call succeeds.
func ExampleRateLimited() {
	clock := clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(clock.Now)
	clerk.Fail(clerkinvitetest.RateLimited(30 * time.Second))
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock.Now})
	ada := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	_, err := svc.Invite(context.Background(), ada)
	wait, _ := clerkinvite.RetryAfter(err)
	fmt.Println(wait, clerk.Emails())

	clock.Advance(wait)
	m, err := svc.Invite(context.Background(), ada)
	fmt.Println(m.Status, clerk.Emails(), err)
	// Output:
	// 30s 0
	// pending 1 <nil>
}

// The person signs up between the look-up and the create.
func ExampleClerk_OnCall() {
	clerk := clerkinvitetest.NewClerk()
	clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallCreate && when == clerkinvitetest.Before {
			clerk.SignUp("ada@example.com", true)
		}
	})
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	m, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	fmt.Println(m.Status, m.ClerkUserID, clerk.Emails(), err)
	// Output: active user_000001 0 <nil>
}

func ExampleClerk_SetLimits() {
	clerk := clerkinvitetest.NewClerk()
	one := clerkinvitetest.Limit{Requests: 1, Per: time.Hour}
	clerk.SetLimits(clerkinvitetest.Limits{Create: one, CreateBulk: one})
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	for _, email := range []string{"ada@example.com", "grace@example.com", "joan@example.com"} {
		_, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		_, limited := clerkinvite.RetryAfter(err)
		fmt.Println(email, limited)
	}
	// Output:
	// ada@example.com false
	// grace@example.com false
	// joan@example.com true
}

func ExampleBehaviors() {
	for _, b := range clerkinvitetest.Behaviors()[:3] {
		clerk := clerkinvitetest.NewClerk()
		clerk.SetBehavior(b.Behavior)
		svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
		m, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		fmt.Println(b.Name, m.Status, err)
	}
	// Output:
	// default pending <nil>
	// query matches parts pending <nil>
	// case sensitive pending <nil>
}

// The library and the fake share a clock, so that a test can expire an invitation.
func ExampleClock() {
	clock := clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(clock.Now)
	svc, _ := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock.Now})
	ada := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: 7}
	m, _ := svc.Invite(context.Background(), ada)
	fmt.Println("expires", m.ExpiresAt.Format(time.DateOnly))

	clock.Advance(8 * 24 * time.Hour)
	m, err := svc.Invite(context.Background(), ada)
	fmt.Println("invited again, send", m.Send, err)
	// Output:
	// expires 2026-03-08
	// invited again, send 2 <nil>
}
