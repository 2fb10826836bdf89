package clerkinvite

import (
	"context"
	"errors"
	"net/http"
	"slices"
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
	answer    error                     // what a request for several said about this address
	bulkOpens time.Time                 // when a limit ends that kept this row from a request for several
	result    func(m *Member) *delivery // what the caller gets; nil: the row
	settled   *delivery
}

// findAll asks Clerk who holds the addresses, and decides for the rows of those that
// it knows verified, and for those about whom it cannot be asked.
func (s *Service) findAll(ctx, calls context.Context, l lease, chunk []*attempt) {
	if err := s.open(endpointFindUsers); err != nil {
		for _, a := range chunk {
			s.closed(a, "find users", err)
		}
		return
	}
	var emails []string
	for _, a := range chunk {
		if !slices.Contains(emails, a.row.Email) {
			emails = append(emails, a.row.Email)
		}
	}
	users, failures := s.findByEmail(calls, emails)
	for _, a := range chunk {
		failure, bad := failures[a.row.Email]
		switch {
		case bad && ctx.Err() != nil:
			s.release(ctx, l, a)
		case bad:
			a.shared = failure.shared
			s.failed(ctx, a, "find users", failure.err, false)
		default:
			if u := holder(users, a.row.Email); u != nil {
				s.link(a, u, nil)
			}
		}
	}
}

// lookUpFailure is why an address could not be asked about.
type lookUpFailure struct {
	err    error
	shared bool // it concerns other addresses too
}

// findByEmail asks who holds the addresses. One that Clerk stumbles over must not hold
// up the others: a look-up that fails is repeated by halves until it is known which it is.
func (s *Service) findByEmail(ctx context.Context, emails []string) (users []User, failures map[string]lookUpFailure) {
	failures = make(map[string]lookUpFailure)
	answered := false // Clerk has answered at least one look-up
	find := func(emails []string) error {
		found, err := s.findUsers(ctx, UserQuery{Emails: emails})
		users, answered = append(users, found...), answered || err == nil
		return err
	}
	var split func(emails []string, err error)
	split = func(emails []string, err error) {
		if len(emails) > 1 && aboutOneAddress(err) && ctx.Err() == nil {
			first, second := emails[:len(emails)/2], emails[len(emails)/2:]
			firstErr, secondErr := find(first), find(second)
			var api *APIError
			broken := errors.As(err, &api) && api.StatusCode >= 500
			if firstErr != nil && secondErr != nil && !answered && broken && len(emails) > 2 {
				// Two bad addresses, or Clerk out of order? Two single ones tell.
				if find(first[:1]) != nil {
					_ = find(second[:1])
				}
			}
			// An error that is about addresses has one to be found, however many there are.
			if answered || !broken {
				if firstErr != nil {
					split(first, firstErr)
				}
				if secondErr != nil {
					split(second, secondErr)
				}
				return
			}
		}
		for _, email := range emails {
			failures[email] = lookUpFailure{err, len(emails) > 1}
		}
	}
	if err := find(emails); err != nil {
		split(emails, err)
	}
	return users, failures
}

