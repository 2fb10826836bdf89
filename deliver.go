package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"time"
)

// pass is one round of deliveries under one lease: its rows are claimed together, and each gets one attempt.
type pass struct {
	lease
	dueAt      time.Time                // when rows that it releases are due
	more       bool                     // there may be more due rows than these
	background bool                     // has the turn to deliver, and waits longer for limits than interactive calls
	end        func()                   // ends the turn of a background pass
	lastTry    bool                     // the call makes no other attempt
	shareSpent map[*endpoints]time.Time // until when the shares of imports are used up, if they are
	failures   int                      // how many first attempts in a row had an unexplained failure; see countFailures

	claims              map[string]claim // by member ID
	closedOrganizations map[string]error // why organizations accept no new members, by ID: they are full, or do not exist
	unclaimable         map[string]error // why the store refused to claim members, by ID; deliverDue keeps it from pass to pass
}

// claim is the claim of a pass on a row, and what it has replaced.
type claim struct {
	until     *time.Time // Member.ClaimedUntil
	wasDueAt  time.Time  // Member.NextAttemptAt before the claim, or the time of the claim
	hadEffect bool       // what Member.mayHaveEffect reported before the claim
}

// attempt is one claimed row on its way through a pass. The first step that decides the outcome
// sets verdict. settle writes it, and may have to change it before.
type attempt struct {
	row      *Member // as claimed, or as another process has changed it since
	params   clerkParams
	verdict  verdict
	delivery *delivery // once the attempt is settled
	lastTry  bool      // pass.lastTry

	claim claim // of the row
	early bool  // the claim was before wasDueAt; a new row's first attempt is early too, which does not matter

	batchable    bool  // may share a request with other attempts
	bulkRejected bool  // Clerk has rejected its bulk request, and what the request did is unknown
	rejection    error // the error of that request, if it names this address

	maybeAdded   *User // the user whom this or an earlier attempt has added to the organization, or may have
	olderRevoked bool  // the invitation that the row still refers to is no longer open, and was not accepted
}

// isResend reports whether the member keeps an older invitation until this one is sent.
func (a *attempt) isResend() bool { return a.row.Status == StatusPending }

// isRetry reports whether there was an earlier attempt: see Member.Attempts.
func (a *attempt) isRetry() bool { return a.row.Attempts > 1 }

// hasEarlierSends reports whether the member was invited before, so that Clerk may have invitations of earlier sends.
func (a *attempt) hasEarlierSends() bool { return a.row.Send > 1 }

// hasEarlierRequests reports whether an earlier attempt, or this one's bulk request, may have created the send's
// invitation. It asks for the number of attempts, and not for mayHaveEffect: after a backup was restored, an operator
// raises the number, so that attempts look first.
func (a *attempt) hasEarlierRequests() bool { return a.isRetry() || a.bulkRejected }

// mayEndWithoutCreate reports whether the attempt may find an earlier attempt's invitation, or the rejection of a bulk
// request has named its address. A limit on creates does not block such an attempt.
func (a *attempt) mayEndWithoutCreate() bool { return a.isRetry() || a.rejection != nil }

// organization returns the ID of the organization that the row's invitation is for, or "".
func (a *attempt) organization() string { return a.params.organization() }

// usedItsOnlyAttempt reports whether the row's invitation may be tried only once, and an earlier attempt has tried it.
func (a *attempt) usedItsOnlyAttempt() bool {
	earlier := a.row.Attempts - 1
	if a.row.allowsAnotherAttempt() { // then the last one does not count
		earlier--
	}
	return a.params.Withdraw != "" && earlier > 0
}

// delivery is what one attempt did for one member.
type delivery struct {
	Result
	kind verdictKind // the verdict's; undecided if another caller has decided, or the verdict could not be written
	stop bool        // the error ends the pass: it concerns the whole instance, or the store
}

// endedConcurrently reports whether another call revoked or removed the member during the delivery. It returns
// false if the attempt itself found a revoked invitation or a second address.
func (d delivery) endedConcurrently() bool {
	m := d.Member
	return !d.kind.foundEnded() && (m.Status == StatusRevoked || m.Status == StatusRemoved && m.Reason != ReasonSecondAddress)
}

