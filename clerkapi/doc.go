// Package clerkapi connects clerkinvite to Clerk's Backend API through the official
// SDK, github.com/clerk/clerk-sdk-go/v2.
//
//	api, err := clerkapi.New(os.Getenv("CLERK_SECRET_KEY"), nil)
//	if err != nil {
//		return err
//	}
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//
// For invitations into organizations, set Config.Organizations to api, too.
//
// The SDK authenticates the requests and sets the API version. This package adds:
//
//   - Every failed request is a [*clerkinvite.APIError] that keeps Clerk's status, code,
//     trace ID and Retry-After, even if the body is not JSON. Invalid input is a
//     [*clerkinvite.InvalidParamsError], before any request.
//   - A response is a success only if it is a complete 2xx with the expected content. An
//     empty response, null, a redirect or a proxy's page never means "no such user".
//   - Look-ups are retried at most twice after a temporary failure. Creates, revokes and
//     changes of memberships are sent once. APIError.NotSent distinguishes a request that
//     was never sent from a lost response.
//   - context.Canceled and context.DeadlineExceeded mean that the caller's context
//     ended. After a time limit of the client, the error has a method Timeout() bool instead.
//   - No error text contains the key, a URL or an address, and a [Client] never prints the key.
package clerkapi
