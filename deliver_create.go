package clerkinvite

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// bulkSize is how many invitations one request may create (Clerk's limit).
const bulkSize = 10

// maxFailures is how many unexplained failures in a row end a pass. They are Clerk's problem, and to
// continue would only create more members of whom nobody knows whether they got their email.
const maxFailures = 3

// queue contains the attempts whose invitations are still to be created.
type queue struct {
	bulk   []*attempt // may share a request
	single []*attempt // need a request each
	more   bool       // more members are due than these
}

// newQueue returns the attempts that are not settled. First attempts of first sends share a
// request, for different addresses and without the host's metadata, of which Clerk may lose
// some on the way to the user (clerk/javascript#7956).
func newQueue(attempts []*attempt, more bool) *queue {
	q := &queue{more: more}
	queued := make(map[string]bool)
	for _, a := range attempts {
		a.shareable = a.row.Attempts == 1 && a.row.Send == 1 && a.params.PublicMetadata == nil && !queued[a.row.Email]
		switch {
		case a.delivery != nil:
		case a.shareable:
			queued[a.row.Email] = true
			q.bulk = append(q.bulk, a)
		default:
			q.single = append(q.single, a)
		}
	}
	return q
}

// next takes the attempts for the next request out of the queue, and reports whether they
// share it. It returns none if those that remain should wait for other due members: a request
// for ten is not spent on fewer.
func (q *queue) next(singleAllowed, bulkAllowed bool) (group []*attempt, bulk bool) {
	wait := q.more && bulkAllowed && len(q.bulk) < bulkSize && !slices.ContainsFunc(q.bulk, func(a *attempt) bool { return a.triedInBulk })
	switch {
	case bulkAllowed && !wait && (len(q.bulk) > 1 || len(q.bulk) == 1 && !singleAllowed):
		n := min(len(q.bulk), bulkSize)
		group, q.bulk = q.bulk[:n:n], q.bulk[n:]
		return group, true
	case len(q.single) > 0:
		group, q.single = q.single[:1:1], q.single[1:]
	case len(q.bulk) > 0 && !wait:
		group, q.bulk = q.bulk[:1:1], q.bulk[1:]
	}
	return group, false
}

// putBack returns undecided attempts to the queue, in front of the others that can share a
// request or behind the others that need their own.
func (q *queue) putBack(attempts []*attempt) {
	var bulk []*attempt
	for _, a := range attempts {
		switch {
		case a.verdict.kind != undecided:
		case a.shareable:
			bulk = append(bulk, a)
		default:
			q.single = append(q.single, a)
		}
	}
	q.bulk = append(bulk, q.bulk...)
}

func (q *queue) empty() bool { return len(q.bulk)+len(q.single) == 0 }

// createAll creates the invitations of those that are not settled yet: ten per request where
// possible, otherwise one by one. It settles the rows of each request before the next.
func (s *Service) createAll(ctx context.Context, p *pass, attempts []*attempt) {
	q := newQueue(attempts, p.more)
	stop, failures := slices.ContainsFunc(attempts, func(a *attempt) bool { return a.delivery != nil && a.delivery.stop }), 0
	for !q.empty() {
		if stop || canceled(ctx) || !p.fresh(s.now()) {
			break
		}
		group := s.createNext(ctx, p, q)
		if group == nil {
			break
		}
		q.putBack(group)
		s.settle(ctx, p.lease, group...)
		for _, a := range group {
			stop = stop || a.delivery != nil && a.delivery.stop
		}
		if failures = countFailures(failures, group); failures == maxFailures {
			stop = true
			for _, a := range group {
				if a.delivery != nil {
					a.delivery.stop = true
				}
			}
		}
	}
	for _, a := range append(q.bulk, q.single...) {
		if wait := a.bulkAllowedAt.Sub(s.now()); wait > 0 && !canceled(ctx) {
			a.decide(s.limited(a, "create invitations", limitedFor(wait))) // it has waited for its turn
		} else {
			a.decide(s.released(ctx, p, a))
		}
	}
}

// countFailures counts requests that failed for members who were never tried before. A member whose
// attempts always fail says nothing about the others.
func countFailures(failures int, group []*attempt) int {
	failed := func(a *attempt) bool { return a.verdict.kind == isUncertain || a.verdict.kind == isPostponed }
	switch {
	case slices.ContainsFunc(group, func(a *attempt) bool { return failed(a) && a.row.Attempts == 1 }):
		return failures + 1
	case slices.ContainsFunc(group, failed):
		return failures
	}
	return 0
}

