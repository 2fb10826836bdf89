package clerkinvite

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// delivery is what one attempt did for one member.
type delivery struct {
	Result
	over      bool // an invitation of an earlier attempt was found, and it has ended
	stop      bool // the error is a fault of the instance, not this member's
	uncertain bool // the error is a lost answer
	unreached bool // released untouched
}

// attempt is one claimed row on its way. Whoever finds out what becomes of the row
// sets next, and settle writes it.
type attempt struct {
	row    *Member
	params clerkParams

	next      func(Member) *Member      // what the row becomes, from any version of it
	user      *User                     // the row's user, who has several addresses: which of them is the member is to be seen
	shared    bool                      // what failed concerns others too
	claimOnly bool                      // next concerns the claim only: dropped if the row is another's by now
	made      *Invitation               // what next is about: revoked if it is not wanted any more
	leftOver  bool                      // this member may have other open invitations
	tens      bool                      // may share a request with others
	asked     bool                      // was in a request for several that was refused because of somebody
	answer    error                     // what a request for several said about this address
	bulkOpens time.Time                 // when a limit ends that kept this row from a request for several
	result    func(m *Member) *delivery // what the caller gets; nil: the row
	settled   *delivery
}

// invited decides: the row is pending on inv.
func (s *Service) invited(a *attempt, inv *Invitation) {
	a.made = inv
	a.next = func(m Member) *Member { return invited(m, inv, a.params, s.now()) }
	a.result = func(m *Member) *delivery {
		if m.InvitationID == inv.ID && m.Status == StatusPending {
			m.URL = inv.URL
		}
		return &delivery{Result: Result{Member: m}}
	}
}

// link decides: the row is the user's, or failed if the user is banned. accepted is
// the invitation that brought the user, if it is known.
func (s *Service) link(a *attempt, u *User, accepted *Invitation) {
	if u.Banned {
		s.refused(a, "find users", ReasonUserBanned, errBanned)
		return
	}
	a.made, a.result = nil, nil
	a.leftOver = a.leftOver || a.row.Attempts > 1
	if accepted == nil && len(u.verifiedEmails()) > 1 {
		a.user = u
	}
	a.next = func(m Member) *Member {
		if accepted != nil {
			m = *invited(m, accepted, a.params, s.now())
		}
		return joined(m, u.ID, s.now())
	}
}

// maxOwnFaults is how many attempts it takes until a fault of a row's own parameters
// ends it. It is more than one, because they may come from a configuration that somebody
// is just mending.
const maxOwnFaults = 3

// failed decides after a call that did not succeed. Whether the call could have
// sent an email decides what its failure means.
func (s *Service) failed(ctx context.Context, a *attempt, op string, err error, sends bool) {
	outcome := classify(err, a.row.Email)
	if outcome == Uncertain && !sends || outcome == Refused && a.shared {
		outcome = Fault // nothing was sent; and what concerns many refuses nobody
	}
	if outcome == Fault && a.row.Attempts >= maxOwnFaults && !a.shared && ownFault(err) {
		outcome = Refused // asked for ever it would use up the requests of everybody else
	}
	s.log.WarnContext(ctx, "call to Clerk failed", "op", op, "outcome", outcome, "member", *a.row, "cause", logError(err))
	var api *APIError
	isAPI := errors.As(err, &api)
	wrap := func(m *Member) error {
		if !isAPI {
			return err // not Clerk's: passed through as it is
		}
		return &ClerkInvitationError{Op: op, Outcome: outcome, Member: m, Err: err}
	}
	switch outcome {
	case Refused:
		s.refused(a, op, api.Code, err)
	case Uncertain:
		// The row is left as it is, lease included: whatever is still on its way
		// arrives before the next attempt.
		a.settled = &delivery{Result: Result{a.row, wrap(a.row)}, uncertain: true}
	case Fault:
		wait, told := RetryAfter(err)
		if !told {
			wait = s.backoff(a.row.Attempts)
		}
		reason := "unavailable"
		if isAPI && api.Code != "" {
			reason = api.Code
		}
		_, held := heldAtClerk(err)
		stop := isAPI && !held && api.StatusCode != 429 && (a.shared || api.NotSent || api.StatusCode/100 == 4)
		if ownFault(err) {
			stop = false
		}
		var invalid *InvalidParamsError
		if !isAPI && !errors.As(err, &invalid) {
			stop = true // the host's own, as of a circuit breaker
		}
		due := s.now().Add(wait)
		a.claimOnly = true
		a.next = func(m Member) *Member {
			if a.shared && !sends {
				m.Attempts-- // it was not this row's turn yet
			}
			return postponed(m, due, reason)
		}
		a.result = func(m *Member) *delivery { return &delivery{Result: Result{m, wrap(m)}, stop: stop} }
	}
}

// refused decides for a person whom Clerk does not want: a reserved row fails, a
// resend leaves the older invitation as it is.
func (s *Service) refused(a *attempt, op, reason string, cause error) {
	a.made = nil
	a.leftOver = a.leftOver || a.row.Attempts > 1
	a.next = func(m Member) *Member {
		if m.Status == StatusPending {
			m.Sent, m.Reason, m.ClaimedUntil, m.NextAttemptAt = m.Send, clip(reason), nil, nil
			return &m
		}
		return ended(m, StatusFailed, reason, s.now())
	}
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: op, Outcome: Refused, Member: m, Err: cause}}}
	}
}

