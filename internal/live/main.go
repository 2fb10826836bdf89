// Live runs the library against a development instance of the real Clerk, and finds
// out how Clerk behaves where it is undocumented. Only people run it.
//
//	CLERK_SECRET_KEY=sk_test_… go run ./internal/live        # prints what it would do
//	CLERK_SECRET_KEY=sk_test_… go run ./internal/live -yes   # does it
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// The size of a run. The first two are its own limits.
const (
	maxRequests = 200
	maxCreates  = 25
	addresses   = 13
	users       = 4
	domain      = "+clerk_test@example.com" // of all addresses
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // the clean-up must run even if Ctrl-C has ended a "| tee"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program immediately
	code := run(ctx, os.Args[1:], os.Getenv("CLERK_SECRET_KEY"), os.Stdout, "", 500*time.Millisecond)
	stop()
	os.Exit(code)
}

// run is the program, and returns its exit code. pause is the time between two looks for
// a change that Clerk may show late; a quarter of it is the time between two requests.
func run(ctx context.Context, args []string, key string, out io.Writer, baseURL string, pause time.Duration) (code int) {
	flags := flag.NewFlagSet("live", flag.ContinueOnError)
	flags.SetOutput(out)
	yes := flags.Bool("yes", false, "do it, instead of only printing what would be done")
	if flags.Parse(args) != nil {
		return 2
	}
	stem := fmt.Sprintf("clerkinvite-%d-", time.Now().Unix())
	s, err := newSession(key, baseURL, stem, out, pause)
	s.printf(`This runs clerkinvite against a development instance of the real Clerk, with rows in memory.
It makes about 80 requests, at most %d. At most %d of them create invitations (Clerk allows
100 single and 25 bulk requests per hour). It creates %d users. All addresses are like
    %s1%s … %s%d%s
Clerk sends no email to them, and every invitation is created with notify=false.
At the end, also after an error or the first Ctrl-C, everything that was created is revoked or deleted.
The instance must allow email addresses with a "+", and users with only an address.

`, maxRequests, maxCreates, users, stem, domain, stem, addresses, domain)
	switch {
	case key == "":
		s.printf("Nothing was sent: CLERK_SECRET_KEY is not set. Set it to the key of a development instance (sk_test_…).\n")
		return 0
	case !strings.HasPrefix(key, "sk_test_"):
		s.printf("REFUSED, nothing was sent: CLERK_SECRET_KEY is not the key of a development instance (sk_test_…).\n")
		return 2
	case err != nil:
		s.printf("REFUSED, nothing was sent: %v\n", err)
		return 2
	case !*yes:
		s.printf("Nothing was sent. To do it: go run ./internal/live -yes\n")
		return 0
	}
	if s.holds(ctx, stem+"0"+domain); s.err != nil {
		s.printf("Clerk does not respond to a look-up; nothing was created: %v\n", s.err)
		return 1
	}
	s.parts(ctx)
	s.printf(`
This program cannot find out: the response to revoking an expired invitation; whether signing up
without the link accepts the invitation; whether the metadata of a bulk request reaches the user
(clerk/javascript#7956); which kind of window the rate limits use.

--- summary, for an issue: it contains no key, link or address ---
clerkinvite live, %s, %s %s/%s, %d requests, %d creates
%s
--- "=" as assumed, "~" different but safe, "!" not supported by the library, "?" not found out ---
`, time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		s.wire.requests, s.wire.creates, strings.Join(s.summary, "\n"))
	if s.failed || ctx.Err() != nil {
		return 1
	}
	return 0
}

