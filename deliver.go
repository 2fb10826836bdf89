package clerkinvite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// Endpoints of Clerk's, as names of gates.
const (
	endpointFindUsers = "GET /users"
	endpointList      = "GET /invitations"
	endpointCreate    = "POST /invitations"
	endpointRevoke    = "POST /invitations/revoke"
)

// findBatch is how many addresses or ids one look-up of users may name (Clerk's limit).
const findBatch = 100

// maxUncertain is how many lost answers in a row end a pass.
const maxUncertain = 3

// DeliverOptions are the options of Deliver; nil is all defaults.
type DeliverOptions struct {
	Limit int // at most so many members; 0 means all that are due
}

// DeliverReport says what one pass did.
type DeliverReport struct {
	Claimed   int // attempts made; the sum of the others
	Linked    int // now active: Clerk has a user with the address
	Invited   int // now pending: invited in this pass, or found to have been invited before
	Refused   int // now failed, or a resend that left the older invitation in place
	Ended     int // now in another state, such as revoked, as Clerk says or as somebody else decided meanwhile
	Postponed int // still due, later
}

// Deliver makes one pass over the members that are due: reserved inside a
// transaction, or left by a crash, a lost answer or a fault of Clerk's. It looks at
// Clerk before it sends anything a second time.
//
// It returns nil when nothing is left that is due now, and what is postponed is due
// again by itself. It stops early, with the report so far, when its context ends,
// when the store fails, and with a *[ClerkInvitationError] when Clerk fails for a
// reason that is no single member's: a wrong key, an exhausted quota, no connection,
// three lost answers in a row. A rate limit ends calls to the limited endpoint only.
//
// Deliver is safe for concurrent use, also from several processes, and for repetition.
func (s *Service) Deliver(ctx context.Context, opts *DeliverOptions) (*DeliverReport, error) {
	report := &DeliverReport{}
	limit := 0
	if opts != nil {
		limit = opts.Limit
	}
	// What this pass postpones is due after its start, so it does not come back.
	for due := s.now(); ; {
		batch := findBatch
		if limit > 0 {
			batch = min(batch, limit-report.Claimed)
		}
		if batch <= 0 {
			return report, nil
		}
		if err := s.learnGates(ctx); err != nil {
			return report, err
		}
		l := s.newLease()
		l.due = due
		rows, err := s.store.Find(ctx, Query{DueAt: due, Limit: batch})
		if err != nil || len(rows) == 0 {
			return report, err
		}
		changes := make([]Change, len(rows))
		for i, row := range rows {
			changes[i] = Change{row, s.claimed(*row, l.claimedAt)}
		}
		claims, err := s.apply(ctx, s.store, changes)
		if err != nil {
			return report, err
		}
		var mine []*Member
		for _, c := range claims {
			if c.Err == nil {
				mine = append(mine, c.Member)
			} else if !errors.Is(c.Err, ErrConflict) { // ErrConflict: another deliverer was faster
				return report, c.Err
			}
		}
		reached := false
		var stop error
		for _, d := range s.deliver(ctx, l, mine) {
			if d.unreached {
				continue
			}
			reached = true
			if err := report.count(d); stop == nil {
				stop = err
			}
		}
		if stop == nil {
			stop = ctx.Err()
		}
		if stop == nil && len(mine) > 0 && !reached {
			stop = &ClerkInvitationError{Op: "deliver", Outcome: Fault, Err: errLeaseShort}
		}
		if stop != nil {
			return report, stop
		}
	}
}

// learnGates takes over what other processes know of closed endpoints.
func (s *Service) learnGates(ctx context.Context) error {
	for _, endpoint := range []string{endpointFindUsers, endpointList, endpointCreate, endpointRevoke} {
		until, err := s.store.Gate(ctx, endpoint, time.Time{})
		if err != nil {
			return err
		}
		// No limit of Clerk's lasts longer; a process whose clock is wrong may say so.
		if latest := s.now().Add(24 * time.Hour); until.After(latest) {
			until = latest
		}
		s.gates.close(endpoint, until)
	}
	return nil
}

