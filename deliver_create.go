package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// bulkSize is how many invitations one request may create (Clerk's limit).
const bulkSize = 10

// maxFailures is how many unexplained failures in a row end a pass. After so many, the fault is probably
// Clerk's. Continuing would add members whose email may or may not have been sent.
const maxFailures = 3

// queue contains the attempts whose invitations must still be created.
type queue struct {
	batchable []*attempt // may share a request
	single    []*attempt // need a request each
	more      bool       // later passes may bring more members, so a group of fewer than ten may wait for them

	bulkLimit, singleLimit *metLimit // of each endpoint, once a request has hit it
	shareLimit             *metLimit // the share of imports, once it is used up
}

// metLimit is a rate limit, or the used-up share of imports, that a request has hit or would hit.
type metLimit struct {
	err  error
	ends time.Time
}

// limitIn returns the limit that err reports, or nil.
func limitIn(err error, now time.Time) *metLimit {
	if failureOf(err, "") != rateLimited {
		return nil
	}
	wait, _ := RetryAfter(err)
	return &metLimit{err, now.Add(wait)}
}

// startsBatchable reports whether the attempt's first request may be a bulk request. It must be a first attempt that does
// not have to revoke an older invitation first. It must not have the host's metadata, because Clerk may not copy all of
// a bulk request's metadata to the user (clerk/javascript#7956).
func (a *attempt) startsBatchable() bool {
	revokesFirst := a.organization() != "" && a.hasEarlierSends()
	return !a.isRetry() && a.params.PublicMetadata == nil && !revokesFirst
}

// newQueue returns a queue of attempts for the application or for one organization. Attempts with the same address do
// not share a request.
func newQueue(attempts []*attempt, more bool) *queue {
	q := &queue{more: more}
	emails := make(map[string]bool)
	for _, a := range attempts {
		a.batchable = a.startsBatchable() && !emails[a.row.Email]
		if a.batchable {
			emails[a.row.Email] = true
			q.batchable = append(q.batchable, a)
		} else {
			q.single = append(q.single, a)
		}
	}
	return q
}

// next takes the attempts for the next request out of the queue, and reports whether it is a bulk request. It prefers
//  1. a bulk request;
//  2. a single request for an attempt that needs one;
//  3. a single request for a batchable attempt, if batchable attempts do not share requests now.
//
// It returns none if all attempts must wait, for a limit or for more members to share a request with.
func (q *queue) next() (group []*attempt, bulk bool) {
	shares := q.sharesRequests()
	if shares && !q.waitsForMore() {
		return take(&q.batchable, 0, bulkSize), true
	}
	isFree := func(a *attempt) bool { return q.singleLimitFor(a) == nil }
	if i := slices.IndexFunc(q.single, func(a *attempt) bool { return isFree(a) || a.mayEndWithoutCreate() }); i >= 0 {
		return take(&q.single, i, 1), false
	}
	if i := slices.IndexFunc(q.batchable, isFree); i >= 0 && !shares {
		return take(&q.batchable, i, 1), false
	}
	return nil, false
}

// sharesRequests reports whether the batchable attempts are sent in bulk requests. Otherwise each gets its own.
func (q *queue) sharesRequests() bool {
	switch {
	case q.bulkLimit != nil, len(q.batchable) == 0:
		return false
	case len(q.batchable) == 1: // a bulk request is for several, unless the other endpoint is limited
		return q.singleLimitFor(q.batchable[0]) != nil
	}
	return true
}

// waitsForMore reports whether the next bulk request waits until ten members can share it. Only members of imports wait,
// and only if no bulk request of theirs was rejected, because the effect of that request is unknown.
func (q *queue) waitsForMore() bool {
	mustNotWait := func(a *attempt) bool { return !a.row.Bulk || a.bulkRejected }
	return q.more && len(q.batchable) < bulkSize && !slices.ContainsFunc(q.batchable, mustNotWait)
}