// DeliverOptions are the options of Deliver; nil means all defaults.
type DeliverOptions struct {
	Limit int // maximum number of members; 0 means no maximum
}

// DeliverReport counts what one Deliver or DeliverMembers did.
type DeliverReport struct {
	Claimed   int // attempts; the sum of the others
	Linked    int // now active: Clerk has a user with the address
	Invited   int // now pending: invited now, or found to have been invited before
	Refused   int // now failed; after a resend, still pending on the older invitation or, in an organization, revoked
	Ended     int // withdrawn (see Config.WithdrawOnFailure), or ended in another state (such as revoked), at Clerk or by a concurrent call
	Postponed int // still waiting for delivery
}

// passSize is the maximum number of members of a pass, so that it usually needs one request for users.
const passSize = lookupSize

// maxLost is how many times in a row a pass may lose all its members to other processes. It also bounds
// the loop if a clock was set back.
const maxLost = 5

// Deliver sends the invitations of all due members: members reserved in a transaction, and members left
// unfinished by a crash, a lost response or a failure at Clerk. It checks Clerk before it sends anything a
// second time. Members reserved by InviteMany or ReserveMany come after all others, and tenants take turns, as
// [DueQuery] describes.
//
// It returns nil when no more members are due, or if another process is delivering them. It logs and
// skips members that the store refuses to claim. Postponed members
// become due again by themselves. It stops early, with the report so far, and returns
//   - the context's error when the context ends,
//   - a *[ClerkInvitationError] when Clerk fails for a reason that concerns more than one member:
//     a wrong key, an exhausted quota, no connection, or three lost responses or unexplained
//     rejections in a row,
//   - the store's error, unchanged.
//
// A rate limit stops only requests to the limited endpoint. A negative limit is an
// *[InvalidParamsError], before anything is delivered.
//
// Deliver is safe for concurrent use, in several processes too, and safe to retry.
func (s *Service) Deliver(ctx context.Context, opts *DeliverOptions) (_ *DeliverReport, err error) {
	ctx, op := s.observe(ctx, "Deliver")
	defer op.end(&err)
	if opts == nil {
		opts = &DeliverOptions{}
	}
	report := &DeliverReport{}
	if opts.Limit < 0 {
		return report, &InvalidParamsError{"Limit", "is negative"}
	}
	return report, s.deliverDue(ctx, opts.Limit, report, nil)
}

// deliverDue delivers members that are due, at most limit if that is not 0. After each pass it calls done, if
// that is not nil.
func (s *Service) deliverDue(ctx context.Context, limit int, report *DeliverReport, done func(b dueBatch)) error {
	if err := s.setClock(ctx, s.store); err != nil {
		return err
	}
	due := s.now() // members that this call postpones are due later, so they do not come back
	unclaimable := make(map[string]error)
	for lost := 0; lost < maxLost && report.batch(limit) > 0; {
		known := len(unclaimable)
		b, err := s.deliverBatch(ctx, due, report.batch(limit), unclaimable)
		report.count(b.deliveries)
		if done != nil {
			done(b)
		}
		if err != nil || !b.found {
			return err
		}
		if len(b.claimed) > 0 || len(unclaimable) > known {
			lost = 0
		} else {
			lost++
		}
	}
	return nil
}

// dueBatch is the result of one pass over due members.
type dueBatch struct {
	found       bool             // false if no member is due, or another process has the turn to deliver them
	unclaimable map[string]error // as in pass
	claimed     []*Member        // none if other processes were faster, or the store refused all
	deliveries  []delivery       // one for each of claimed
}

// deliverBatch delivers the next members that are due, except those in unclaimable. It adds the members that the store
// refuses to claim. They stay due, so without this they would be read first again.
func (s *Service) deliverBatch(ctx context.Context, due time.Time, size int, unclaimable map[string]error) (b dueBatch, err error) {
	ctx = withStoredLimits(ctx)
	rows, err := s.due(ctx, due, size, unclaimable)
	if err != nil || len(rows) == 0 {
		return b, err
	}
	p, waited, err := s.backgroundPass(ctx, due)
	if errors.Is(err, errTurnTaken) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	defer p.end()
	if waited { // the other process may have delivered these: read again
		if rows, err = s.due(ctx, due, size, unclaimable); err != nil || len(rows) == 0 {
			return b, err
		}
	}
	b.found = true
	p.unclaimable, b.unclaimable = unclaimable, unclaimable
	if b.claimed, err = s.claimRows(ctx, p, rows); err != nil || len(b.claimed) == 0 {
		return b, err
	}
	s.lastTenant.Store(&rows[len(rows)-1].TenantID)
	p.more = len(b.claimed) == passSize
	b.deliveries = s.deliver(ctx, p, b.claimed)
	return b, stopError(ctx, b.deliveries)
}