// count adds one member to the report and returns the error that ends the pass, if any.
func (r *DeliverReport) count(d delivery) error {
	r.Claimed++
	var clerkErr *ClerkInvitationError
	switch {
	case errors.As(d.Err, &clerkErr) && clerkErr.Outcome == Refused:
		r.Refused++
	case errors.As(d.Err, &clerkErr):
		r.Postponed++
		if d.stop {
			return d.Err
		}
	case d.Err != nil:
		var dup *DuplicateEmailError
		if errors.As(d.Err, &dup) || errors.Is(d.Err, ErrNotFound) {
			r.Ended++
			return nil
		}
		r.Postponed++
		return d.Err
	case d.Member.Status == StatusActive:
		r.Linked++
	case d.Member.Status == StatusPending:
		r.Invited++
	default:
		r.Ended++
	}
	return nil
}

var (
	errLeaseEnds          = errors.New("clerkinvite: the attempt's time, three quarters of Config.Lease, is over")
	errLeaseShort         = errors.New("clerkinvite: half of Config.Lease passes before the first invitation can be created; make the lease longer or Clerk's time-outs shorter")
	errBanned             = errors.New("clerkinvite: the Clerk user who holds this address is banned")
	errNoInvitation error = &APIError{StatusCode: 200, Err: errors.New("the answer holds no invitation")}

	errUnlisted = errors.New("clerkinvite: Clerk says that the address is taken but shows neither its user nor its invitation yet")
)

// lease is the time that one attempt has. Its length is measured by the
// monotonic clock and by Config.Now, from before the claim was written.
type lease struct {
	length    time.Duration
	started   time.Time // monotonic
	claimedAt time.Time
	due       time.Time // when a row that is given back untouched is due
	now       func() time.Time
}

func (s *Service) newLease() lease {
	now := s.now()
	return lease{s.cfg.Lease, time.Now(), now, now, s.now} //nolint:forbidigo // the monotonic clock, for how long things take
}

// context returns ctx for the attempt's calls. What a call that is sent near its end
// takes must fit into the lease as well.
func (l lease) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, l.started.Add(l.length*3/4), errLeaseEnds)
}

// settling returns a context for writing down what Clerk has answered: it must be
// tried even if the caller has gone.
func (l lease) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(l.length/4, time.Second))
}

// fresh reports whether so much of the lease is left that a create may start: one
// that is on its way when the lease ends meets the next attempt's.
func (l lease) fresh() bool {
	return time.Since(l.started) < l.length/2 && l.now().Sub(l.claimedAt) < l.length/2
}

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