// singleLimitFor returns the limit that a single request for the attempt would hit, or nil.
func (q *queue) singleLimitFor(a *attempt) *metLimit {
	if a.row.Bulk && q.singleLimit == nil {
		return q.shareLimit
	}
	return q.singleLimit
}

// blockedBy returns the limit that an attempt waits for: the limit that ends first among the endpoints that
// the attempt may use. It returns nil if one of them is not limited.
func (q *queue) blockedBy(a *attempt) *metLimit {
	single := q.singleLimitFor(a)
	switch {
	case single == nil, !a.batchable:
		return single
	case q.bulkLimit == nil:
		return nil
	case q.bulkLimit.ends.Before(single.ends):
		return q.bulkLimit
	}
	return single
}

// take removes up to n attempts from a list, beginning at i.
func take(list *[]*attempt, i, n int) []*attempt {
	n = min(n, len(*list)-i)
	taken := slices.Clone((*list)[i : i+n])
	*list = slices.Delete(slices.Clone(*list), i, i+n)
	return taken
}

// separate makes each batchable attempt need its own request.
func (q *queue) separate() {
	for _, a := range q.batchable {
		a.batchable = false
	}
	q.single, q.batchable = append(q.single, q.batchable...), nil
}

// putBack returns undecided attempts to the queue: batchable attempts to the front, the others to the end.
func (q *queue) putBack(attempts []*attempt) {
	var batchable []*attempt
	for _, a := range attempts {
		switch {
		case a.verdict.kind != undecided:
		case a.batchable:
			batchable = append(batchable, a)
		default:
			q.single = append(q.single, a)
		}
	}
	q.batchable = append(batchable, q.batchable...)
}

// createAll creates the invitations of the attempts that are not settled yet, for the application first and
// then for one organization after the other. It settles all attempts.
func (s *Service) createAll(ctx context.Context, p *pass, attempts []*attempt) {
	stop := slices.ContainsFunc(attempts, (*attempt).stopsPass)
	for _, group := range byOrganization(attempts) {
		// A group that is too small for a bulk request may wait for the next pass only if that may bring more of it: there are
		// more due rows, and this pass has brought enough for a bulk request, settled ones included. See waitsForMore.
		more := p.more && len(filter(group, (*attempt).startsBatchable)) >= bulkSize
		q := newQueue(unsettled(group), more)
		if p.closedOrganizations[group[0].organization()] != nil {
			q.separate() // createBulk does not check p.closedOrganizations
		}
		stop = s.createGroup(ctx, p, q, stop)
	}
	s.settle(ctx, p.lease, attempts...)
}

// createGroup creates the invitations of a queue: ten per request where possible, otherwise one by one. It
// settles the attempts of each request before the next, and decides for those without a request. stop says that
// the pass ends.
func (s *Service) createGroup(ctx context.Context, p *pass, q *queue, stop bool) (stopped bool) {
	for !stop && !canceled(ctx) && p.fresh(s.now()) {
		group, bulk := q.next()
		if len(group) == 0 {
			break
		}
		if bulk {
			s.createBulk(ctx, p, q, group)
		} else {
			s.createOne(ctx, p, q, group[0])
		}
		s.settle(ctx, p.lease, group...)
		q.putBack(group)
		p.countFailures(group)
		stop = slices.ContainsFunc(group, (*attempt).stopsPass)
	}
	s.giveBack(ctx, p, q)
	return stop
}

// giveBack decides for the attempts that are still in the queue. They wait for a limit, or the pass did not reach them. A
// limit does not block those that may end without a create.
func (s *Service) giveBack(ctx context.Context, p *pass, q *queue) {
	for _, a := range slices.Concat(q.batchable, q.single) {
		// All attempts that wait for the same limit become due at the same time, so that tenants take fair turns then.
		if limit := q.blockedBy(a); limit != nil && !a.mayEndWithoutCreate() && !canceled(ctx) {
			a.decide(s.limited("create invitation", limit))
		} else {
			a.decide(s.released(ctx, p))
		}
	}
}

