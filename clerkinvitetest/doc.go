// Package clerkinvitetest helps to test applications that use clerkinvite. It has a fake
// Clerk, an in-memory store, signed webhooks and a clock. It imports only the standard
// library and clerkinvite.
//
//	clerk := clerkinvitetest.NewClerk()
//	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
//
// [Clerk] is stateful and rejects what Clerk rejects. [Clerk.Accept] accepts an invitation
// and returns the webhook that Clerk would send. Clerk counts emails and requests, fails on
// demand ([Clerk.Fail]), has rate limits ([Clerk.SetLimits]), and can behave in every way
// that Clerk's documentation leaves open ([Behaviors]). [Clerk.Handler] serves it over HTTP,
// for the real adapter:
//
//	server := httptest.NewServer(clerk.Handler())
//	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: server.URL + "/v1"})
//
// Use [ClerkFuncs] for tests that only need a few fixed responses.
package clerkinvitetest
