// Package clerkinvitetest helps to test applications that use clerkinvite. It has a fake
// Clerk, an in-memory store, signed webhooks and a clock.
//
//	clerk := clerkinvitetest.NewClerk()
//	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
//
// [Clerk] is stateful and rejects what the real Clerk rejects. [Clerk.Accept] accepts an invitation
// and returns the webhook that Clerk would send. Clerk counts emails and requests, fails on
// demand ([Clerk.Fail]), has rate limits ([Clerk.SetLimits]), and can behave in every way
// that Clerk's documentation leaves open ([Behaviors]). [Clerk.Handler] serves it over HTTP,
// for the real adapter:
//
//	server := httptest.NewServer(clerk.Handler())
//	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: server.URL + "/v1"})
//
// For organizations ([Clerk.AddOrganization]), set Config.Organizations to the fake, too.
//
// Use [ClerkFuncs] for tests that only need a few fixed responses. A test that needs no service at all
// can mock the host's own interface; host_test.go in this directory shows all three ways with one handler.
//
// # Time
//
// To test a limit, a cooldown or an expiry, share one [Clock] between the fake, the service and the
// verifier of webhooks. Advance it instead of sleeping:
//
//	clock := clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
//	clerk.SetNow(clock.Now)
//	clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock.Now}
//	clerkinvite.WebhookConfig{Secrets: secrets, Now: clock.Now}
//
// [MemoryStore] has no clock. A PgxStore has the database's, so it needs PgxOptions.Now as well.
package clerkinvitetest