// noteSingle notes the limit that a single request hit.
func (q *queue) noteSingle(limit *metLimit) {
	if errors.Is(limit.err, errShareUsedUp) {
		q.shareLimit = limit
	} else {
		q.singleLimit = limit
	}
}

// stopsPass reports whether the attempt ended with an error that ends the pass.
func (a *attempt) stopsPass() bool { return a.delivery != nil && a.delivery.stop }

// unexplained reports whether the attempt failed and Clerk named no reason that concerns the member.
func (a *attempt) unexplained() bool {
	return a.verdict.kind == isUncertain || a.verdict.kind == isPostponed && failureOf(a.verdict.err, "") == rejected
}

// countFailures counts the requests in a row that had an unexplained failure. After too many, the last one ends
// the pass. Only failures of first attempts count, because a member whose attempts always fail says nothing about the
// others.
func (p *pass) countFailures(group []*attempt) {
	failed := filter(group, (*attempt).unexplained)
	switch {
	case slices.ContainsFunc(failed, func(a *attempt) bool { return !a.isRetry() }):
		p.failures++
	case len(failed) == 0 && slices.ContainsFunc(group, func(a *attempt) bool { return a.verdict.kind.completes() }):
		p.failures = 0
	default: // only retries failed, or for a known reason, or nothing was decided
	}
	if p.failures >= maxFailures {
		for _, a := range failed {
			a.delivery.stop = true
		}
	}
}

// createOne finds the invitation of an earlier attempt, or creates one with a single request. An attempt that it leaves
// undecided, because of a limit, returns to the queue.
func (s *Service) createOne(ctx context.Context, p *pass, q *queue, a *attempt) {
	v, limit := s.findOrCreate(ctx, p, a)
	if limit == nil {
		a.decide(v)
		return
	}
	q.noteSingle(limit)
	if a.mayEndWithoutCreate() { // the queue's next would return this one immediately
		a.decide(s.limited("create invitation", limit))
	}
}

// findOrCreate finds an invitation of an earlier attempt or send, or creates one. It returns either a verdict
// or the limit that prevents the create.
//
// It looks before it creates if the attempt is a retry, if there were earlier sends, or if the attempt's bulk request was
// rejected and the organization is known to be full. Otherwise it creates, and createUnlessTaken looks if Clerk rejects
// that because the address is taken or the organization is full.
func (s *Service) findOrCreate(ctx context.Context, p *pass, a *attempt) (v verdict, limit *metLimit) {
	if !a.mayEndWithoutCreate() { // do not look either while a limit prevents the create
		if limit := s.knownLimit(p, a); limit != nil {
			return verdict{}, limit
		}
	}
	var found foundInvitations
	if a.isRetry() || a.hasEarlierSends() || a.mayHoldSeat(p.closedOrganizations[a.organization()]) {
		if v, found = s.look(ctx, p, a, a.hasEarlierRequests()); v.kind != undecided {
			return v, nil
		}
	}
	if a.organization() != "" {
		if v, limit = s.prepareOrganization(ctx, p, a, found); v.kind != undecided || limit != nil {
			return v, limit
		}
	}
	if found.needsIgnoreExisting {
		return s.createVerdict(ctx, p, a, s.create(ctx, p, a, true))
	}
	return s.createUnlessTaken(ctx, p, a)
}

// createUnlessTaken creates an invitation. If the rejection of the bulk request has named the address, that rejection is
// the result instead. If the result is that the address is taken, createUnlessTaken looks again before it creates one with
// ignore_existing. If it is that the organization is full, it looks for the attempt's own: see mayHoldSeat.
func (s *Service) createUnlessTaken(ctx context.Context, p *pass, a *attempt) (v verdict, limit *metLimit) {
	var created createResult
	if a.rejection != nil {
		created = createResult{sent: true, err: a.rejection}
	} else {
		created = s.create(ctx, p, a, false)
	}
	if failureOf(created.err, a.row.Email) == addressTaken {
		if v = s.lookAgain(ctx, p, a, created.err); v.kind != undecided {
			return v, nil
		}
		created = s.create(ctx, p, a, true)
	}
	if a.mayHoldSeat(created.err) {
		if v, _ = s.look(ctx, p, a, true); v.kind != undecided {
			return v, nil
		}
	}
	return s.createVerdict(ctx, p, a, created)
}