// createNext makes the next request, and returns the attempts that it was about. It returns
// none if there is nothing to do now.
func (s *Service) createNext(ctx context.Context, p *pass, q *queue) []*attempt {
	singleAllowed := s.checkLimitFor(p, endpointCreate) == nil
	bulkErr := s.checkLimitFor(p, endpointCreateBulk)
	group, bulk := q.next(singleAllowed, bulkErr == nil)
	if bulk {
		release, err := s.acquireTurn(ctx, p, endpointCreateBulk)
		switch {
		case err == nil:
			defer release()
			s.createBulk(ctx, group)
			return group
		case errors.Is(err, errLeaseEnds):
			return group
		}
		q.putBack(group)
		bulkErr = err
		group, _ = q.next(singleAllowed, false)
	}
	if wait, limited := isRateLimit(bulkErr); bulkErr != nil {
		for _, a := range append(group, q.bulk...) {
			if a.shareable {
				if a.shareable = singleAllowed; limited {
					a.bulkAllowedAt = s.now().Add(wait)
				}
			}
		}
	}
	if group != nil {
		a := group[0]
		a.decide(s.deliverOne(ctx, p, a))
	}
	return group
}

// createBulk creates the invitations of several members with one request. It decides for
// those whom the response settles; the others stay undecided.
func (s *Service) createBulk(ctx context.Context, group []*attempt) {
	requests := make([]InvitationRequest, len(group))
	for i, a := range group {
		requests[i] = a.request(false)
	}
	created, err := request(ctx, s, endpointCreateBulk, "clerk.CreateInvitations", func(ctx context.Context) ([]Invitation, error) {
		return s.api.CreateInvitations(ctx, requests)
	})
	bulk := call{op: "create invitations", sends: true}
	var api *APIError
	var invalid *InvalidParamsError
	isAPI := errors.As(err, &api)
	switch {
	case err == nil:
		s.limits.noteCreated(s.now())
		marks := make([]mark, len(created)) // zero: not ours, or Clerk does not show the metadata
		for i := range created {
			marks[i], _ = created[i].mark()
		}
		for _, a := range group {
			if inv := a.invitationIn(created, marks); inv != nil {
				a.decide(verdict{kind: isInvited, invitation: inv})
			} else {
				a.decide(s.failed(ctx, a, bulk, errNoInvitation))
			}
		}
	case errors.As(err, &invalid): // the adapter does not say whose parameters
		for _, a := range group {
			a.shareable = false
		}
	case isAPI && api.StatusCode == http.StatusTooManyRequests:
		// Undecided: the single endpoint may be allowed.
	case isAPI && aboutSome(api):
		// What the request did for the others is unknown, but Clerk would reject a second create.
		named := false
		for _, a := range group {
			a.triedInBulk = true
			if lists(api.Meta, a.row.Email) {
				a.bulkErr, a.shareable, named = err, false, true
			}
		}
		for _, a := range group {
			a.shareable = a.shareable && named // if Clerk names nobody, each needs a request
		}
	default:
		bulk.shared = len(group) > 1
		for _, a := range group {
			a.decide(s.failed(ctx, a, bulk, err))
		}
	}
}

// aboutSome reports whether Clerk rejected a request for several because of one or some.
func aboutSome(api *APIError) bool {
	return api.StatusCode/100 == 4 && api.StatusCode != http.StatusRequestTimeout && api.StatusCode != http.StatusConflict && !ofInstance(api)
}

// request returns what Clerk is asked for.
func (a *attempt) request(ignoreExisting bool) InvitationRequest {
	return InvitationRequest{
		Email: a.row.Email, RedirectURL: a.params.RedirectURL, ExpiresInDays: a.params.ExpiresInDays,
		Template: a.params.Template, SkipEmail: a.params.SkipEmail,
		PublicMetadata: withMark(a.params.PublicMetadata, mark{a.row.ID, a.row.Send}),
		IgnoreExisting: ignoreExisting,
	}
}

// invitationIn returns the attempt's invitation in the response to a request for several: by
// its mark or, if Clerk does not show the metadata, by its address.
func (a *attempt) invitationIn(created []Invitation, marks []mark) *Invitation {
	for i := range created {
		inv := &created[i]
		if inv.ID != "" && (marks[i] == mark{a.row.ID, a.row.Send} || marks[i] == mark{} && sameEmail(inv.Email, a.row.Email)) {
			return inv
		}
	}
	return nil
}

