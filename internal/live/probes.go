package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/emailaddress"

	"github.com/clerkinvite/clerkinvite"
)

// tell prints what Clerk did and what the library assumes, which is also the fake Clerk's
// default. needs is a pattern of the responses that the library can work with, "" for any;
// why is the reason.
func (s *session) tell(name, got, assumed, needs, why string) {
	if s.err != nil {
		return
	}
	sign, safe := "~", "any response is safe"
	if needs != "" {
		safe = "safe responses: " + needs
	}
	if got == assumed {
		sign = "="
	} else if !regexp.MustCompile(needs).MatchString(got) {
		sign = "!"
	}
	s.notef("%s %s: %s", sign, name, got)
	s.printf("      assumed: %s; %s: %s\n", assumed, safe, why)
	if sign == "!" {
		s.printf("      THE LIBRARY DOES NOT SUPPORT THIS: please open an issue with the summary\n")
	}
}

// askNew creates an invitation and looks it up in every way.
func (s *session) askNew(ctx context.Context) {
	email := s.address()
	inv := s.create(ctx, email, false)
	var listed *clerkinvite.Invitation
	looks := s.await(ctx, func() bool { listed = s.find(ctx, email, inv.ID); return listed != nil })
	s.tell("new invitation in the list", s.when(looks), "immediately", "", "nothing is concluded from absence in a list")
	s.tell("fields of a create's response", fields(inv), "url, expires_at", "", "only SkipEmail needs url, and expires_at is computed")
	if listed == nil {
		s.fail(errors.New("the list does not show a new invitation"))
		return
	}
	s.tell("fields in the list", fields(*listed), "url, expires_at", "", "only SkipEmail needs url, and expires_at is computed")
	s.tell("list with paginated=true", s.wire.listForm, "an object with data", "", "both forms are read")
	part, _, _ := strings.Cut(email, "+")
	s.tell("list by a part of an address", found(s.find(ctx, part, inv.ID) != nil), "not found", "", "whole addresses are compared again")
	s.tell("list by an address in capitals", found(s.find(ctx, strings.ToUpper(email), inv.ID) != nil), "found", "", "addresses are sent in lower case")
}

// askUser creates a user with a verified address in mixed case.
func (s *session) askUser(ctx context.Context) {
	email := s.address()
	_, looks := s.newUser(ctx, strings.ToUpper(email[:1])+email[1:])
	s.tell("new user in the look-up", s.when(looks), "immediately", "", "the person gets an invitation instead of being linked")
	s.tell("look-up of a mixed-case address in lower case", found(s.holds(ctx, email)), "found", "", "the person gets an invitation instead of being linked")
	s.tell("create for a verified user", s.tryCreate(ctx, email, false),
		"HTTP 422 form_identifier_exists, meta: param_name", "HTTP 4.. form_identifier_exists|invited", "status and meta do not matter")
	s.tell("bulk with ignore_existing for a verified user", s.tryBulk(ctx, request(email, true)), "invited", "", "the library never sends that")
}

// askDuplicate invites an address twice, and once more with ignore_existing.
func (s *session) askDuplicate(ctx context.Context) {
	email := s.address()
	older := s.create(ctx, email, false)
	s.tell("second create", s.tryCreate(ctx, email, false),
		"HTTP 400 duplicate_record, meta: email_addresses", "HTTP 4.. duplicate_record", "status and meta do not matter")
	newer := s.create(ctx, email, true)
	if s.await(ctx, func() bool { return s.find(ctx, email, newer.ID) != nil }) == 0 {
		s.fail(errors.New("the list does not show a new invitation"))
	}
	status := "not pending any more"
	if inv := s.find(ctx, email, older.ID); inv != nil {
		status = string(inv.Status)
	}
	s.tell("older invitation after ignore_existing", status, "pending", "", "the library revokes it itself")
}