// deliver tells Clerk about rows that the caller has claimed, and settles them: the
// one function for one and for many. The deliveries are in the order of the rows.
func (s *Service) deliver(ctx context.Context, l lease, rows []*Member) []delivery {
	calls, cancel := l.context(ctx)
	defer cancel()
	attempts := make([]*attempt, len(rows))
	for i, row := range rows {
		attempts[i] = &attempt{row: row, leftOver: row.Send > 1}
		// A row that this library wrote decodes; for another the zero value will do.
		_ = json.Unmarshal(row.Params, &attempts[i].params)
	}
	for chunk := range slices.Chunk(attempts, findBatch) {
		s.findAll(ctx, calls, l, chunk)
	}
	s.settle(ctx, l, attempts...)
	stopped, uncertain := false, 0
	for _, a := range attempts {
		if a.settled != nil {
			stopped = stopped || a.settled.stop
			continue
		}
		if stopped || ctx.Err() != nil {
			s.release(ctx, l, a)
			continue
		}
		s.deliverOne(ctx, calls, l, a)
		s.settle(ctx, l, a)
		// Some lost answers in a row are Clerk's trouble, not these persons'. To go on
		// would only make more people of whom nobody knows whether they got their email.
		if uncertain++; !a.settled.uncertain {
			uncertain = 0
		}
		a.settled.stop = a.settled.stop || uncertain == maxUncertain
		stopped = a.settled.stop
	}
	s.settle(ctx, l, attempts...)
	out := make([]delivery, len(attempts))
	for i, a := range attempts {
		out[i] = *a.settled
	}
	return out
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
		if firstErr == nil || secondErr == nil {
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
	if outcome == Uncertain && !sends {
		outcome = Fault
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

// settle writes what was decided, in one statement, and repeats it for the rows that
// somebody else has changed meanwhile: there the row as it is now decides. As long as
// the same send waits to be settled the decision holds, whoever has the claim,
// because the fact is known here. Otherwise an invitation that was made for nothing
// is revoked, and the row is reported as it is.
func (s *Service) settle(ctx context.Context, l lease, attempts ...*attempt) {
	open := slices.DeleteFunc(slices.Clone(attempts), func(a *attempt) bool { return a.settled != nil || a.next == nil })
	if len(open) == 0 {
		return
	}
	s.write(ctx, l, open)
	for _, a := range open {
		if a.leftOver && !a.claimOnly && a.settled.Member != nil {
			s.sweep(ctx, l, a.row.Email)
		}
	}
}

// write is settle without what comes after.
func (s *Service) write(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	for _, a := range attempts {
		if a.user != nil {
			if err := s.joinByOneAddress(ctx, a); err != nil {
				s.unwritten(ctx, a, err)
			}
		}
	}
	for range 10 {
		var open []*attempt
		var changes []Change
		for _, a := range attempts {
			if a.settled == nil {
				open, changes = append(open, a), append(changes, Change{a.row, a.next(*a.row)})
			}
		}
		if len(open) == 0 {
			return
		}
		results, err := s.apply(ctx, s.store, changes)
		for i, a := range open {
			rowErr := err
			if err == nil {
				rowErr = results[i].Err
			}
			switch {
			case rowErr == nil:
				a.done(results[i].Member)
			case errors.Is(rowErr, ErrUserTaken):
				rowErr = s.secondAddress(ctx, a, changes[i].New.ClerkUserID)
			case errors.Is(rowErr, ErrConflict):
				rowErr = s.overtaken(ctx, a)
			}
			if rowErr != nil {
				s.unwritten(ctx, a, rowErr)
			}
		}
	}
	for _, a := range attempts {
		if a.settled == nil {
			s.unwritten(ctx, a, ErrConflict)
		}
	}
}

// done ends an attempt whose decision is written.
func (a *attempt) done(m *Member) {
	a.settled = &delivery{Result: Result{Member: m}}
	if a.result != nil {
		a.settled = a.result(m)
	}
}

// joinByOneAddress settles the row of a user with several addresses, of whom other
// rows may wait: resolving decides which one is the member, here as everywhere.
func (s *Service) joinByOneAddress(ctx context.Context, a *attempt) error {
	if _, err := s.resolveUser(ctx, a.user, false); err != nil {
		return err
	}
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, UserIDs: []string{a.user.ID}})
	if err != nil {
		return err
	}
	var row, active *Member
	for _, m := range rows {
		if m.ID == a.row.ID {
			row = m
		}
		if m.TenantID == a.row.TenantID && m.Status == StatusActive {
			active = m
		}
	}
	switch {
	case row == nil:
		a.settled = &delivery{Result: Result{Err: ErrNotFound}}
	case row.due(): // not decided there; the row alone decides
		a.row = row
	case row.Reason == ReasonSecondAddress && active != nil:
		a.settled = &delivery{Result: Result{row, &DuplicateEmailError{row.Ref(), active}}}
	default:
		a.settled = &delivery{Result: Result{Member: row}}
	}
	return nil
}

// secondAddress decides anew for a row whose user is in the tenant under another address.
func (s *Service) secondAddress(ctx context.Context, a *attempt, userID string) error {
	others, err := s.store.Find(ctx, Query{UserIDs: []string{userID}})
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.TenantID == a.row.TenantID {
			a.next = func(m Member) *Member { return ended(m, StatusRemoved, ReasonSecondAddress, s.now()) }
			a.result = func(m *Member) *delivery {
				return &delivery{Result: Result{m, &DuplicateEmailError{m.Ref(), other}}}
			}
			return nil
		}
	}
	return nil // it has left meanwhile: the same once more
}

// overtaken decides anew for a row that somebody else has changed.
func (s *Service) overtaken(ctx context.Context, a *attempt) error {
	now, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}})
	switch {
	case err != nil:
		return err
	case a.claimOnly && len(now) == 1 && (now[0].Status == StatusReserved || now[0].due()):
		a.settled = a.result(now[0])
		return nil
	case len(now) == 1 && now[0].due() && now[0].Send == a.row.Send:
		a.row = now[0]
		return nil
	}
	if a.made != nil && (len(now) == 0 || now[0].InvitationID != a.made.ID) {
		s.revokeLeftOver(ctx, a.made.ID)
	}
	if len(now) == 0 {
		a.settled = &delivery{Result: Result{Err: ErrNotFound}}
	} else {
		a.settled = &delivery{Result: Result{Member: now[0]}}
	}
	return nil
}