// parts makes all requests that change Clerk, and always cleans up.
func (s *session) parts(ctx context.Context) {
	defer func() {
		s.printf("\nClean-up\n")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		left := s.cleanUp(ctx)
		for _, what := range left {
			s.printf("  LEFT AT CLERK: %s\n", what)
		}
		s.failed = s.failed || len(left) > 0
		s.notef("clean-up: %d invitations and %d users created, %d left", len(s.wire.invitations), len(s.wire.users), len(left))
	}()
	s.printf("Part 1: the flow\n")
	if s.flow(ctx); s.err != nil {
		s.failed = true
		s.notef("FAIL, the flow ends here: %v", s.err)
	}
	s.printf("\nPart 2: undocumented behavior\n")
	for _, ask := range []func(context.Context){
		s.askNew, s.askUser, s.askDuplicate, s.askUnverified, s.askRevoke, s.askBulk, s.askBulkDuplicate, s.askHeaders,
	} {
		if ctx.Err() != nil {
			s.notef("INTERRUPTED")
			return
		}
		s.err = nil
		if ask(ctx); s.err != nil {
			s.notef("? the rest of this probe: %v", s.err)
		}
	}
}

// flow is an invitation's life through the library.
func (s *session) flow(ctx context.Context) {
	var ahead time.Duration
	api := &lossy{ClerkAPI: s.api}
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: api, Store: clerkinvitetest.NewMemoryStore(), Now: func() time.Time { return time.Now().Add(ahead) },
	})
	s.fail(err)
	invite := func(email string) (*clerkinvite.Member, error) {
		return svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "live", Email: email, SkipEmail: true})
	}
	step := func(what string, err error, ok bool) bool {
		if err == nil && !ok {
			err = errors.New("unexpected result")
		}
		if s.fail(err); s.err != nil {
			s.err = fmt.Errorf("%s: %w", what, s.err)
			return false
		}
		s.notef("ok, %s", what)
		return true
	}
	first, lost, known := s.address(), s.address(), s.address()

	m, err := invite(first)
	if !step("a new address is pending", err, isPending(m) && s.wire.madeFor(first) == 1) {
		return
	}
	_, err = invite(first)
	var dup *clerkinvite.DuplicateEmailError
	if errors.As(err, &dup) {
		err = nil
	}
	if !step("inviting it again is a duplicate", err, dup != nil && s.wire.madeFor(first) == 1) {
		return
	}

	api.drop = true
	_, err = invite(lost)
	api.drop = false
	var uncertain *clerkinvite.ClerkInvitationError
	if !errors.As(err, &uncertain) || uncertain.Outcome != clerkinvite.OutcomeUncertain {
		step("a response is lost", err, false)
		return
	}
	s.await(ctx, func() bool {
		ahead += 2 * time.Hour // past the lease, and past any backoff
		if _, err = svc.Deliver(ctx, nil); err == nil {
			m, err = svc.Get(ctx, clerkinvite.Ref{TenantID: "live", Email: lost})
		}
		return err != nil || m.Status != clerkinvite.StatusReserved
	})
	ahead = 0
	if !step("an invitation whose response was lost is adopted, not repeated", err, isPending(m) && s.wire.madeFor(lost) == 1) {
		return
	}

	id, _ := s.newUser(ctx, known)
	m, err = invite(known)
	if !step("an existing user is linked, without an invitation", err, isActive(m, id) && s.wire.madeFor(known) == 0) {
		return
	}
	id, _ = s.newUser(ctx, first)
	changed, err := svc.ResolveUser(ctx, id)
	step("ResolveUser makes a pending member active", err, len(changed) == 1 && isActive(changed[0], id))
}

func isActive(m *clerkinvite.Member, userID string) bool {
	return m != nil && m.Status == clerkinvite.StatusActive && m.ClerkUserID == userID
}

func isPending(m *clerkinvite.Member) bool {
	return m != nil && m.Status == clerkinvite.StatusPending && m.ClerkUserID == clerkinvite.PendingID(m.InvitationID)
}

// lossy loses responses to creates.
type lossy struct {
	clerkinvite.ClerkAPI

	drop bool
}

func (l *lossy) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	inv, err := l.ClerkAPI.CreateInvitation(ctx, r)
	if err == nil && l.drop {
		return nil, &clerkinvite.APIError{Err: errors.New("the response was dropped on purpose")}
	}
	return inv, err
}