// due returns the next members that are due, except those in unclaimable. It begins after the tenant at which the previous
// batch ended, so that tenants take turns from call to call, too.
func (s *Service) due(ctx context.Context, at time.Time, limit int, unclaimable map[string]error) ([]*Member, error) {
	q := DueQuery{At: at, Limit: limit + len(unclaimable)}
	if last := s.lastTenant.Load(); last != nil {
		q.AfterTenantID = *last
	}
	rows, err := s.store.Due(ctx, q)
	rows = slices.DeleteFunc(rows, func(row *Member) bool { return unclaimable[row.ID] != nil })
	return rows[:min(limit, len(rows))], err
}

// DeliverMembers sends the invitations of these members only, such as those that the caller has just
// reserved in its transaction. It sends them as Invite does: it does not wait for other members' turns,
// and it also tries members that were postponed. It skips a member that does not exist or is not
// waiting for delivery, and logs and skips one that the store refuses to claim. Without refs it
// delivers none.
//
// It stops early for the same errors as [Service.Deliver], with the report so far. An invalid Ref is
// an *[InvalidParamsError], before anything is delivered. Members that it leaves or postpones are
// delivered by Run or Deliver.
//
// DeliverMembers is safe for concurrent use, in several processes too, and safe to retry.
func (s *Service) DeliverMembers(ctx context.Context, refs []Ref) (_ *DeliverReport, err error) {
	ctx, op := s.observe(ctx, "DeliverMembers")
	defer op.end(&err)
	report := &DeliverReport{}
	todo, err := normalizedRefs(refs)
	if err != nil {
		return report, err
	}
	for len(todo) > 0 {
		n := min(len(todo), passSize)
		rows, err := s.store.Find(ctx, Query{Refs: todo[:n]})
		if err != nil {
			return report, err
		}
		todo = todo[n:]
		p, err := s.newPass(ctx)
		if err != nil {
			return report, err
		}
		claimed, err := s.claimRows(ctx, p, rows)
		if err != nil {
			return report, err
		}
		deliveries := s.deliver(ctx, p, claimed)
		report.count(deliveries)
		if err := stopError(ctx, deliveries); err != nil {
			return report, err
		}
		for _, d := range deliveries {
			if d.kind == isReleased { // the lease ended before its turn
				todo = append(todo, d.Member.Ref())
			}
		}
	}
	return report, nil
}

// normalizedRefs returns the refs normalised, each once.
func normalizedRefs(refs []Ref) (normalized []Ref, err error) {
	known := make(map[Ref]bool, len(refs))
	for _, ref := range refs {
		if ref, err = ref.normalized(); err != nil {
			return nil, err
		}
		if !known[ref] {
			known[ref] = true
			normalized = append(normalized, ref)
		}
	}
	return normalized, nil
}

// backgroundPass takes the turn to deliver, and starts a pass. This way only one background pass at a time can get a 429,
// and members are claimed in order. The pass obeys the limits that other processes have stored. Rows that it
// releases are due at dueAt. waited reports that another caller had the turn first. The error is errTurnTaken
// if that caller keeps the turn for too long. Without an error, the caller must call p.end.
func (s *Service) backgroundPass(ctx context.Context, dueAt time.Time) (p *pass, waited bool, err error) {
	t, waited, err := s.awaitTurn(ctx, turnDeliver, s.cfg.Lease)
	if err != nil {
		return nil, waited, err
	}
	p = &pass{dueAt: dueAt, background: true}
	// The end is set a day back, so that a process whose clock is behind also sees that the turn is over.
	p.end = func() { t.release(ctx, t.ends.AddDate(0, 0, -1)) }
	err = s.setClock(ctx, s.store) // Config.Now may have been set while this call waited for the turn
	if err == nil {
		err = s.loadLimits(ctx, endpointFindUsers, endpointCreate, endpointCreateBulk) // the others are read when they are needed
	}
	if err == nil {
		p.lease, err = s.newLease(ctx)
	}
	if err != nil {
		p.end()
	}
	return p, waited, err
}