// unwritten ends an attempt whose decision could not be written. A claim ends by
// itself; what Clerk has said the next attempt finds again.
func (s *Service) unwritten(ctx context.Context, a *attempt, err error) {
	s.log.ErrorContext(ctx, "not written; the next attempt finds out again", "member", *a.row, "cause", logError(err))
	a.settled = &delivery{Result: Result{a.row, err}, stop: true}
	if a.claimOnly {
		a.settled.Err = errors.Join(a.result(a.row).Err, err)
	}
}

// sweep revokes, of the pending invitations for an address, those of ours that no
// row stands for. Clerk is listed first and the rows are read second: what was made
// in between is not in the list. Failures are logged only; Reconcile does the same.
func (s *Service) sweep(ctx context.Context, l lease, email string) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	list, err := s.listInvitations(ctx, email, InvitationPending)
	var ids []string
	for i := range list {
		if m, ours := list[i].mark(); ours {
			ids = append(ids, m.ID)
		}
	}
	var rows []*Member
	if err == nil && len(ids) > 0 {
		rows, err = s.store.Find(ctx, Query{IDs: ids})
	}
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
		return
	}
	for i := range list {
		m, ours := list[i].mark()
		at := slices.IndexFunc(rows, func(row *Member) bool { return row.ID == m.ID })
		// One whose member this database does not know may be another application's.
		if ours && at >= 0 && !keeps(rows[at], &list[i], m.Send) {
			s.revokeLeftOver(ctx, list[i].ID)
		}
	}
}

// keeps reports whether a pending invitation that carries the row's id stays open.
func keeps(row *Member, inv *Invitation, send int) bool {
	if send > row.Send {
		return true // the row is older than the invitation: a restored backup
	}
	if row.Status != StatusReserved && row.Status != StatusPending {
		return false
	}
	return row.InvitationID == inv.ID || row.Sent < row.Send && send == row.Send
}

// revokeLeftOver revokes an invitation that no row stands for. A failure is logged
// only: Reconcile finds it again.
func (s *Service) revokeLeftOver(ctx context.Context, invitationID string) {
	err := s.revoke(ctx, invitationID)
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitation not revoked", "invitation", invitationID, "cause", logError(err))
		return
	}
	s.log.InfoContext(ctx, "left-over invitation revoked", "invitation", invitationID)
}

// revoke revokes an invitation at Clerk. One that is revoked or gone already is no error.
func (s *Service) revoke(ctx context.Context, invitationID string) error {
	if err := s.open(endpointRevoke); err != nil {
		return err
	}
	_, err := s.api.RevokeInvitation(ctx, RevokeRequest{InvitationID: invitationID})
	err = s.limited(ctx, endpointRevoke, err)
	var api *APIError
	if errors.As(err, &api) && (api.Code == codeAlreadyRevoked || api.StatusCode == 404 && api.Code == codeResourceNotFound) {
		return nil
	}
	return err
}

// open returns a *APIError if a rate limit of the endpoint is known to hold.
func (s *Service) open(endpoint string) error {
	wait := s.gates.wait(endpoint, s.now())
	if wait <= 0 {
		return nil
	}
	return &APIError{StatusCode: 429, Message: "rate limit of an earlier answer", RetryAfter: wait, NotSent: true}
}

// limited remembers a rate limit, here and for all processes, and returns err.
func (s *Service) limited(ctx context.Context, endpoint string, err error) error {
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode != 429 {
		return err
	}
	// Clerk documents Retry-After with every 429. Without one, a minute: long enough
	// not to burn the next window's requests on asking.
	until := s.now().Add(cmp.Or(api.RetryAfter, time.Minute))
	s.gates.close(endpoint, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, gateErr := s.store.Gate(ctx, endpoint, until); gateErr != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rate limit not shared", slog.String("endpoint", endpoint), slog.Any("cause", logError(gateErr)))
	}
	return err
}
