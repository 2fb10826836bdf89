package clerkinvite

import (
	"context"
	"errors"
	"slices"
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
	result    func(m *Member) *delivery // what the caller gets; nil: the row
	settled   *delivery
}

// findAll asks Clerk who holds the addresses, and decides for the rows of those that
// it knows verified, and for all if it cannot be asked.
func (s *Service) findAll(ctx, calls context.Context, l lease, chunk []*attempt) {
	err := s.open(endpointFindUsers)
	if err != nil {
		for _, a := range chunk {
			s.closed(a, "find users", err)
		}
		return
	}
	if err = s.find(calls, chunk); err == nil {
		return
	}
	if ctx.Err() != nil {
		for _, a := range chunk {
			s.release(ctx, l, a)
		}
		return
	}
	// One address that Clerk stumbles over must not hold up the others: the half
	// without it is known by an answer. Without one it is Clerk that has a problem.
	var api *APIError
	if len(chunk) > 1 && errors.As(err, &api) && (api.StatusCode >= 500 || api.StatusCode/100 == 4 && pointsAtAddresses(api.Meta)) {
		first, second := chunk[:len(chunk)/2], chunk[len(chunk)/2:]
		firstErr, secondErr := s.find(calls, first), s.find(calls, second)
		if ctx.Err() != nil {
			for _, a := range chunk {
				if a.next == nil {
					s.release(ctx, l, a)
				}
			}
			return
		}
		// An error that is about addresses has one to be found, however many there are.
		if firstErr == nil || secondErr == nil || api.StatusCode < 500 {
			if firstErr != nil {
				s.findAll(ctx, calls, l, first)
			}
			if secondErr != nil {
				s.findAll(ctx, calls, l, second)
			}
			return
		}
	}
	for _, a := range chunk {
		a.shared = len(chunk) > 1
		s.failed(ctx, a, "find users", err, false)
	}
}

// find is one look-up for all of chunk, and what its answer decides.
func (s *Service) find(calls context.Context, chunk []*attempt) error {
	var emails []string
	for _, a := range chunk {
		if !slices.Contains(emails, a.row.Email) {
			emails = append(emails, a.row.Email)
		}
	}
	users, err := s.findUsers(calls, UserQuery{Emails: emails})
	if err != nil {
		return err
	}
	for _, a := range chunk {
		if u := holder(users, a.row.Email); u != nil {
			s.link(a, u, nil)
		}
	}
	return nil
}

// findUsers is one look-up. A nil error and no user means that there is none.
func (s *Service) findUsers(ctx context.Context, q UserQuery) ([]User, error) {
	if err := s.open(endpointFindUsers); err != nil {
		return nil, err
	}
	users, err := s.api.FindUsers(ctx, q)
	return users, s.limited(ctx, endpointFindUsers, err)
}

// holder returns the user who holds the address verified, or nil.
func holder(users []User, email string) *User {
	for i := range users {
		if users[i].holdsVerified(email) {
			return &users[i]
		}
	}
	return nil
}

// deliverOne decides for one member for whom Clerk knows no verified user: look
// where something may have been sent before, create where nothing was.
func (s *Service) deliverOne(ctx, calls context.Context, l lease, a *attempt) {
	others := false
	if a.row.Attempts > 1 || a.row.Send > 1 {
		if others = s.look(ctx, calls, l, a); a.next != nil || a.settled != nil {
			return
		}
	}
	for again := false; ; again = true {
		if !l.fresh() {
			s.release(ctx, l, a)
			return
		}
		if err := s.open(endpointCreate); err != nil {
			s.closed(a, "create invitation", err)
			return
		}
		inv, err := s.api.CreateInvitation(calls, InvitationRequest{
			Email: a.row.Email, RedirectURL: a.params.RedirectURL, ExpiresInDays: a.params.ExpiresInDays,
			Template: a.params.Template, SkipEmail: a.params.SkipEmail,
			PublicMetadata: withMark(a.params.PublicMetadata, mark{a.row.ID, a.row.Send}),
			// Clerk refuses a second invitation for an address unless it is told not to:
			// that guards against a copy of this request, so it is given up only for an
			// invitation that was seen and is not this send's.
			IgnoreExisting: others,
		})
		err = s.limited(ctx, endpointCreate, err)
		if err == nil && (inv == nil || inv.ID == "") {
			err = errNoInvitation
		}
		if err == nil {
			s.invited(a, inv)
			return
		}
		code, held := heldAtClerk(err)
		if !held || again || others {
			s.failed(ctx, a, "create invitation", err, true)
			return
		}
		// Somebody may have signed up since the look-up, an earlier attempt may have
		// come through late, or the address has an invitation that is another's.
		users, findErr := s.findUsers(calls, UserQuery{Emails: []string{a.row.Email}})
		if findErr != nil {
			s.failed(ctx, a, "find users", findErr, false)
			return
		}
		if u := holder(users, a.row.Email); u != nil {
			s.link(a, u, nil)
			return
		}
		if others = s.look(ctx, calls, l, a); a.next != nil || a.settled != nil {
			return
		}
		// Clerk has just said that a user holds the address, and nobody holds it
		// verified: an unverified holder must not be able to block the invitation. Where
		// none is shown it may be somebody who signed up this moment; whether Clerk shows
		// unverified holders at all is unknown, so the second time it counts.
		unverified := slices.ContainsFunc(users, func(u User) bool { return u.holds(a.row.Email) })
		others = others || code == codeIdentifierExists && (unverified || a.row.Attempts > 1)
		if !others {
			s.failed(ctx, a, "create invitation", errors.Join(errUnlisted, err), false)
			return
		}
	}
}