// mayHoldSeat reports whether err says that the organization is full, and the seat that it lacks may be that of the
// attempt's own invitation: Clerk may have created it with the bulk request that it rejected.
func (a *attempt) mayHoldSeat(err error) bool { return a.bulkRejected && saysFull(err) }

// knownLimit returns the limit that a single create for the attempt would hit, or nil.
func (s *Service) knownLimit(p *pass, a *attempt) *metLimit {
	e := endpointsOf(a.organization())
	return limitIn(cmp.Or(s.checkLimitFor(p, e.create), p.checkShare(e, a.row.Bulk, s.now())), s.now())
}

// createResult is the result of one create.
type createResult struct {
	invitation *Invitation
	sent       bool // otherwise err says why no request was sent
	err        error
}

// createVerdict decides for an attempt after its create, or returns the limit that the create hit.
func (s *Service) createVerdict(ctx context.Context, p *pass, a *attempt, r createResult) (v verdict, limit *metLimit) {
	switch {
	case r.err == nil:
		return verdict{kind: isInvited, invitation: r.invitation}, nil
	case failureOf(r.err, "") == rateLimited:
		return verdict{}, s.limitHit(p, endpointsOf(a.organization()).create, r.err)
	case !r.sent:
		return s.notSent(ctx, p, a, r.err), nil
	}
	p.noteClosed(a.organization(), r.err)
	return s.callFailed(ctx, p, a, call{op: "create invitation", sends: true, organization: a.organization() != ""}, r.err), nil
}

// lookAgain decides after Clerk has rejected a create because the address is taken. The person may have signed
// up since the look-up, an earlier attempt's request may have arrived late, or another member may have an
// invitation for the address. The verdict is undecided if the invitation must be created with ignore_existing.
func (s *Service) lookAgain(ctx context.Context, p *pass, a *attempt, taken error) verdict {
	v, users := s.findAgain(ctx, p, a)
	if v.kind != undecided {
		return v
	}
	v, found := s.look(ctx, p, a, true)
	switch {
	case v.kind != undecided:
		return v
	case a.organization() == "" && a.mayIgnoreExisting(taken, users, found): // organizations have no ignore_existing
		return verdict{}
	}
	return s.callFailed(ctx, p, a, call{op: "create invitation", organization: a.organization() != ""}, errors.Join(errUnlisted, taken))
}

// findAgain decides if a user has verified the address since the pass looked for users. It returns the users who have it.
func (s *Service) findAgain(ctx context.Context, p *pass, a *attempt) (v verdict, users []User) {
	users, err := s.findUsersOf(ctx, a.row.Email)
	if err != nil {
		return s.callFailed(ctx, p, a, call{op: "find users"}, err), nil
	}
	if u := verifiedBy(users, a.row.Email); u != nil {
		v = s.holderVerdict(ctx, p, a, u)
	}
	return v, users
}

// mayIgnoreExisting reports whether ignore_existing may be used after Clerk has rejected the create. There are three
// cases:
//   - Another invitation for the address is pending, which is not this send's.
//   - Clerk has a duplicate that this send cannot have created, because it has made no earlier request. The row has a
//     previous invitation, which Clerk's list does not show. The list may lag, so the duplicate is probably that one.
//   - A user has the address without having verified it. Clerk may never show such a user, so it is enough that Clerk
//     rejected the row in the same way before. But an early attempt proves nothing: the person may be signing up.
func (a *attempt) mayIgnoreExisting(taken error, users []User, found foundInvitations) bool {
	switch {
	case found.needsIgnoreExisting:
		return true
	case codeOf(taken) == codeDuplicate:
		return a.row.InvitationID != "" && !a.hasEarlierRequests() && found.current == nil
	case codeOf(taken) == codeIdentifierExists:
		rejectedBefore := a.row.Reason == codeIdentifierExists && !a.early
		return rejectedBefore || slices.ContainsFunc(users, func(u User) bool { return u.has(a.row.Email) })
	}
	return false
}

