package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/emailaddress"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

const maxLooks = 6 // for a change that Clerk may show late

// session is one run. Its requests return nothing once err is set, so that probes need
// not check errors after each call.
type session struct {
	api     *clerkapi.Client
	users   *user.Client
	emails  *emailaddress.Client
	wire    *wire
	out     io.Writer
	pause   time.Duration
	stem    string   // the start of all addresses
	used    []string // addresses
	summary []string
	failed  bool
	err     error // of the running probe
}

func newSession(key, baseURL, stem string, out io.Writer, pause time.Duration) (*session, error) {
	if baseURL == "" {
		baseURL = clerk.APIURL
	}
	w := &wire{pause: pause / 4}
	client := &http.Client{Transport: w, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	api, err := clerkapi.New(key, &clerkapi.Options{BaseURL: baseURL, HTTPClient: client})
	config := &clerk.ClientConfig{BackendConfig: clerk.BackendConfig{HTTPClient: client, URL: &baseURL, Key: &key}}
	return &session{
		api: api, users: user.NewClient(config), emails: emailaddress.NewClient(config), wire: w, out: out, pause: pause, stem: stem,
	}, err
}

func (s *session) printf(format string, a ...any) { _, _ = fmt.Fprintf(s.out, format, a...) }

// notef prints a line and keeps it for the summary.
func (s *session) notef(format string, a ...any) {
	s.summary = append(s.summary, fmt.Sprintf(format, a...))
	s.printf("  %s\n", s.summary[len(s.summary)-1])
}

// fail sets err, unless it is set.
func (s *session) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// address returns a new address.
func (s *session) address() string {
	s.used = append(s.used, fmt.Sprintf("%s%d%s", s.stem, len(s.used)+1, domain))
	return s.used[len(s.used)-1]
}

// ours reports whether the address is one of this run's.
func (s *session) ours(email string) bool {
	return slices.ContainsFunc(s.used, func(u string) bool { return strings.EqualFold(u, email) })
}

// request returns a request for an invitation without an email.
func request(email string, ignoreExisting bool) clerkinvite.InvitationRequest {
	return clerkinvite.InvitationRequest{
		Email: email, SkipEmail: true, IgnoreExisting: ignoreExisting, PublicMetadata: json.RawMessage(`{"live":"` + email + `"}`),
	}
}

// create creates an invitation, which must succeed.
func (s *session) create(ctx context.Context, email string, ignoreExisting bool) (inv clerkinvite.Invitation) {
	if s.err != nil {
		return inv
	}
	created, err := s.api.CreateInvitation(ctx, request(email, ignoreExisting))
	if s.fail(err); err == nil {
		inv = *created
	}
	return inv
}

// tryCreate returns the outcome of a create that may be refused.
func (s *session) tryCreate(ctx context.Context, email string, ignoreExisting bool) string {
	if s.err != nil {
		return ""
	}
	_, err := s.api.CreateInvitation(ctx, request(email, ignoreExisting))
	return s.outcome(err, "invited")
}

func (s *session) tryBulk(ctx context.Context, rs ...clerkinvite.InvitationRequest) string {
	if s.err != nil {
		return ""
	}
	_, err := s.api.CreateInvitations(ctx, rs)
	return s.outcome(err, "invited")
}

func (s *session) revoke(ctx context.Context, id string) error {
	_, err := s.api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: id})
	return err
}

// find lists by query and returns the invitation with the ID, or any of the address for "", or nil.
func (s *session) find(ctx context.Context, query, id string) *clerkinvite.Invitation {
	if s.err != nil {
		return nil
	}
	list, err := s.api.ListInvitations(ctx, clerkinvite.InvitationQuery{Query: query})
	s.fail(err)
	for _, inv := range list {
		if inv.ID == id || id == "" && strings.EqualFold(inv.Email, query) {
			return &inv
		}
	}
	return nil
}

// holds reports whether the look-up shows a user for the address.
func (s *session) holds(ctx context.Context, email string) bool {
	if s.err != nil {
		return false
	}
	found, err := s.api.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{email}})
	s.fail(err)
	return len(found) > 0
}

// newUser creates a user with the verified address, and waits until look-ups show the user.
func (s *session) newUser(ctx context.Context, email string) (id string, looks int) {
	if s.err != nil {
		return "", 0
	}
	u, err := s.users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{email}, SkipPasswordRequirement: clerk.Bool(true)})
	if err == nil && u.ID == "" {
		err = errors.New("no user")
	}
	if s.fail(s.sdkError(err)); err != nil {
		return "", 0
	}
	return u.ID, s.await(ctx, func() bool { return s.holds(ctx, email) })
}

// await looks until done, and returns the number of looks, or 0 for never.
func (s *session) await(ctx context.Context, done func() bool) int {
	for looks := 1; looks <= maxLooks && s.err == nil; looks++ {
		if done() {
			return looks
		}
		select {
		case <-ctx.Done():
			s.fail(ctx.Err())
		case <-time.After(s.pause):
		}
	}
	return 0
}

