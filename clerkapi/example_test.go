package clerkapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// Hosts pass the client to clerkinvite.New, which makes the calls. It can also be used alone.
func Example() {
	// A fake Clerk that has one user and has reached its rate limit for invitations.
	clerk := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = io.WriteString(w, `[{"id":"user_1","email_addresses":[
			{"id":"idn_1","email_address":"ada@example.com","verification":{"status":"verified"}}]}]`)
	}))
	defer clerk.Close()

	api, err := clerkapi.New("sk_test_example", &clerkapi.Options{BaseURL: clerk.URL + "/v1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()

	users, err := api.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(users[0].ID, users[0].Emails[0].Verified)

	_, err = api.CreateInvitation(ctx, clerkinvite.InvitationRequest{Email: "grace@example.com"})
	var refused *clerkinvite.APIError
	if errors.As(err, &refused) {
		fmt.Println(refused.StatusCode, refused.RetryAfter, refused.NotSent)
	}
	// Output:
	// user_1 true
	// 429 1m30s false
}
