package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// reserveChunk is how many rows one statement reserves.
const reserveChunk = 1000

// InviteManyOptions are the options of InviteMany; nil means all defaults.
type InviteManyOptions struct {
	// Wait makes InviteMany wait for Clerk's rate limits until everyone has been invited or its
	// context ends. docs/performance.md has the number of people per hour. In the meantime it also
	// delivers other due members, as Deliver does. Otherwise the remaining people are returned as
	// reserved, and Run or Deliver invites them later.
	Wait bool

	// Progress, if set, is called after each step, in the caller's goroutine.
	Progress func(InviteManyProgress)
}

// InviteManyProgress says how far InviteMany has got.
type InviteManyProgress struct {
	Total    int // all inputs; inputs not processed yet are counted only here
	Reserved int // written, and waiting for delivery
	Invited  int // now pending
	Linked   int // now active: Clerk has a user with the address
	Failed   int // with an error, such as invalid input, a duplicate, a refusal or a lost response
	Refused  int // people in Failed whom Clerk refused

	WaitUntil time.Time // if not zero, InviteMany now waits for a rate limit until then
}

// InviteMany invites many people, of one or several tenants. It does what Invite does for each,
// with fewer statements and requests: it reserves 1,000 rows per statement, and looks up 100 people
// and invites 10 per request (one per request with PublicMetadata).
//
// It always returns one Result for each of ps, in the same order. Member is the row, or nil without
// a row. Err is the error that Invite would return, but InviteMany does not ask Clerk about
// duplicates. If an address occurs again, Err is a *[DuplicateEmailError] with the first occurrence's
// member. Without an Err, Member is
//   - active: an existing Clerk user was linked, and no email was sent;
//   - pending: Clerk has sent the invitation;
//   - reserved: a rate limit, another process or the end of the call prevented the delivery. Run or
//     Deliver invites the person later.
//
// The error is not nil if the call could not continue. The results then still say what happened to
// each person; people who were not reserved have the error as their Err. It is
//   - the context's error;
//   - a *[ClerkInvitationError] if Clerk fails for a reason that concerns more than one person, as
//     in Deliver;
//   - the store's error, unchanged.
//
// InviteMany is safe for concurrent use and safe to retry with the same list: people who
// have been invited by then are duplicates, and reserved ones are delivered. It works in the caller's
// goroutine.
func (s *Service) InviteMany(ctx context.Context, ps []InviteParams, opts *InviteManyOptions) (_ []Result, err error) {
	ctx, op := s.observe(ctx, "InviteMany")
	defer op.end(&err)
	if opts == nil {
		opts = &InviteManyOptions{}
	}
	m := &many{s: s, opts: *opts, withdraw: s.withdrawal(onDelay)}
	if opts.Wait {
		m.withdraw = s.withdrawal(onFailure)
	}
	err = m.reserve(ctx, s.store, ps, true)
	if err == nil {
		err = m.deliver(ctx)
	}
	return m.finish(err)
}

// ReserveMany writes the rows for many invitations and sends nothing; Deliver sends them later. It
// always returns one Result for each of ps, in the same order, with the errors of Reserve.
//
// Errors: the context's and the store's, unchanged. Rows that were written before stay reserved.
// ReserveMany is safe for concurrent use and safe to retry.
func (s *Service) ReserveMany(ctx context.Context, ps []InviteParams) ([]Result, error) {
	return (&Reserver{s, s.store}).ReserveMany(ctx, ps)
}

// ReserveMany writes the rows for many invitations. Duplicates do not abort the transaction.
//
// Errors: those of [Service.ReserveMany]. If the error is not nil, roll the transaction back.
func (r *Reserver) ReserveMany(ctx context.Context, ps []InviteParams) (_ []Result, err error) {
	ctx, op := r.s.observe(ctx, "ReserveMany")
	defer op.end(&err)
	m := &many{s: r.s, withdraw: r.s.withdrawal(onFailure)}
	return m.finish(m.reserve(ctx, r.st, ps, false))
}

// many is one call for many people.
type many struct {
	s        *Service
	opts     InviteManyOptions
	withdraw withdrawal
	wanted   []*Member // the row for each input, nil for invalid input
	results  []Result
	first    map[Ref]int    // the first input with an address
	input    map[string]int // the input of a member, by ID
}

// errNotReached is the Err of an input that was not processed.
var errNotReached = errors.New("clerkinvite: not reached")