// newPass starts a pass over rows that the caller chooses. Rows that it releases are due immediately.
func (s *Service) newPass(ctx context.Context) (*pass, error) {
	l, err := s.newLease(ctx)
	return &pass{lease: l, dueAt: l.claimedAt}, err
}

// claimRows claims the rows that wait for delivery, whatever their NextAttemptAt, and returns them as claimed. It skips rows that
// another process owns or has just changed.
func (s *Service) claimRows(ctx context.Context, p *pass, rows []*Member) (claimed []*Member, err error) {
	var changes []Change
	for _, row := range rows {
		if row.Due() && !row.isClaimed(p.claimedAt) {
			changes = append(changes, Change{row, p.claim(s, *row)})
		}
	}
	results, err := s.applyBounded(ctx, changes)
	if err != nil {
		return nil, err
	}
	if p.unclaimable == nil {
		p.unclaimable = make(map[string]error)
	}
	for i, r := range results {
		switch {
		case r.Err == nil:
			claimed = append(claimed, r.Member)
		case !errors.Is(r.Err, ErrConflict): // concerns only this row
			p.unclaimable[changes[i].Old.ID] = r.Err
			s.log.ErrorContext(ctx, "member not claimed", "member", *changes[i].Old, "cause", logError(r.Err))
		}
	}
	return claimed, nil
}

// claim claims the row for an attempt of the pass. The claim replaces the row's due time and what mayHaveEffect
// reports, so the pass remembers both.
func (p *pass) claim(s *Service, m Member) *Member {
	if p.claims == nil {
		p.claims = make(map[string]claim)
	}
	claimed, dueAt := s.asClaimed(m, p.claimedAt), p.claimedAt
	if m.NextAttemptAt != nil {
		dueAt = *m.NextAttemptAt
	}
	p.claims[m.ID] = claim{claimed.ClaimedUntil, dueAt, m.mayHaveEffect()}
	return claimed
}

// owns reports whether the row still has the claim of the pass.
func (p *pass) owns(row *Member) bool {
	c, claimed := p.claims[row.ID]
	return claimed && sameTime(row.ClaimedUntil, c.until)
}

// stopError returns the error that ends the call after a pass with these deliveries, or nil.
func stopError(ctx context.Context, deliveries []delivery) error {
	attempted := false
	for _, d := range deliveries {
		if d.stop && d.Err != nil {
			return d.Err
		}
		attempted = attempted || d.kind != isReleased
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(deliveries) > 0 && !attempted: // all were released
		return &ClerkInvitationError{Op: "deliver", Outcome: OutcomeFault, Err: errLeaseShort}
	}
	return nil
}

// deliverNow delivers the only row of a pass.
func (s *Service) deliverNow(ctx context.Context, p *pass, row *Member) delivery {
	p.lastTry = true
	return s.deliver(ctx, p, []*Member{row})[0]
}

// deliver sends the invitations of at most 100 rows that the caller has claimed, and settles the rows. It is
// the only function that delivers, for one row and for many. The deliveries are in the order of the rows.
func (s *Service) deliver(ctx context.Context, p *pass, rows []*Member) []delivery {
	ctx, cancel := p.context(ctx)
	defer cancel()
	if !p.background {
		s.refreshLimits(ctx)
	}
	attempts := make([]*attempt, len(rows))
	var open []*attempt
	for i, row := range rows {
		c := p.claims[row.ID]
		a := &attempt{row: row, params: row.clerkParams(), lastTry: p.lastTry, claim: c, early: c.wasDueAt.After(p.claimedAt)}
		attempts[i] = a
		if a.usedItsOnlyAttempt() {
			s.decideAbandoned(ctx, p, a)
		} else {
			open = append(open, a)
		}
	}
	if len(open) > 0 {
		s.findAll(ctx, p, open)
	}
	s.settle(ctx, p.lease, attempts...) // first save what is known, because creates may take long
	s.createAll(ctx, p, attempts)
	deliveries := make([]delivery, len(attempts))
	for i, a := range attempts {
		deliveries[i] = *a.delivery
	}
	return deliveries
}