// create creates one invitation. Clerk rejects a second invitation for an address unless ignoreExisting is set. That
// protects against a late duplicate of this request, so ignoreExisting needs a proof: see needsIgnoreExisting and
// mayIgnoreExisting.
func (s *Service) create(ctx context.Context, p *pass, a *attempt, ignoreExisting bool) createResult {
	e := endpointsOf(a.organization())
	done, err := s.startCreate(ctx, p, e, e.create, a.row.Bulk)
	if err != nil {
		return createResult{err: err}
	}
	defer done(true)
	ctx, cancel := p.creating(ctx)
	defer cancel()
	inv, err := exchange(ctx, s, e.create, "clerk.CreateInvitation", func(ctx context.Context) (*Invitation, error) {
		return s.api.CreateInvitation(ctx, a.invitationRequest(ignoreExisting))
	})
	switch {
	case err != nil:
		return createResult{sent: true, err: err}
	case !inv.hasID():
		return createResult{sent: true, err: errNoInvitation}
	}
	s.limits.noteCreated(s.now())
	return createResult{invitation: inv, sent: true}
}

// startCreate lets a create of the pass start. The caller must call done once it has noted the response. The error is
// errLeaseEnds if no request may start any more, a 429 while there is a limit or the share of imports is used up, or the
// store's. With fromShare, a create of a background pass counts against that share.
func (s *Service) startCreate(ctx context.Context, p *pass, e *endpoints, endpoint string, fromShare bool) (done func(sent bool), err error) {
	if p.background {
		err = s.loadLimits(ctx, endpoint) // another process's Invite may have hit one since the pass began
	}
	if err == nil {
		err = s.checkLimitFor(p, endpoint)
	}
	if err == nil && fromShare && p.background {
		err = s.spendShare(ctx, p, e)
	}
	if err != nil {
		return nil, err
	}
	if done, err = s.admit(ctx, endpoint); err != nil {
		return nil, err
	}
	if !p.fresh(s.now()) { // the steps above may have taken long
		done(false)
		return nil, errLeaseEnds
	}
	return done, nil
}

// notSent decides for an attempt whose create was not sent because of err, which is not a limit.
func (s *Service) notSent(ctx context.Context, p *pass, a *attempt, err error) verdict {
	if errors.Is(err, errLeaseEnds) || ctx.Err() != nil {
		return s.released(ctx, p)
	}
	return s.callFailed(ctx, p, a, call{op: "create invitation"}, err) // the store's
}

// limitHit returns the limit that a request of the pass hit. A background pass waits longer than Clerk
// says.
func (s *Service) limitHit(p *pass, endpoint string, err error) *metLimit {
	if known := s.checkLimitFor(p, endpoint); p.background && known != nil {
		err = known
	}
	return limitIn(err, s.now())
}

// createBulk creates the invitations of several members with one request. It leaves undecided the attempts
// that need another request or have hit a limit.
func (s *Service) createBulk(ctx context.Context, p *pass, q *queue, group []*attempt) {
	e := endpointsOf(group[0].organization())
	if q.bulkLimit = limitIn(s.checkLimitFor(p, e.createBulk), s.now()); q.bulkLimit != nil { // then do not look either
		return
	}
	s.lookForOlder(ctx, p, group)
	if sharing := filter(group, func(a *attempt) bool { return a.batchable && a.verdict.kind == undecided }); len(sharing) > 0 {
		s.sendBulk(ctx, p, q, sharing)
	}
}