func (s *session) when(looks int) string {
	switch looks {
	case 0:
		return fmt.Sprintf("not in %d looks, %s apart", maxLooks, s.pause)
	case 1:
		return "immediately"
	default:
		return fmt.Sprintf("late, at look %d, %s apart", looks, s.pause)
	}
}

// cleanUp revokes and deletes what this run has created, even if the response was lost, and
// returns what it could not revoke or delete.
func (s *session) cleanUp(ctx context.Context) (left []string) {
	s.wire.cleaning = true
	try := func(what string, do func() error) {
		var err error
		for range 3 {
			if err = do(); err == nil {
				return
			}
			wait, _ := clerkinvite.RetryAfter(err)
			select {
			case <-ctx.Done():
			case <-time.After(max(s.pause, min(wait, 20*time.Second))):
			}
		}
		left = append(left, fmt.Sprintf("%s: %v", what, err))
	}
	invitations, users := s.wire.invitations, s.wire.users
	for _, email := range s.used {
		try("invitations of "+email+", if any", func() error {
			list, err := s.api.ListInvitations(ctx, clerkinvite.InvitationQuery{Query: email, Status: clerkinvite.InvitationPending})
			for _, inv := range list {
				if m := (made{inv.ID, inv.Email}); strings.EqualFold(inv.Email, email) && !slices.Contains(invitations, m) {
					invitations = append(invitations, m)
				}
			}
			return err
		})
	}
	for _, inv := range invitations {
		try("invitation "+inv.ID, func() error {
			err := s.revoke(ctx, inv.ID)
			var api *clerkinvite.APIError
			if errors.As(err, &api) && (api.StatusCode == 404 || strings.HasPrefix(api.Code, "invitation_already_")) {
				return nil
			}
			return err
		})
	}
	try("users, if there are more", func() error {
		found, err := s.api.FindUsers(ctx, clerkinvite.UserQuery{Emails: s.used})
		for _, u := range found {
			// If the look-up does not filter, do not delete other users.
			strange := slices.ContainsFunc(u.Emails, func(e clerkinvite.UserEmail) bool { return !s.ours(e.Address) })
			if m := (made{ID: u.ID}); len(u.Emails) > 0 && !strange && !slices.Contains(users, m) {
				users = append(users, m)
			}
		}
		return err
	})
	for _, u := range users {
		try("user "+u.ID, func() error {
			_, err := s.users.Delete(ctx, u.ID)
			if s.wire.status == http.StatusNotFound {
				return nil
			}
			return s.sdkError(err)
		})
	}
	return left
}

// sdkError makes an error of the SDK printable; its text can be a whole page.
func (s *session) sdkError(err error) error {
	if err == nil {
		return nil
	}
	api := &clerkinvite.APIError{StatusCode: s.wire.status, Err: err}
	var e *clerk.APIErrorResponse
	if errors.As(err, &e) && len(e.Errors) > 0 {
		api.Code, api.LongMessage, api.Err = e.Errors[0].Code, e.Errors[0].LongMessage, nil
	} else if api.StatusCode != 0 {
		api.Err = errors.New("the response cannot be read")
	}
	return api
}

// wire is the transport to Clerk. It obeys this program's limits, and remembers what was
// created even if the caller loses the response. It makes one request at a time.
type wire struct {
	pause    time.Duration // before each request
	cleaning bool          // the limits no longer apply

	requests, creates        int
	responses, traced, dated int
	status                   int    // of the last response, 0 if there was none
	listForm                 string // of the last list of invitations
	invitations, users       []made
}

// made is a created invitation or user.
type made struct {
	ID    string `json:"id"`
	Email string `json:"email_address"` // of an invitation
}

// madeFor returns the number of invitations created for an address.
func (w *wire) madeFor(email string) (n int) {
	for _, inv := range w.invitations {
		if strings.EqualFold(inv.Email, email) {
			n++
		}
	}
	return n
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	post, what := req.Method == http.MethodPost, req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	create := post && (what == "invitations" || what == "bulk")
	w.status = 0
	if !w.cleaning && (w.requests == maxRequests || create && w.creates == maxCreates) {
		return nil, errors.New("this program's own limit is reached")
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(w.pause):
	}
	w.requests++
	if create {
		w.creates++
	}
	if req.Method != http.MethodGet {
		// Finish it after Ctrl-C, too: the response says what must be cleaned up.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
	}
	resp, err := http.DefaultTransport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))

	w.status = resp.StatusCode
	w.responses++
	if resp.Header.Get("Clerk-Trace-Id") != "" {
		w.traced++
	}
	if resp.Header.Get("Date") != "" {
		w.dated++
	}
	object := bytes.HasPrefix(body, []byte("{"))
	if !post && what == "invitations" {
		w.listForm = map[bool]string{true: "an object with data", false: "a bare array"}[object]
	}
	if object {
		body = slices.Concat([]byte("["), body, []byte("]"))
	}
	var objects []made
	if resp.StatusCode/100 == 2 && json.Unmarshal(body, &objects) == nil {
		switch {
		case create:
			w.invitations = append(w.invitations, objects...)
		case post && what == "users":
			w.users = append(w.users, objects...)
		}
	}
	return resp, nil
}
