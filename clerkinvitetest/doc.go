// Package clerkinvitetest has what the tests of an application need that uses
// clerkinvite: a fake of Clerk, a store in memory, signed webhooks and a clock. It imports the
// standard library and clerkinvite only.
//
//	clerk := clerkinvitetest.NewClerk()
//	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
//
// [Clerk] remembers what it was told and refuses what Clerk refuses. People accept
// invitations on it ([Clerk.Accept]), which yields the webhook that Clerk sends; it
// counts emails and requests, fails on demand ([Clerk.Fail]), keeps rate limits
// ([Clerk.SetLimits]) and can be any of the Clerks that Clerk's documents leave
// possible ([Behaviors]). [Clerk.Handler] serves the same over HTTP, for the real
// adapter:
//
//	server := httptest.NewServer(clerk.Handler())
//	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: server.URL + "/v1"})
//
// A test that only has to say what Clerk answers takes [ClerkFuncs] instead.
package clerkinvitetest