// look lists the invitations of the address. This member's own of this send, in any
// state, is this send: that decides. Otherwise others tells whether there is a
// pending one that is not this send's: Clerk refuses another unless told to ignore it.
func (s *Service) look(ctx, calls context.Context, l lease, a *attempt) (others bool) {
	list, err := s.listInvitations(calls, a.row.Email, "")
	if err == nil {
		var revoked []Invitation
		revoked, err = s.listInvitations(calls, a.row.Email, InvitationRevoked)
		// One that is in both was revoked between the two requests.
		list = slices.DeleteFunc(list, func(inv Invitation) bool {
			return slices.ContainsFunc(revoked, func(r Invitation) bool { return r.ID == inv.ID })
		})
		list = append(list, revoked...)
	}
	if err != nil {
		s.failed(ctx, a, "list invitations", err, false)
		return false
	}
	var own *Invitation
	for i := range list {
		inv := &list[i]
		m, ours := inv.mark()
		switch {
		case !ours || m.ID != a.row.ID || m.Send != a.row.Send:
			others = others || inv.Status == InvitationPending
			continue
		case own == nil:
			own = inv
		default: // the same send twice
			a.leftOver = true
			if rank(inv) < rank(own) {
				own = inv
			}
		}
	}
	switch {
	case own == nil:
	case own.Status == InvitationAccepted:
		s.invited(a, own)
		if users, err := s.findUsers(calls, UserQuery{Emails: []string{a.row.Email}}); err == nil {
			if u := holder(users, a.row.Email); u != nil {
				s.link(a, u, own)
			}
		}
	case own.Status == InvitationPending:
		s.invited(a, own)
	case own.Status == InvitationExpired:
		s.invited(a, own)
		s.settle(ctx, l, a)
		if m := a.settled.Member; a.settled.Err == nil && m.Status == StatusPending && m.InvitationID == own.ID {
			a.row, a.settled, a.made = m, nil, nil
			a.next = func(m Member) *Member { return ended(m, StatusExpired, "", s.now()) }
			a.result = func(m *Member) *delivery { return &delivery{Result: Result{Member: m}, over: true} }
		}
	default:
		a.next = func(m Member) *Member {
			m.InvitationID = own.ID
			return ended(m, StatusRevoked, ReasonAtClerk, s.now())
		}
		a.result = func(m *Member) *delivery { return &delivery{Result: Result{Member: m}, over: true} }
	}
	return others
}

// rank orders the invitations of one send: the accepted one, else the open one, else what is left.
func rank(inv *Invitation) int {
	return slices.Index([]string{InvitationAccepted, InvitationPending, InvitationExpired, InvitationRevoked}, inv.Status)
}

// listInvitations returns all pages of the invitations for an address, of one status
// or, for "", of all but revoked.
func (s *Service) listInvitations(ctx context.Context, email, status string) ([]Invitation, error) {
	const page = 500
	var all []Invitation
	for offset := 0; ; offset += page {
		if err := s.open(endpointList); err != nil {
			return nil, err
		}
		got, err := s.api.ListInvitations(ctx, InvitationQuery{Query: email, Status: status, Limit: page, Offset: offset})
		if err := s.limited(ctx, endpointList, err); err != nil {
			return nil, err
		}
		for _, inv := range got {
			// Clerk does not say whether query matches whole addresses only.
			if sameEmail(inv.Email, email) {
				all = append(all, inv)
			}
		}
		if len(got) < page {
			return all, nil
		}
	}
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

// failed decides after a call that did not succeed. Whether the call could have
// sent an email decides what its failure means.
func (s *Service) failed(ctx context.Context, a *attempt, op string, err error, sends bool) {
	outcome := classify(err, a.row.Email)
	if outcome == Uncertain && !sends || outcome == Refused && a.shared {
		outcome = Fault // nothing was sent; and what concerns many refuses nobody
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
		if isAPI && !ofInstance(api) && api.Meta[metaParamName] != nil {
			stop = false // something of this row's: its redirect URL, its template, its metadata
		}
		due := s.now().Add(wait)
		a.claimOnly = true
		a.next = func(m Member) *Member { return postponed(m, due, reason) }
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

// release decides: the row is given back, untouched and due.
func (s *Service) release(ctx context.Context, l lease, a *attempt) {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = errLeaseEnds
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return released(m, l.due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: "deliver", Outcome: Fault, Member: m, Err: cause}}, unreached: true}
	}
}

// closed decides: the row is given back, due when the endpoint opens again.
func (s *Service) closed(a *attempt, op string, err error) {
	wait, _ := RetryAfter(err)
	due := s.now().Add(wait)
	a.claimOnly = true
	a.next = func(m Member) *Member { return released(m, due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: op, Outcome: Fault, Member: m, Err: err}}}
	}
}