// sendBulk makes the bulk request for a group.
func (s *Service) sendBulk(ctx context.Context, p *pass, q *queue, group []*attempt) {
	e := endpointsOf(group[0].organization())
	done, err := s.startCreate(ctx, p, e, e.createBulk, false)
	if q.bulkLimit = limitIn(err, s.now()); q.bulkLimit != nil {
		return
	}
	if err != nil {
		for _, a := range group {
			a.decide(s.notSent(ctx, p, a, err))
		}
		return
	}
	defer done(true)
	requests := make([]InvitationRequest, len(group))
	for i, a := range group {
		requests[i] = a.invitationRequest(false)
	}
	create, cancel := p.creating(ctx)
	defer cancel()
	created, err := exchange(create, s, e.createBulk, "clerk.CreateInvitations", func(ctx context.Context) ([]Invitation, error) {
		return s.api.CreateInvitations(ctx, requests)
	})
	if failureOf(err, "") == rateLimited {
		q.bulkLimit = s.limitHit(p, e.createBulk, err)
		return
	}
	s.decideBulk(ctx, p, group, created, err)
	if group[0].organization() != "" && refusesEverybody(err) {
		q.separate() // a full organization may have room for fewer than ten, so a single request decides
	}
}

// lookForOlder looks for pending invitations of members that were invited before. Attempts that need ignore_existing
// because of one can no longer share a request.
func (s *Service) lookForOlder(ctx context.Context, p *pass, group []*attempt) {
	for _, a := range filter(group, (*attempt).hasEarlierSends) {
		v, found := s.look(ctx, p, a, a.hasEarlierRequests())
		a.batchable = !found.needsIgnoreExisting
		if v.kind != undecided {
			a.decide(v)
		}
	}
}

// decideBulk decides what the response to a bulk request means for each attempt.
func (s *Service) decideBulk(ctx context.Context, p *pass, group []*attempt, created []Invitation, err error) {
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
				a.decide(s.callFailed(ctx, p, a, bulk, errNoInvitation))
			}
		}
	case invalidRequest: // the adapter does not say whose parameters, so each gets its own request
		for _, a := range group {
			a.batchable = false
		}
	case addressTaken, personRejected, parameterRejected, rejected:
		splitRejected(group, err)
	default:
		bulk.several = len(group) > 1
		for _, a := range group {
			a.decide(s.callFailed(ctx, p, a, bulk, err))
		}
	}
}

// splitRejected prepares a group for other requests after Clerk has rejected its bulk request. If Clerk names addresses,
// createUnlessTaken decides for these from the rejection, and the others go into the next bulk request. If it names none,
// each needs a request. What the bulk request did is unknown, but Clerk would reject a duplicate.
func splitRejected(group []*attempt, err error) {
	var api *APIError
	errors.As(err, &api)
	named := slices.ContainsFunc(group, func(a *attempt) bool { return listsAddress(api.Meta, a.row.Email) })
	for _, a := range group {
		a.bulkRejected = true
		if listsAddress(api.Meta, a.row.Email) {
			a.rejection = err
		}
		a.batchable = named && a.rejection == nil
	}
}

// invitationRequest returns the request that creates the attempt's invitation.
func (a *attempt) invitationRequest(ignoreExisting bool) InvitationRequest {
	r := InvitationRequest{
		Email: a.row.Email, RedirectURL: a.params.RedirectURL, ExpiresInDays: a.params.ExpiresInDays,
		Template: a.params.Template, SkipEmail: a.params.SkipEmail,
		PublicMetadata: withMark(a.params.PublicMetadata, mark{a.row.ID, a.row.Send}),
		IgnoreExisting: ignoreExisting,
	}
	if o := a.params.Organization; o != nil {
		r.OrganizationID, r.Role, r.Inviter = o.ID, o.Role, o.Inviter
	}
	return r
}

// invitationIn returns the attempt's invitation in the response to a bulk request: by its marker or, if Clerk does
// not show the metadata, by its address.
func (a *attempt) invitationIn(created []Invitation, marks []mark) *Invitation {
	for i := range created {
		inv := &created[i]
		if inv.hasID() && (marks[i] == mark{a.row.ID, a.row.Send} || marks[i] == mark{} && sameEmail(inv.Email, a.row.Email)) {
			return inv
		}
	}
	return nil
}
