package soak_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// sent is an invitation as the fake knows it, with its emails.
type sent struct {
	Invitation clerkinvite.Invitation `json:"invitation"`
	Emails     int                    `json:"emails"`
}

// runClerk is the process that plays Clerk. It is separate because the fake remembers everything,
// and the memory of the hosts is measured. It prints its URL and serves until it is killed.
func runClerk() error {
	clerk := clerkinvitetest.NewClerk()
	seed, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64)
	if err != nil {
		return err
	}
	quiet := make(chan struct{})
	go trouble(clerk, rand.New(rand.NewPCG(seed, 1)), quiet) // #nosec G404 -- to be repeated by its seed

	mux := http.NewServeMux()
	mux.Handle("/v1/", clerk.Handler())
	// What people do. The response is the webhook that Clerk sends for it.
	mux.HandleFunc("POST /people/{what}", func(w http.ResponseWriter, r *http.Request) {
		hook, err := people(clerk, r.PathValue("what"), r.FormValue("email"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		_ = json.NewEncoder(w).Encode(hook)
	})
	mux.HandleFunc("POST /quiet", func(http.ResponseWriter, *http.Request) {
		close(quiet)
		clerk.ClearFaults()
		clerk.SetLimits(clerkinvitetest.Limits{})
	})
	mux.HandleFunc("GET /sent", func(w http.ResponseWriter, r *http.Request) {
		emails := make(map[string]int)
		for _, mail := range clerk.SentMail() {
			emails[mail.InvitationID]++
		}
		var all []sent
		for i := range atoi(r.FormValue("people")) {
			for _, inv := range clerk.Invitations(address(i)) {
				all = append(all, sent{inv, emails[inv.ID]})
			}
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", listener.Addr())
	return http.Serve(listener, mux) // #nosec G114 -- it ends with the test
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

var errNothing = errors.New("nothing to do")

func people(clerk *clerkinvitetest.Clerk, what, email string) (hook clerkinvitetest.Webhook, err error) {
	// The fake panics for unknown users; here two people may act on the same user.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	users, err := clerk.FindUsers(context.Background(), clerkinvite.UserQuery{Emails: []string{email}})
	if err != nil {
		return hook, err
	}
	switch {
	case what == "accept":
		return clerk.Accept(email)
	case what == "signup" && len(users) == 0:
		return clerk.SignUp(email, true), nil
	case what == "unverified" && len(users) == 0:
		return clerk.SignUp(email, false), nil
	case what == "delete" && len(users) > 0:
		return clerk.DeleteUser(users[0].ID), nil
	case what == "dashboard":
		for _, inv := range clerk.OpenInvitations(email) {
			clerk.RevokeInDashboard(inv.ID)
		}
	}
	return hook, errNothing
}

// trouble makes requests fail: single ones in every known way, all of them for some seconds per
// minute, and rate limits in between.
func trouble(clerk *clerkinvitetest.Clerk, random *rand.Rand, quiet chan struct{}) {
	calls := []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk,
		clerkinvitetest.CallList, clerkinvitetest.CallRevoke}
	kinds := clerkinvitetest.Kinds()
	for n := 1; ; n++ {
		f := clerkinvitetest.Fault{Call: calls[random.IntN(len(calls))], When: clerkinvitetest.When(random.IntN(2)), Kind: kinds[random.IntN(len(kinds))]}
		pause := 300 * time.Millisecond
		switch {
		case n%150 == 75: // Clerk is down
			f = clerkinvitetest.Fault{When: f.When, Kind: f.Kind, Times: -1}
			pause = 3 * time.Second
		case n%500 == 250: // a rate limit blocks a create endpoint for a minute
			f = clerkinvitetest.Fault{Call: f.Call, Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: 2 * time.Second, Times: 5}
		}
		clerk.Fail(f)
		select {
		case <-time.After(pause):
		case <-quiet:
			clerk.ClearFaults()
			return
		}
		if f.Times < 0 {
			clerk.ClearFaults()
		}
	}
}