// aboutOneAddress reports whether a look-up of several may have failed because of one.
func aboutOneAddress(err error) bool {
	var invalid *InvalidParamsError
	var api *APIError
	return errors.As(err, &invalid) ||
		errors.As(err, &api) && (api.StatusCode >= 500 || api.StatusCode/100 == 4 && pointsAtAddresses(api.Meta))
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

// createTogether asks for the invitations of several members in one request, and
// decides for all whom its answer settles. The others are to be asked for again,
// together or each alone. done ends the request's turn.
func (s *Service) createTogether(ctx, calls context.Context, group []*attempt, done func()) (together, alone []*attempt) {
	requests := make([]InvitationRequest, len(group))
	for i, a := range group {
		requests[i] = a.request(false)
	}
	created, err := s.api.CreateInvitations(calls, requests)
	err = s.limited(ctx, endpointCreateBulk, err)
	done()
	var api *APIError
	var invalid *InvalidParamsError
	switch {
	case err == nil:
		for _, a := range group {
			if inv := a.among(created); inv != nil {
				s.invited(a, inv)
			} else {
				s.failed(ctx, a, "create invitations", errNoInvitation, true)
			}
		}
		return nil, nil
	case errors.As(err, &invalid): // of one, and the adapter does not say of whom
		return nil, group
	case !errors.As(err, &api), api.NotSent, api.StatusCode/100 != 4, api.StatusCode == http.StatusRequestTimeout:
	case api.StatusCode == http.StatusTooManyRequests:
		return group, nil // the gate is closed now: one by one, if that is open
	case !ofInstance(api):
		// It is about one or some. What the request has done for the others is unknown,
		// but a second create of it would be refused.
		for _, a := range group {
			if lists(api.Meta, a.row.Email) {
				a.answer, a.tens = err, false
				alone = append(alone, a)
			} else {
				together = append(together, a)
			}
		}
		if len(alone) == 0 {
			return nil, group // it names nobody: ask for each
		}
		return together, alone
	}
	for _, a := range group {
		a.shared = len(group) > 1
		s.failed(ctx, a, "create invitations", err, true)
	}
	return nil, nil
}

// request is what Clerk is asked for.
func (a *attempt) request(ignoreExisting bool) InvitationRequest {
	return InvitationRequest{
		Email: a.row.Email, RedirectURL: a.params.RedirectURL, ExpiresInDays: a.params.ExpiresInDays,
		Template: a.params.Template, SkipEmail: a.params.SkipEmail,
		PublicMetadata: withMark(a.params.PublicMetadata, mark{a.row.ID, a.row.Send}),
		IgnoreExisting: ignoreExisting,
	}
}

// among returns the invitation of this attempt in the answer to a request for several:
// the one with its mark or, should Clerk not show the metadata, with its address.
func (a *attempt) among(created []Invitation) *Invitation {
	for i := range created {
		inv := &created[i]
		m, marked := inv.mark()
		if inv.ID != "" && (marked && m == mark{a.row.ID, a.row.Send} || !marked && sameEmail(inv.Email, a.row.Email)) {
			return inv
		}
	}
	return nil
}

// deliverOne decides for one member for whom Clerk knows no verified user: look
// where something may have been sent before, create where nothing was. It reports
// whether it met a rate limit and has decided nothing, for one who may share a request.
func (s *Service) deliverOne(ctx, calls context.Context, l lease, a *attempt) (limited bool) {
	others := false
	if a.row.Attempts > 1 || a.row.Send > 1 {
		if others = s.look(ctx, calls, l, a); a.next != nil || a.settled != nil {
			return false
		}
	}
	err := a.answer
	for again := false; ; again = true {
		if err == nil {
			if !l.fresh() {
				s.release(ctx, l, a)
				return false
			}
			var inv *Invitation
			// Clerk refuses a second invitation for an address unless it is told not to:
			// that guards against a copy of this request, so it is given up only for an
			// invitation that was seen and is not this send's.
			if inv, err = s.create(ctx, calls, l, a, others); a.next != nil {
				return false
			}
			var api *APIError
			switch {
			case err == nil:
				s.invited(a, inv)
				return false
			case !errors.As(err, &api) || api.StatusCode != http.StatusTooManyRequests:
			case a.tens && s.open(endpointCreateBulk) == nil:
				return true
			case api.NotSent:
				s.closed(a, "create invitation", err)
				return false
			}
		}
		code, held := heldAtClerk(err)
		if !held || again || others {
			s.failed(ctx, a, "create invitation", err, true)
			return false
		}
		// Somebody may have signed up since the look-up, an earlier attempt may have
		// come through late, or the address has an invitation that is another's.
		users, findErr := s.findUsers(calls, UserQuery{Emails: []string{a.row.Email}})
		if findErr != nil {
			s.failed(ctx, a, "find users", findErr, false)
			return false
		}
		if u := holder(users, a.row.Email); u != nil {
			s.link(a, u, nil)
			return false
		}
		if others = s.look(ctx, calls, l, a); a.next != nil || a.settled != nil {
			return false
		}
		// Clerk has just said that a user holds the address, and nobody holds it
		// verified: an unverified holder must not be able to block the invitation. Where
		// none is shown it may be somebody who signed up this moment; whether Clerk shows
		// unverified holders at all is unknown, so the second time it counts.
		unverified := slices.ContainsFunc(users, func(u User) bool { return u.holds(a.row.Email) })
		others = others || code == codeIdentifierExists && (unverified || a.row.Attempts > 1)
		if !others {
			s.failed(ctx, a, "create invitation", errors.Join(errUnlisted, err), false)
			return false
		}
		err = nil
	}
}

// create asks for one invitation, unless it decides otherwise: the store has failed, or
// the lease is not fresh any more.
func (s *Service) create(ctx, calls context.Context, l lease, a *attempt, ignoreExisting bool) (*Invitation, error) {
	done, err := s.take(ctx, l, endpointCreate, true)
	var api *APIError
	if err != nil && !errors.As(err, &api) {
		s.failed(ctx, a, "create invitation", err, false)
	}
	if err != nil {
		return nil, err
	}
	defer done()
	if !l.fresh() { // it had to wait
		s.release(ctx, l, a)
		return nil, nil
	}
	inv, err := s.api.CreateInvitation(calls, a.request(ignoreExisting))
	if err = s.limited(ctx, endpointCreate, err); err == nil && (inv == nil || inv.ID == "") {
		err = errNoInvitation
	}
	return inv, err
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
	var all []Invitation
	for offset := 0; ; offset += listPage {
		if err := s.open(endpointList); err != nil {
			return nil, err
		}
		got, err := s.api.ListInvitations(ctx, InvitationQuery{Query: email, Status: status, Limit: listPage, Offset: offset})
		if err := s.limited(ctx, endpointList, err); err != nil {
			return nil, err
		}
		for _, inv := range got {
			// Clerk does not say whether query matches whole addresses only.
			if sameEmail(inv.Email, email) {
				all = append(all, inv)
			}
		}
		if len(got) < listPage {
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
	if !a.bulkOpens.IsZero() && a.bulkOpens.Before(due) {
		due = a.bulkOpens
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return released(m, due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: op, Outcome: Fault, Member: m, Err: err}}}
	}
}