// reserve validates all inputs and writes the rows of the valid ones, chunk by chunk.
func (m *many) reserve(ctx context.Context, st TxStore, ps []InviteParams, takeOver bool) error {
	m.wanted, m.results = make([]*Member, len(ps)), slices.Repeat([]Result{{Err: errNotReached}}, len(ps))
	m.first, m.input = make(map[Ref]int, len(ps)), make(map[string]int, len(ps))
	var todo []int
	for i, p := range ps {
		want, err := m.s.prepare(ctx, p, m.withdraw)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.results[i].Err = err
			continue
		}
		want.Bulk = true
		m.wanted[i] = want
		if _, again := m.first[want.Ref()]; !again {
			m.first[want.Ref()] = i
			todo = append(todo, i)
		}
	}
	sortRows(m.wanted, todo)
	for chunk := range slices.Chunk(todo, reserveChunk) {
		rows := make([]*Member, len(chunk))
		for k, i := range chunk {
			rows[k] = m.wanted[i]
		}
		reserved, err := m.s.reserve(ctx, reservation{st: st, takeOver: takeOver}, rows)
		for k, i := range chunk {
			m.results[i] = reserved[k]
			if r := reserved[k]; r.Err == nil {
				m.input[r.Member.ID] = i
			}
		}
		if err != nil {
			return err
		}
		m.progress(time.Time{})
	}
	return nil
}

// sortRows sorts indexes into rows by tenant and address, because concurrent transactions that insert the same
// addresses in several statements deadlock if their orders differ.
func sortRows(rows []*Member, indexes []int) {
	slices.SortFunc(indexes, func(a, b int) int {
		return cmp.Or(cmp.Compare(rows[a].TenantID, rows[b].TenantID), cmp.Compare(rows[a].Email, rows[b].Email))
	})
}

// finish returns the results. Inputs that were not reached get the error that ended the call, and
// repeated addresses get the first occurrence's member.
func (m *many) finish(err error) ([]Result, error) {
	for i := range m.results {
		if errors.Is(m.results[i].Err, errNotReached) && (m.wanted[i] == nil || m.first[m.wanted[i].Ref()] == i) {
			m.results[i].Err = err
		}
	}
	for i, want := range m.wanted {
		if want == nil || m.first[want.Ref()] == i {
			continue
		}
		first := m.results[m.first[want.Ref()]]
		if first.Member != nil {
			first.Err = &DuplicateEmailError{want.Ref(), first.Member}
		}
		m.results[i] = first
	}
	return m.results, err
}