// decide sets the verdict, and two of its fields that follow from the attempt: withdraw, and leftOver, which is false
// while the row keeps waiting.
func (a *attempt) decide(v verdict) {
	v.withdraw = a.params.Withdraw.withdraws(v.kind, a.lastTry)
	v.leftOver = !v.keepsWaiting() && (v.leftOver || a.mayLeaveOver(v.kind))
	a.verdict = v
}

// mayLeaveOver reports whether to look for open invitations that the member does not need, after a verdict of kind k that
// ends the send. isLeftOver decides then about each. They may be of earlier sends, if prepareOrganization has not revoked
// those, or of earlier requests for this send.
func (a *attempt) mayLeaveOver(k verdictKind) bool {
	switch k {
	case isInvited: // if look has found two of this send, the verdict says so already
		return a.hasEarlierSends() && !a.olderRevoked
	case isExpired, isRevoked: // this send's only one, which has ended
		return a.hasEarlierSends()
	case isSecondAddress: // for this send, decideSecondAddress keeps what the replaced verdict says
		return a.hasEarlierSends()
	case isLinked, isRefused, isAbandoned:
		return a.hasEarlierSends() || a.hasEarlierRequests()
	case isUncertain: // withdrawn, so a resend keeps the older one; this attempt's request may have created one
		return true
	default: // isPostponed, isLimited, isReleased: withdrawn too
		return a.hasEarlierRequests()
	}
}

// batch returns how many members the next pass may deliver. A limit of 0 means no maximum.
func (r *DeliverReport) batch(limit int) int {
	if limit == 0 {
		return passSize
	}
	return max(0, min(passSize, limit-r.Claimed))
}

func (r *DeliverReport) count(deliveries []delivery) {
	for _, d := range deliveries {
		if d.kind != isReleased { // its attempt did not complete
			r.countOne(d)
		}
	}
}

func (r *DeliverReport) countOne(d delivery) {
	r.Claimed++
	var clerkErr *ClerkInvitationError
	switch m := d.Member; {
	case errors.As(d.Err, &clerkErr) && clerkErr.Outcome == OutcomeRefused:
		r.Refused++
	case d.Err != nil && m != nil && m.Due():
		r.Postponed++
	case d.Err != nil, d.kind == isAbandoned: // withdrawn, purged, or removed as a second address
		r.Ended++
	case m.Status == StatusActive:
		r.Linked++
	case m.Status == StatusPending:
		r.Invited++
	default:
		r.Ended++
	}
}

// Clerk's response has arrived, but does not lead to an invitation or a user. failureOf treats a status of 200 like a
// lost response. The errors that are not an APIError only explain a decision.
var (
	errBanned               = errors.New("clerkinvite: the Clerk user with this address is banned")
	errDeprovisioned        = errors.New("clerkinvite: the Clerk user with this address is deprovisioned")
	errLocked         error = &APIError{StatusCode: 200, Err: errors.New("the Clerk user with this address is locked")}
	errEndlessList    error = &APIError{StatusCode: 200, Err: errors.New("the list of invitations does not end: a page was returned twice")}
	errNoInvitation   error = &APIError{StatusCode: 200, Err: errors.New("the response contains no invitation")}
	errNoInvitationID error = &APIError{StatusCode: 200, Err: errors.New("the response contains an invitation whose ID cannot be read")}
	errNoUser         error = &APIError{StatusCode: 200, Err: errors.New("the response does not contain the user")}
	errNotRevoked     error = &APIError{StatusCode: 200, Err: errors.New("the invitation is not revoked")}
	errUnmarked       error = &APIError{StatusCode: 200, Err: errors.New("the address has a pending invitation without metadata, which may be this member's")}
	errUnknownStatus  error = &APIError{StatusCode: 200, Err: errors.New("the invitation has a status that this library does not know")}
	errUnlisted             = errors.New("clerkinvite: Clerk reports the address as taken but returns neither user nor invitation")
)

// filter returns the elements to keep, and leaves the list unchanged.
func filter[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return !keep(v) })
}
