// Package clerkapi connects clerkinvite to Clerk's Backend API through the official
// SDK, github.com/clerk/clerk-sdk-go/v2.
//
//	api, err := clerkapi.New(os.Getenv("CLERK_SECRET_KEY"), nil)
//	if err != nil {
//		return err
//	}
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//
// The SDK signs the requests and chooses the version of the API. This package adds
// what has to be certain before an email may go out:
//
//   - Every failure is a [*clerkinvite.APIError] that keeps Clerk's status, code,
//     trace id and Retry-After, whatever the body is. Inputs that must not be sent are
//     a [*clerkinvite.InvalidParamsError], before any request.
//   - An answer counts only if it is a complete 2xx that holds what was asked for. An
//     empty answer, null, a redirect or a proxy's page is never "no such user".
//   - Look-ups are repeated after a failure that may pass, at most twice. What changes
//     something at Clerk goes out once, and an answer that got lost is told apart from a
//     request that was never sent (NotSent).
//   - context.Canceled and context.DeadlineExceeded mean that the caller's context
//     ended. The client's own limit is another error, with a method Timeout() bool.
//   - No error text, and no way of printing a [Client], shows the key, a URL or an address.
package clerkapi