// deliver delivers all reserved rows.
func (m *many) deliver(ctx context.Context) error {
	var todo []*Member
	for _, r := range m.results {
		if r.Err == nil {
			todo = append(todo, r.Member)
		}
	}
	var waiting []*Member
	for len(todo) > 0 {
		n := min(len(todo), passSize)
		rest, err := m.pass(ctx, todo[:n], len(todo) > n)
		m.progress(time.Time{})
		if err != nil {
			return err
		}
		todo, waiting = append(rest.released, todo[n:]...), append(waiting, rest.waiting...)
	}
	for m.opts.Wait && len(waiting) > 0 {
		first := slices.MinFunc(waiting, func(a, b *Member) int { return a.NextAttemptAt.Compare(*b.NextAttemptAt) })
		until := *first.NextAttemptAt
		if soon := m.s.now().Add(time.Second); until.Before(soon) { // another attempt owns it, or it cannot be claimed
			until = soon
		}
		m.progress(m.s.machineTime(until))
		err := m.s.sleep(ctx, until)
		if err == nil {
			waiting, err = m.deliverInTurn(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliverInTurn delivers all due members, including other callers', in the same order as Run. It returns this
// call's members that still wait. The call does not wait for members whose result is an error, although they may be
// due and are then delivered here too.
func (m *many) deliverInTurn(ctx context.Context) (waiting []*Member, err error) {
	err = m.s.deliverDue(ctx, 0, &DeliverReport{}, func(b dueBatch) {
		m.noteUnclaimable(b.unclaimable)
		for i, d := range b.deliveries {
			if _, ours := m.input[b.claimed[i].ID]; ours {
				m.complete(ctx, b.claimed[i].ID, d)
			}
		}
		m.progress(time.Time{})
	})
	if err != nil {
		return nil, err
	}
	var unsettled []*Member
	for _, r := range m.results {
		if r.Err == nil && r.Member.Due() {
			unsettled = append(unsettled, r.Member)
		}
	}
	for chunk := range slices.Chunk(unsettled, reserveChunk) {
		stillWaiting, err := m.reread(ctx, chunk)
		if err != nil {
			return nil, err
		}
		waiting = append(waiting, stillWaiting...)
	}
	return waiting, nil
}

// noteUnclaimable notes why the store refuses to claim members. They stay due, but InviteMany does not wait for them.
func (m *many) noteUnclaimable(unclaimable map[string]error) {
	for id, err := range unclaimable {
		if i, ours := m.input[id]; ours {
			m.results[i].Err = err
		}
	}
}

// remainder is the rows that a pass did not settle.
type remainder struct {
	released []*Member // not reached in time: due again immediately
	waiting  []*Member // held up by a rate limit or another attempt: due later
}

// pass delivers up to 100 rows and sets their results.
func (m *many) pass(ctx context.Context, rows []*Member, more bool) (rest remainder, err error) {
	ctx = withStoredLimits(ctx)
	p, _, err := m.s.backgroundPass(ctx, m.s.now())
	if errors.Is(err, errTurnTaken) {
		return remainder{waiting: rows}, nil // the other process delivers them
	}
	if err != nil {
		return rest, err
	}
	defer p.end()
	claimed, err := m.s.claimRows(ctx, p, rows)
	if err != nil {
		return rest, err
	}
	p.more = more && len(claimed) == passSize
	m.noteUnclaimable(p.unclaimable)
	rest.waiting, err = m.reread(ctx, filter(rows, func(row *Member) bool {
		isClaimed := slices.ContainsFunc(claimed, func(c *Member) bool { return c.ID == row.ID })
		return !isClaimed && p.unclaimable[row.ID] == nil
	}))
	if err != nil {
		return rest, err
	}
	deliveries := m.s.deliver(ctx, p, claimed)
	for i, d := range deliveries {
		d = m.complete(ctx, claimed[i].ID, d)
		switch {
		case d.kind == isReleased:
			rest.released = append(rest.released, d.Member)
		case d.Err == nil && d.Member.Due():
			rest.waiting = append(rest.waiting, d.Member)
		}
	}
	return rest, stopError(ctx, deliveries)
}

// complete sets the result of the row that had the ID when it was claimed. If the row's invitation has ended,
// complete first invites the person again. It returns the last delivery, without an error if the member is
// delivered later.
func (m *many) complete(ctx context.Context, id string, d delivery) delivery {
	input := m.input[id]
	if d.Err == nil && !d.Member.Due() && d.Member.Status != StatusPending && d.Member.Status != StatusActive {
		d = delivery{Result: m.inviteAgain(ctx, d, m.wanted[input])}
		m.input[d.Member.ID] = input // another ID, if the member was purged in the meantime
	}
	if d.isDelayed() {
		d.Err = nil
	}
	m.results[input] = d.Result
	return d
}

// isDelayed reports whether only a rate limit, or the end of the pass or the lease, prevented the delivery.
func (d delivery) isDelayed() bool {
	switch {
	case d.kind == isReleased:
		return true
	case d.Member == nil || !d.Member.Due():
		return false
	case failureOf(d.Err, "") == rateLimited:
		return true
	}
	// A release at the lease's end that has lost its kind: settleUnwritten could not write it, or it was inviteAgain's. Use
	// ==, because a request that timed out wraps errLeaseEnds too.
	var clerkErr *ClerkInvitationError
	return errors.As(d.Err, &clerkErr) && clerkErr.Err == errLeaseEnds //nolint:errorlint // see above
}

// reread reads the rows again, and sets their results. It returns the rows that still wait.
func (m *many) reread(ctx context.Context, rows []*Member) (waiting []*Member, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	found, err := m.s.store.Find(ctx, Query{IDs: ids})
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		m.results[m.input[id]] = Result{Err: errPurged}
	}
	for _, row := range found {
		result := Result{Member: row}
		switch row.Status {
		case StatusReserved:
			waiting = append(waiting, row)
		case StatusPending, StatusActive:
		case StatusFailed:
			failure := &ClerkInvitationError{Op: "deliver", Outcome: OutcomeRefused, Member: row, Err: errors.New("clerkinvite: failed in another process: " + row.Reason)}
			if row.Reason == ReasonWithdrawn {
				failure.Outcome = OutcomeFault
			}
			result.Err = failure
		default: // another caller decided otherwise
			result.Err = ErrConflict
		}
		m.results[m.input[row.ID]] = result
	}
	return waiting, nil
}

// inviteAgain invites a person whose earlier invitation turned out to have ended.
func (m *many) inviteAgain(ctx context.Context, d delivery, want *Member) Result {
	if d.endedConcurrently() {
		return Result{d.Member, ErrConflict}
	}
	want, err := withNewID(want)
	if err != nil {
		return Result{d.Member, err}
	}
	member, err := m.s.invite(ctx, want)
	var clerkErr *ClerkInvitationError
	if errors.As(err, &clerkErr) {
		member = clerkErr.Member
	}
	if member == nil {
		member = d.Member
	}
	return Result{member, err}
}

// progress tells the caller how far the call has got.
func (m *many) progress(until time.Time) {
	if m.opts.Progress == nil {
		return
	}
	p := InviteManyProgress{Total: len(m.results), WaitUntil: until}
	for i, r := range m.results {
		switch {
		case m.wanted[i] != nil && m.first[m.wanted[i].Ref()] != i:
			p.Failed++ // a repeated address
		case errors.Is(r.Err, errNotReached):
		case r.Err != nil:
			p.Failed++
			var clerkErr *ClerkInvitationError
			if errors.As(r.Err, &clerkErr) && clerkErr.Outcome == OutcomeRefused {
				p.Refused++
			}
		case r.Member.Status == StatusPending:
			p.Invited++
		case r.Member.Status == StatusActive:
			p.Linked++
		default:
			p.Reserved++
		}
	}
	m.opts.Progress(p)
}
