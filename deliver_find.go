package clerkinvite

import (
	"context"
	"errors"
	"slices"
)

// findBatch is how many addresses or ids one look-up of users may name (Clerk's limit).
const findBatch = 100

// listPage is how many invitations one page may list (Clerk's limit).
const listPage = 500

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
		if failures == nil {
			failures = make(map[string]lookUpFailure)
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
	inside, seen := s.observe(ctx, "clerk.FindUsers")
	users, err := s.api.FindUsers(inside, q)
	seen.end(err)
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
		inside, seen := s.observe(ctx, "clerk.ListInvitations")
		got, err := s.api.ListInvitations(inside, InvitationQuery{Query: email, Status: status, Limit: listPage, Offset: offset})
		seen.end(err)
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
