package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"time"
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
// share it. It returns none if those that remain should wait for other due members.
func (q *queue) next(singleAllowed, bulkAllowed bool) (group []*attempt, bulk bool) {
	// A request for ten is not spent on fewer while more members are due, except on those that were in
	// one already: what it did for them is unknown.
	triedInBulk := slices.ContainsFunc(q.bulk, func(a *attempt) bool { return a.triedInBulk })
	incomplete := q.more && len(q.bulk) < bulkSize && !triedInBulk
	worthwhile := len(q.bulk) > 1 || len(q.bulk) == 1 && !singleAllowed
	switch {
	case bulkAllowed && worthwhile && !incomplete:
		n := min(len(q.bulk), bulkSize)
		group, q.bulk = q.bulk[:n:n], q.bulk[n:]
		return group, true
	case len(q.single) > 0:
		group, q.single = q.single[:1:1], q.single[1:]
	case len(q.bulk) > 0 && (!bulkAllowed || !incomplete):
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
	stop := slices.ContainsFunc(attempts, (*attempt).stops)
	for failures := 0; !q.empty() && !stop && !canceled(ctx) && p.fresh(s.now()); {
		group := s.createNext(ctx, p, q)
		if group == nil {
			break
		}
		s.settle(ctx, p.lease, group...)
		q.putBack(group)
		failures = countFailures(failures, group)
		for _, a := range group {
			if failures == maxFailures && a.delivery != nil {
				a.delivery.stop = true
			}
		}
		stop = slices.ContainsFunc(group, (*attempt).stops)
	}
	for _, a := range append(q.bulk, q.single...) {
		if wait := a.bulkAllowedAt.Sub(s.now()); wait > 0 && !canceled(ctx) {
			a.decide(s.limited(a, "create invitations", limitedFor(wait)))
		} else {
			a.decide(s.released(ctx, p.dueAt, a))
		}
	}
}

// stops reports whether the attempt ended with an error that ends the pass.
func (a *attempt) stops() bool { return a.delivery != nil && a.delivery.stop }

// countFailures counts requests that failed for members who were never tried before. A member whose
// attempts always fail says nothing about the others.
func countFailures(failures int, group []*attempt) int {
	failed := func(a *attempt) bool {
		return a.verdict.kind == isUncertain || a.verdict.kind == isPostponed && failureOf(a.verdict.err, "") == rejected
	}
	switch {
	case slices.ContainsFunc(group, func(a *attempt) bool { return failed(a) && a.row.Attempts == 1 }):
		return failures + 1
	case slices.ContainsFunc(group, failed):
		return failures
	}
	return 0
}

// createNext makes the next request, and returns the attempts that it was about. Those that it did
// not decide can be tried again. It returns none if there is nothing to do now.
func (s *Service) createNext(ctx context.Context, p *pass, q *queue) []*attempt {
	singleAllowed := s.checkLimitFor(p, endpointCreate) == nil
	bulkErr := s.checkLimitFor(p, endpointCreateBulk)
	group, bulk := q.next(singleAllowed, bulkErr == nil)
	if bulk {
		release, err := s.acquireTurn(ctx, p, endpointCreateBulk, false)
		if err == nil {
			defer release()
			s.createBulk(ctx, group)
			return group
		}
		q.putBack(group)
		if errors.Is(err, errLeaseEnds) {
			return nil
		}
		bulkErr = err
		group, _ = q.next(singleAllowed, false)
	}
	if bulkErr != nil {
		for _, a := range append(group, q.bulk...) {
			a.noteBlockedBulk(bulkErr, s.now(), singleAllowed)
		}
	}
	if group != nil {
		group[0].decide(s.deliverOne(ctx, p, group[0]))
	}
	return group
}

// noteBlockedBulk notes that the attempt cannot share a request now. If single requests are not
// allowed either it must wait: otherwise createLimited would send it back to the blocked one.
func (a *attempt) noteBlockedBulk(cause error, now time.Time, singleAllowed bool) {
	if !a.shareable {
		return
	}
	if !singleAllowed {
		a.shareable = false
	}
	if wait, limited := isRateLimit(cause); limited {
		a.bulkAllowedAt = now.Add(wait)
	}
}

// createBulk creates the invitations of several members with one request. It decides for
// those whom the response settles; the others stay undecided.
func (s *Service) createBulk(ctx context.Context, group []*attempt) {
	requests := make([]InvitationRequest, len(group))
	for i, a := range group {
		requests[i] = a.invitationRequest(false)
	}
	created, err := request(ctx, s, endpointCreateBulk, "clerk.CreateInvitations", func(ctx context.Context) ([]Invitation, error) {
		return s.api.CreateInvitations(ctx, requests)
	})
	bulk := call{op: "create invitations", sends: true}
	switch failureOf(err, "") {
	case noFailure:
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
	case invalidRequest: // the adapter does not say whose parameters
		for _, a := range group {
			a.shareable = false
		}
	case rateLimited:
		// Undecided: the single endpoint may be allowed.
	case addressTaken, personRejected, parameterRejected, rejected:
		s.bulkRejected(group, err)
	default:
		bulk.shared = len(group) > 1
		for _, a := range group {
			a.decide(s.failed(ctx, a, bulk, err))
		}
	}
}

// bulkRejected prepares a group for other requests after Clerk has rejected theirs because of one or
// some of them. Those that Clerk names need a request each; if it names nobody, all do. What the
// request did for the others is unknown, but Clerk would reject a second create.
func (s *Service) bulkRejected(group []*attempt, err error) {
	var api *APIError
	errors.As(err, &api)
	named := slices.ContainsFunc(group, func(a *attempt) bool { return lists(api.Meta, a.row.Email) })
	for _, a := range group {
		a.triedInBulk = true
		if lists(api.Meta, a.row.Email) {
			a.bulkErr = err
		}
		a.shareable = named && a.bulkErr == nil
	}
}

// invitationRequest returns what Clerk is asked for.
func (a *attempt) invitationRequest(ignoreExisting bool) InvitationRequest {
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
func (s *Service) deliverOne(ctx context.Context, p *pass, a *attempt) verdict {
	otherPending := false
	if a.row.Attempts > 1 || a.row.Send > 1 {
		var v verdict
		if v, otherPending = s.look(ctx, a, a.row.Attempts > 1); v.kind != undecided {
			return v
		}
	}
	v, failure := verdict{}, a.bulkErr
	if failure == nil { // otherwise the shared request was the first create
		v, failure = s.create(ctx, p, a, otherPending)
	}
	if failureOf(failure, a.row.Email) == addressTaken && !otherPending {
		if v = s.lookAgain(ctx, a, failure); v.kind != undecided {
			return v
		}
		v, failure = s.create(ctx, p, a, true)
	}
	if failure != nil {
		return s.failed(ctx, a, call{op: "create invitation", sends: true}, failure)
	}
	return v
}

// lookAgain decides after Clerk has rejected a create because the address is taken: somebody may
// have signed up since the look-up, an earlier attempt may have arrived late, or another member has
// an invitation for it. It is undecided if the invitation must be created with ignore_existing.
func (s *Service) lookAgain(ctx context.Context, a *attempt, taken error) verdict {
	users, err := s.findHolders(ctx, a.row.Email)
	if err != nil {
		return s.failed(ctx, a, call{op: "find users"}, err)
	}
	if u := holder(users, a.row.Email); u != nil {
		return linked(u, nil)
	}
	v, otherPending := s.look(ctx, a, true)
	if v.kind != undecided || otherPending {
		return v
	}
	// No invitation, so a user has the address, but none holds it verified. An unverified holder must
	// not block the invitation. If Clerk shows no holder, somebody may be signing up right now;
	// whether Clerk shows unverified holders at all is unknown, so the second attempt counts as proof.
	unverified := slices.ContainsFunc(users, func(u User) bool { return u.holds(a.row.Email) })
	if codeOf(taken) == codeIdentifierExists && (unverified || a.row.Attempts > 1) {
		return verdict{}
	}
	return s.failed(ctx, a, call{op: "create invitation"}, errors.Join(errUnlisted, taken))
}

// create creates one invitation, or decides that it cannot now. If Clerk was called and failed, it
// returns no verdict but the failure. Clerk rejects a second invitation for an address unless
// ignoreExisting is set. That protects against a late copy of this request, so it is given up only
// for an invitation that was seen and does not belong to this send.
func (s *Service) create(ctx context.Context, p *pass, a *attempt, ignoreExisting bool) (_ verdict, failure error) {
	release, err := s.acquireTurn(ctx, p, endpointCreate, false)
	_, limited := isRateLimit(err)
	switch {
	case limited:
		return s.createLimited(p, a, err), nil
	case errors.Is(err, errLeaseEnds) || err != nil && ctx.Err() != nil:
		return s.released(ctx, p.dueAt, a), nil
	case err != nil: // the store's
		return s.failed(ctx, a, call{op: "create invitation"}, err), nil
	}
	defer release()
	inv, err := request(ctx, s, endpointCreate, "clerk.CreateInvitation", func(ctx context.Context) (*Invitation, error) {
		return s.api.CreateInvitation(ctx, a.invitationRequest(ignoreExisting))
	})
	_, limited = isRateLimit(err)
	switch {
	case limited:
		return s.createLimited(p, a, err), nil
	case err != nil:
		return verdict{}, err
	case inv == nil || inv.ID == "":
		return verdict{}, errNoInvitation
	}
	s.limits.noteCreated(s.now())
	return verdict{kind: isInvited, invitation: inv}, nil
}

// createLimited decides for an attempt that met a limit of the single endpoint. An attempt that can
// share a request stays undecided, so that it goes back to the queue; others wait.
func (s *Service) createLimited(p *pass, a *attempt, limit error) verdict {
	if a.shareable && s.checkLimitFor(p, endpointCreateBulk) == nil {
		return verdict{}
	}
	var api *APIError
	if errors.As(limit, &api) { // as long as this process knows
		known := *api
		known.RetryAfter = max(known.RetryAfter, s.limits.wait(endpointCreate, p.background, s.now()))
		limit = &known
	}
	return s.limited(a, "create invitation", limit)
}