// askUnverified gives a user a second address that is not verified, and invites it.
func (s *session) askUnverified(ctx context.Context) {
	id, _ := s.newUser(ctx, s.address())
	email := s.address()
	if s.err == nil {
		_, err := s.emails.Create(ctx, &emailaddress.CreateParams{UserID: &id, EmailAddress: &email, Verified: clerk.Bool(false)})
		s.fail(s.sdkError(err))
	}
	s.tell("unverified holder in the look-up", found(s.await(ctx, func() bool { return s.holds(ctx, email) }) > 0), "found", "", "an unverified user is ignored")
	got := s.tryCreate(ctx, email, false)
	if got != "invited" {
		got += "; with ignore_existing: " + s.tryCreate(ctx, email, true)
	}
	s.tell("create for an unverified holder", got, "invited", "invited", "the library tries ignore_existing")
}

// askRevoke revokes an invitation twice.
func (s *session) askRevoke(ctx context.Context) {
	id := s.create(ctx, s.address(), false).ID
	if s.err != nil {
		return
	}
	s.fail(s.revoke(ctx, id))
	s.tell("second revoke", s.outcome(s.revoke(ctx, id), "revoked again"),
		"HTTP 400 invitation_already_revoked, no meta", "already_revoked|HTTP 404 resource_not_found|again", "that counts as success")
}

// askBulk invites two addresses in one request.
func (s *session) askBulk(ctx context.Context) {
	asked := []clerkinvite.InvitationRequest{request(s.address(), false), request(s.address(), false)}
	made, err := s.api.CreateInvitations(ctx, asked)
	s.fail(err)
	order, metadata := "the request's", "there"
	for i, inv := range made {
		at := slices.IndexFunc(asked, func(r clerkinvite.InvitationRequest) bool { return strings.EqualFold(r.Email, inv.Email) })
		if at != i {
			order = "another"
		}
		var got bytes.Buffer
		if at < 0 || json.Compact(&got, inv.PublicMetadata) != nil || got.String() != string(asked[at].PublicMetadata) {
			metadata = "missing or changed"
		}
	}
	s.tell("order of a bulk response (one sample)", order, "the request's", "", "the order is not used")
	s.tell("metadata in a bulk response", metadata, "there", "there", "the library recognises invitations by it")
}

// askBulkDuplicate invites an invited address and another one in one request.
func (s *session) askBulkDuplicate(ctx context.Context) {
	invited, other := s.address(), s.address()
	s.create(ctx, invited, false)
	s.tell("bulk with an invited address", s.tryBulk(ctx, request(invited, false), request(other, false)),
		"HTTP 400 duplicate_record, meta: email_addresses", "HTTP 4..", "the rest is sent one by one")
	listed := s.await(ctx, func() bool { return s.find(ctx, other, "") != nil }) > 0
	s.tell("other address of that bulk", map[bool]string{true: "invited", false: "not invited"}[listed], "not invited", "",
		"the next attempt checks Clerk before it sends")
}

func (s *session) askHeaders(context.Context) {
	share := func(n int) string {
		if n == s.wire.responses {
			return "all responses"
		}
		return fmt.Sprintf("%d of %d responses", n, s.wire.responses)
	}
	s.tell("headers", "Clerk-Trace-Id on "+share(s.wire.traced)+", Date on "+share(s.wire.dated),
		"Clerk-Trace-Id on all responses, Date on all responses", "", "the trace ID is for logs, and Date for a Retry-After that is a date")
}

func found(yes bool) string { return map[bool]string{true: "found", false: "not found"}[yes] }

func fields(inv clerkinvite.Invitation) string {
	switch {
	case !inv.URL.IsZero() && inv.ExpiresAt != nil:
		return "url, expires_at"
	case !inv.URL.IsZero():
		return "url"
	case inv.ExpiresAt != nil:
		return "expires_at"
	}
	return "neither"
}

// outcome returns Clerk's response to a request that may be refused.
func (s *session) outcome(err error, success string) string {
	var api *clerkinvite.APIError
	if err == nil {
		return success
	}
	if !errors.As(err, &api) || api.StatusCode/100 != 4 || api.Code == "" || api.StatusCode == 401 || api.StatusCode == 429 {
		s.fail(err) // the request failed, so the probe has no result
		return ""
	}
	meta := "no meta"
	if len(api.Meta) > 0 {
		meta = "meta: " + strings.Join(slices.Sorted(maps.Keys(api.Meta)), ", ")
	}
	return fmt.Sprintf("HTTP %d %s, %s", api.StatusCode, api.Code, meta)
}