// deliverOne decides for one member whose address no user holds verified: look if something
// may have been sent before, create otherwise. It leaves the attempt undecided if the endpoint
// is limited and the attempt can share a request instead.
func (s *Service) deliverOne(ctx context.Context, p *pass, a *attempt) (v verdict) {
	others := false
	if a.row.Attempts > 1 || a.row.Send > 1 {
		if v, others = s.look(ctx, a); v.kind != undecided {
			return v
		}
	}
	err := a.bulkErr
	if err == nil {
		if v, err = s.create(ctx, p, a, others); err == nil {
			return v
		}
	}
	if code, held := heldAtClerk(err); held && !others {
		if v, others = s.lookAgain(ctx, a, code, err); v.kind != undecided {
			return v
		}
		if v, err = s.create(ctx, p, a, others); err == nil {
			return v
		}
	}
	return s.failed(ctx, a, call{op: "create invitation", sends: true}, err)
}

// lookAgain decides after Clerk has rejected a create because it has the address already:
// somebody may have signed up since the look-up, an earlier attempt may have arrived late, or
// another member has an invitation for it. Otherwise it reports that ignore_existing is needed.
func (s *Service) lookAgain(ctx context.Context, a *attempt, code string, rejected error) (v verdict, others bool) {
	users, err := s.findUsers(ctx, UserQuery{Emails: []string{a.row.Email}})
	if err != nil {
		return s.failed(ctx, a, call{op: "find users"}, err), false
	}
	if u := holder(users, a.row.Email); u != nil {
		return linked(u, nil), false
	}
	if v, others = s.look(ctx, a); v.kind != undecided {
		return v, false
	}
	// Clerk says that a user has the address, and no user holds it verified. An unverified
	// holder must not block the invitation. If Clerk shows no holder, somebody may be signing up
	// right now; whether Clerk shows unverified holders at all is unknown, so the second attempt
	// counts as proof.
	unverified := slices.ContainsFunc(users, func(u User) bool { return u.holds(a.row.Email) })
	if others || code == codeIdentifierExists && (unverified || a.row.Attempts > 1) {
		return verdict{}, true
	}
	return s.failed(ctx, a, call{op: "create invitation"}, errors.Join(errUnlisted, rejected)), false
}

// create creates one invitation. The error is Clerk's if it leaves the decision to the caller.
// Clerk rejects a second invitation for an address unless ignoreExisting is set. That protects
// against a late copy of this request, so it is given up only for an invitation that was seen
// and does not belong to this send.
func (s *Service) create(ctx context.Context, p *pass, a *attempt, ignoreExisting bool) (verdict, error) {
	release, err := s.acquireTurn(ctx, p, endpointCreate)
	_, limited := isRateLimit(err)
	switch {
	case limited:
		return s.createLimited(p, a, err), nil
	case errors.Is(err, errLeaseEnds) || err != nil && ctx.Err() != nil:
		return s.released(ctx, p, a), nil
	case err != nil: // the store's
		return s.failed(ctx, a, call{op: "create invitation"}, err), nil
	}
	defer release()
	inv, err := request(ctx, s, endpointCreate, "clerk.CreateInvitation", func(ctx context.Context) (*Invitation, error) {
		return s.api.CreateInvitation(ctx, a.request(ignoreExisting))
	})
	_, limited = isRateLimit(err)
	switch {
	case limited:
		return s.createLimited(p, a, err), nil
	case err == nil && (inv == nil || inv.ID == ""):
		return verdict{}, errNoInvitation
	}
	if err == nil {
		s.limits.noteCreated(s.now())
	}
	return verdict{kind: isInvited, invitation: inv}, err
}

// createLimited decides for an attempt that met a limit of the single endpoint: it shares a
// request if it can, and otherwise waits.
func (s *Service) createLimited(p *pass, a *attempt, err error) verdict {
	if a.shareable && s.checkLimitFor(p, endpointCreateBulk) == nil {
		return verdict{}
	}
	var api *APIError
	if errors.As(err, &api) { // as long as this process knows
		limit := *api
		limit.RetryAfter = max(limit.RetryAfter, s.limits.wait(endpointCreate, s.now()))
		err = &limit
	}
	return s.limited(a, "create invitation", err)
}