// released gives up the claim, as if it had not been made; unless Clerk was asked and may
// have done it, which the next attempt has to know.
func (a *attempt) released(m Member, due time.Time) *Member {
	n := released(m, due)
	if a.asked {
		n.Attempts = m.Attempts
	}
	return n
}

// release decides: the row is given back, untouched and due.
func (s *Service) release(ctx context.Context, l lease, a *attempt) {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = errLeaseEnds
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return a.released(m, l.due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: "deliver", Outcome: Fault, Member: m, Err: cause}}, unreached: true}
	}
}

// closed decides: the row is given back, due when the endpoint opens again.
func (s *Service) closed(a *attempt, op string, err error) {
	wait, _ := RetryAfter(err)
	due := s.now().Add(wait)
	if !a.bulkOpens.IsZero() && a.bulkOpens.Before(due) {
		due = a.bulkOpens
	}
	if latest := s.now().Add(time.Hour + slidingMargin); due.After(latest) {
		due = latest // look again: it may be the word of a process whose clock is wrong
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return a.released(m, due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: op, Outcome: Fault, Member: m, Err: err}}}
	}
}

// Codes of Clerk's that decide how to go on.
// Source: Clerk's error catalogue; see docs/clerk-facts.md.
const (
	codeDuplicate        = "duplicate_record"
	codeIdentifierExists = "form_identifier_exists"
	codeNotAllowed       = "not_allowed_access"
	codeAlreadyRevoked   = "invitation_already_revoked"
	codeAlreadyAccepted  = "invitation_already_accepted"
	codeDevEmails        = "dev_monthly_email_limit_exceeded"
	codeResourceNotFound = "resource_not_found"
	paramEmail           = "email_address"
	metaParamName        = "param_name"
	metaEmailAddresses   = "email_addresses"
	metaIdentifiers      = "identifiers"
)

// held reports whether Clerk refused an invitation because the address has one
// already or belongs to a user: not a failure, but a reason to look again.
func heldAtClerk(err error) (code string, ok bool) {
	var api *APIError
	if errors.As(err, &api) && api.StatusCode/100 == 4 && api.StatusCode != http.StatusRequestTimeout &&
		(api.Code == codeDuplicate || api.Code == codeIdentifierExists) {
		return api.Code, true
	}
	return "", false
}

// classify decides what a failed create can have done to the invitation for email.
// It is the one place where this is decided.
func classify(err error, email string) Outcome {
	var invalid *InvalidParamsError
	if errors.As(err, &invalid) {
		return Fault // the adapter refused to send it
	}
	var api *APIError
	if !errors.As(err, &api) {
		return Uncertain // not the adapter's: nothing is known, so the worst is assumed
	}
	switch {
	case api.NotSent:
		return Fault
	case api.StatusCode == http.StatusRequestTimeout:
		// A proxy's answer, after it may have passed the request on.
		return Uncertain
	case api.StatusCode/100 == 4:
		if _, held := heldAtClerk(err); held || ofInstance(api) {
			return Fault
		}
		if api.Code == codeNotAllowed || names(api.Meta, email) {
			return Refused
		}
		return Fault
	default: // no answer, an unreadable one, a redirect, 5xx
		return Uncertain
	}
}

// ofInstance reports whether a 4xx is certainly about the whole Clerk instance or the
// whole endpoint, and not about one person or one request.
func ofInstance(api *APIError) bool {
	switch api.StatusCode {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return strings.Contains(api.Code, "quota") || api.Code == codeDevEmails
}

// ownFault reports whether a 4xx is about a parameter of one request: its redirect URL,
// its template, its metadata.
func ownFault(err error) bool {
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode/100 != 4 || ofInstance(api) || api.Meta[metaParamName] == nil {
		return false
	}
	_, held := heldAtClerk(err)
	return !held
}

// isRateLimit reports whether err is a 429, and how long to wait.
func isRateLimit(err error) (wait time.Duration, ok bool) {
	var api *APIError
	if errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
		return api.RetryAfter, true
	}
	return 0, false
}

// pointsAtAddresses reports whether the meta of an error is about addresses at all.
func pointsAtAddresses(meta map[string]any) bool {
	return meta[metaParamName] == paramEmail || meta[metaEmailAddresses] != nil || meta[metaIdentifiers] != nil
}

// names reports whether the meta of an error about one address points at it.
func names(meta map[string]any, email string) bool {
	return meta[metaParamName] == paramEmail || lists(meta, email)
}

// lists reports whether the meta of an error has the address in one of its lists.
func lists(meta map[string]any, email string) bool {
	for _, key := range []string{metaEmailAddresses, metaIdentifiers} {
		list, ok := meta[key].([]any)
		if !ok {
			list = []any{meta[key]}
		}
		for _, v := range list {
			if s, ok := v.(string); ok && sameEmail(s, email) {
				return true
			}
		}
	}
	return false
}
