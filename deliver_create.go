package clerkinvite

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// bulkSize is how many invitations one request may ask for (Clerk's limit).
const bulkSize = 10

// maxUncertain is how many lost answers in a row end a pass.
const maxUncertain = 3

// createAll creates the invitations of those who are not settled yet: by tens as far
// as it can, else one by one. It settles the rows of each request before it makes the next.
func (s *Service) createAll(ctx, calls context.Context, l lease, attempts []*attempt) {
	together, alone := byTens(attempts)
	stopped, lost := slices.ContainsFunc(attempts, func(a *attempt) bool { return a.settled != nil && a.settled.stop }), 0
	for len(together)+len(alone) > 0 {
		if stopped || ctx.Err() != nil || !l.fresh() {
			s.giveBack(ctx, l, append(together, alone...))
			return
		}
		var group []*attempt
		single := s.openFor(l, endpointCreate) == nil
		// A request for ten is not spent on fewer while more are due: the rest is given
		// back, and goes with the next.
		rest := l.more && len(together) < bulkSize && s.openFor(l, endpointCreateBulk) == nil &&
			!slices.ContainsFunc(together, func(a *attempt) bool { return a.asked })
		switch {
		case rest && len(alone) == 0:
			s.giveBack(ctx, l, together)
			return
		case rest:
		case len(together) > 1, len(together) == 1 && !single:
			done, err := s.take(ctx, l, endpointCreateBulk)
			if err != nil {
				s.missed(together, err, single)
				break
			}
			if !l.fresh() { // it had to wait
				done()
				continue
			}
			n := min(len(together), bulkSize)
			group, together = together[:n], together[n:]
			again, split := s.createTogether(ctx, calls, group, done)
			together, alone = append(again, together...), append(alone, split...)
		}
		if group == nil {
			if len(alone) == 0 {
				alone, together = together[:1:1], together[1:]
			}
			group, alone = alone[:1], alone[1:]
			if limited := s.deliverOne(ctx, calls, l, group[0]); limited {
				together = append(together, group[0]) // the other endpoint may be open
				continue
			}
		}
		s.settle(ctx, l, group...)
		// Some lost answers in a row are Clerk's trouble, not these persons'. To go on
		// would only make more people of whom nobody knows whether they got their email.
		if lost++; !slices.ContainsFunc(group, func(a *attempt) bool { return a.settled != nil && a.settled.uncertain }) {
			lost = 0
		}
		for _, a := range group {
			if a.settled != nil {
				a.settled.stop = a.settled.stop || lost == maxUncertain
				stopped = stopped || a.settled.stop
			}
		}
	}
}

// missed notes that the request for several is not to be had now, and whether single
// ones are.
func (s *Service) missed(together []*attempt, err error, single bool) {
	wait, limited := isRateLimit(err)
	for _, a := range together {
		if a.tens = single; limited {
			a.bulkOpens = s.now().Add(wait)
		}
	}
}

// giveBack decides for those who are not reached.
func (s *Service) giveBack(ctx context.Context, l lease, attempts []*attempt) {
	for _, a := range attempts {
		if wait := a.bulkOpens.Sub(s.now()); wait > 0 && ctx.Err() == nil {
			s.closed(a, "create invitations", closedFor(wait)) // it has waited for its turn
		} else {
			s.release(ctx, l, a)
		}
	}
}

// byTens returns which of the attempts that are not settled can share a request: first
// ones of first sends, for different addresses, without metadata of the host's, of which
// Clerk may lose some on the way to the user (clerk/javascript#7956).
func byTens(attempts []*attempt) (together, alone []*attempt) {
	seen := make(map[string]bool)
	for _, a := range attempts {
		switch {
		case a.settled != nil:
		case a.row.Attempts == 1 && a.row.Send == 1 && a.params.PublicMetadata == nil && !seen[a.row.Email]:
			seen[a.row.Email], a.tens = true, true
			together = append(together, a)
		default:
			alone = append(alone, a)
		}
	}
	return together, alone
}

// createTogether asks for the invitations of several members in one request, and
// decides for all whom its answer settles. The others are to be asked for again,
// together or each alone. done ends the request's turn.
func (s *Service) createTogether(ctx, calls context.Context, group []*attempt, done func()) (together, alone []*attempt) {
	requests := make([]InvitationRequest, len(group))
	for i, a := range group {
		requests[i] = a.request(false)
	}
	inside, seen := s.observe(calls, "clerk.CreateInvitations")
	created, err := s.api.CreateInvitations(inside, requests)
	seen.end(err)
	err = s.limited(ctx, endpointCreateBulk, err)
	done()
	var api *APIError
	var invalid *InvalidParamsError
	switch {
	case err == nil:
		marks := make([]mark, len(created)) // the zero mark: it is not ours, or Clerk does not show the metadata
		for i := range created {
			marks[i], _ = created[i].mark()
		}
		for _, a := range group {
			if inv := a.among(created, marks); inv != nil {
				s.invited(a, inv)
			} else {
				s.failed(ctx, a, "create invitations", errNoInvitation, true)
			}
		}
		return nil, nil
	case errors.As(err, &invalid): // of one, and the adapter does not say of whom
		for _, a := range group {
			a.tens = false
		}
		return nil, group
	case !errors.As(err, &api), api.NotSent, api.StatusCode/100 != 4, api.StatusCode == http.StatusRequestTimeout:
	case api.StatusCode == http.StatusTooManyRequests:
		return group, nil // the gate is closed now: one by one, if that is open
	case !ofInstance(api):
		// It is about one or some. What the request has done for the others is unknown,
		// but a second create of it would be refused.
		for _, a := range group {
			a.asked = true
			if lists(api.Meta, a.row.Email) {
				a.answer, a.tens = err, false
				alone = append(alone, a)
			} else {
				together = append(together, a)
			}
		}
		if len(alone) > 0 {
			return together, alone
		}
		for _, a := range group { // it names nobody: ask for each
			a.tens = false
		}
		return nil, group
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
func (a *attempt) among(created []Invitation, marks []mark) *Invitation {
	for i := range created {
		inv := &created[i]
		if inv.ID != "" && (marks[i] == mark{a.row.ID, a.row.Send} || marks[i] == mark{} && sameEmail(inv.Email, a.row.Email)) {
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
			case a.tens && s.openFor(l, endpointCreateBulk) == nil:
				return true
			default:
				limit := *api // as long as this process knows
				limit.RetryAfter = max(limit.RetryAfter, s.gates.wait(endpointCreate, s.now()))
				s.closed(a, "create invitation", &limit)
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
	done, err := s.take(ctx, l, endpointCreate)
	var api *APIError
	switch {
	case err == nil:
		defer done()
	case errors.As(err, &api): // closed
		return nil, err
	case ctx.Err() != nil:
		s.release(ctx, l, a)
		return nil, err
	default:
		s.failed(ctx, a, "create invitation", err, false)
		return nil, err
	}
	if !l.fresh() { // it had to wait
		s.release(ctx, l, a)
		return nil, errLeaseEnds
	}
	inside, seen := s.observe(calls, "clerk.CreateInvitation")
	inv, err := s.api.CreateInvitation(inside, a.request(ignoreExisting))
	seen.end(err)
	if err = s.limited(ctx, endpointCreate, err); err == nil && (inv == nil || inv.ID == "") {
		err = errNoInvitation
	}
	return inv, err
}
