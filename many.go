package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"time"
)

// reserveChunk is how many rows one statement reserves.
const reserveChunk = 1000

// ManyOptions are the options of InviteMany; nil is all defaults.
type ManyOptions struct {
	// Wait lets InviteMany wait for Clerk's rate limits until everybody is invited or
	// its context ends: about an hour for each 350 people. Without it, those whom a
	// limit keeps from being invited come back reserved, and Run or Deliver invites them.
	Wait bool

	// Progress, if set, is called after each step, in the caller's goroutine.
	Progress func(ManyProgress)
}

// ManyProgress says how far InviteMany has come.
type ManyProgress struct {
	Total    int // inputs; the sum of the next four and of those not looked at yet
	Reserved int // written, and waiting to be told to Clerk
	Invited  int // pending now
	Linked   int // active now: Clerk has a user with the address
	Failed   int // with an error: bad input, a duplicate, a refusal, a lost answer, …

	WaitUntil time.Time // not zero: InviteMany now waits for a rate limit until then
}

// InviteMany invites many people, of one or several tenants, as Invite does each of
// them, but with few statements and requests: 1,000 rows are reserved by one
// statement, 100 people looked up and 10 invited by one request.
//
// It always returns one Result for each of ps, in the order of ps. Member is the row, or
// nil if there is none. Err is that of Invite; for a second occurrence of an address it
// is a *[DuplicateEmailError] with the first one's member. Without an Err, Member is
// active (an existing user, no email), pending (invited), or reserved: then a rate limit,
// another process or the end of the call kept it from being delivered here, nothing is
// lost, and Run or Deliver goes on with it.
//
// The error is not nil if the context ended, if the store failed, or if Clerk failed
// for a reason that is no single person's, as for Deliver. Then, too, the results say
// what became of each; those who were not reserved have it as their Err. Calling
// InviteMany again with the same list goes on: who is invited by then is a duplicate,
// who is reserved is delivered.
//
// InviteMany is safe for concurrent use and for repetition. It works in the caller's
// goroutine.
func (s *Service) InviteMany(ctx context.Context, ps []InviteParams, opts *ManyOptions) (_ []Result, err error) {
	ctx, seen := s.observe(ctx, "InviteMany")
	defer seen.done(&err)
	if opts == nil {
		opts = &ManyOptions{}
	}
	m := &many{s: s, opts: *opts}
	err = m.reserve(ctx, s.store, ps, true)
	if err == nil {
		err = m.deliver(ctx)
	}
	return m.finish(err)
}

// ReserveMany writes the rows for many invitations and sends nothing: Deliver does,
// later. It always returns one Result for each of ps, in the order of ps, with the
// errors of Reserve. The error is not nil if the context ended or the store failed;
// rows that were written before stay reserved.
func (s *Service) ReserveMany(ctx context.Context, ps []InviteParams) ([]Result, error) {
	return s.InTx(s.store).ReserveMany(ctx, ps)
}

// ReserveMany writes the rows for many invitations. See [Service.ReserveMany].
// Duplicates do not abort the transaction. If the error is not nil it should be rolled back.
func (r *Reserver) ReserveMany(ctx context.Context, ps []InviteParams) (_ []Result, err error) {
	ctx, seen := r.s.observe(ctx, "ReserveMany")
	defer seen.done(&err)
	m := &many{s: r.s}
	return m.finish(m.reserve(ctx, r.st, ps, false))
}

// many is one call for many people.
type many struct {
	s       *Service
	opts    ManyOptions
	wanted  []*Member // the row for each input, nil for bad input
	results []Result
	first   map[Ref]int    // where an address occurs first
	at      map[string]int // where the member with an id is
}

// errNotReached is the Err of an input that was not looked at.
var errNotReached = errors.New("clerkinvite: not reached")

// reserve validates all and writes the rows of the good ones, chunk by chunk.
func (m *many) reserve(ctx context.Context, st TxStore, ps []InviteParams, takeOver bool) error {
	m.wanted, m.results = make([]*Member, len(ps)), slices.Repeat([]Result{{Err: errNotReached}}, len(ps))
	m.first, m.at = make(map[Ref]int, len(ps)), make(map[string]int, len(ps))
	var todo []int
	for i, p := range ps {
		want, err := m.s.prepare(ctx, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.results[i].Err = err
			continue
		}
		m.wanted[i] = want
		if _, again := m.first[want.Ref()]; !again {
			m.first[want.Ref()] = i
			todo = append(todo, i)
		}
	}
	for chunk := range slices.Chunk(todo, reserveChunk) {
		rows := make([]*Member, len(chunk))
		for k, i := range chunk {
			rows[k] = m.wanted[i]
		}
		reserved, err := m.s.reserve(ctx, st, rows, nil, takeOver)
		if err != nil {
			return err
		}
		for k, i := range chunk {
			m.results[i] = reserved[k]
			if r := reserved[k]; r.Err == nil {
				m.at[r.Member.ID] = i
			}
		}
		m.progress(time.Time{})
	}
	return nil
}

// finish returns the results, for those who were not reached with the error that ended
// the call, and for an address that occurs again with the first one's member.
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

// deliver tells Clerk about all that are reserved.
func (m *many) deliver(ctx context.Context) error {
	var todo []*Member
	for _, r := range m.results {
		if r.Err == nil {
			todo = append(todo, r.Member)
		}
	}
	for {
		var later []*Member
		for len(todo) > 0 {
			n := min(len(todo), findBatch)
			again, limited, err := m.deliverChunk(ctx, todo[:n], len(todo) > n)
			m.progress(time.Time{})
			if err != nil {
				return err
			}
			todo, later = append(again, todo[n:]...), append(later, limited...)
		}
		if !m.opts.Wait || len(later) == 0 {
			return nil
		}
		until := *later[0].NextAttemptAt
		for _, row := range later {
			if row.NextAttemptAt.Before(until) {
				until = *row.NextAttemptAt
			}
		}
		m.progress(until)
		if err := m.s.sleep(ctx, until); err != nil {
			return err
		}
		todo = later
	}
}

// deliverChunk delivers up to 100 rows. again are those that it did not come to, later
// those that a rate limit or another attempt holds up.
func (m *many) deliverChunk(ctx context.Context, rows []*Member, more bool) (again, later []*Member, stop error) {
	l, mine, err := m.s.claim(ctx, rows)
	if err != nil {
		return nil, nil, err
	}
	l.more = more && len(mine) == findBatch
	ids := make([]string, 0, len(rows))
	for _, row := range rows {
		if !slices.ContainsFunc(mine, func(m *Member) bool { return m.ID == row.ID }) {
			ids = append(ids, row.ID)
		}
	}
	if len(ids) > 0 {
		changed, err := m.s.store.Find(ctx, Query{IDs: ids})
		if err != nil {
			return nil, nil, err
		}
		for _, id := range ids {
			m.results[m.at[id]] = Result{Err: errPurged}
		}
		for _, row := range changed {
			result := Result{Member: row}
			switch row.Status {
			case StatusReserved:
				later = append(later, row)
			case StatusPending, StatusActive:
			case StatusFailed:
				result.Err = &ClerkInvitationError{Op: "deliver", Outcome: Refused, Member: row, Err: errors.New("clerkinvite: refused in another process: " + row.Reason)}
			default:
				result.Err = ErrConflict // somebody else decided otherwise
			}
			m.results[m.at[row.ID]] = result
		}
	}
	for i, d := range m.s.deliver(ctx, l, mine) {
		at := m.at[mine[i].ID]
		m.results[at] = d.Result
		if d.unreached {
			m.results[at].Err = nil
			again = append(again, d.Member)
			continue
		}
		err := new(DeliverReport).count(d)
		if stop == nil {
			stop = err
		}
		_, limited := isRateLimit(d.Err)
		switch {
		case limited && d.Member != nil && d.Member.Due():
			m.results[at].Err = nil
			later = append(later, d.Member)
		case d.Err != nil:
		case d.Member.Due(): // another's by now
			later = append(later, d.Member)
		case d.Member.Status != StatusPending && d.Member.Status != StatusActive:
			m.results[at] = m.anew(ctx, d, m.wanted[at])
		}
	}
	if stop == nil {
		stop = ctx.Err()
	}
	if stop == nil && len(mine) > 0 && len(again) == len(mine) {
		stop = &ClerkInvitationError{Op: "deliver", Outcome: Fault, Err: errLeaseShort}
	}
	return again, later, stop
}

// anew invites somebody again whose earlier invitation was found and has ended.
func (m *many) anew(ctx context.Context, d delivery, want *Member) Result {
	if d.withdrawn() {
		return Result{d.Member, ErrConflict}
	}
	want, err := withNewID(want)
	if err != nil {
		return Result{d.Member, err}
	}
	member, err := m.s.invite(ctx, want)
	if member == nil {
		member = d.Member
	}
	return Result{member, err}
}

// progress tells the caller how far it is.
func (m *many) progress(until time.Time) {
	if m.opts.Progress == nil {
		return
	}
	p := ManyProgress{Total: len(m.results), WaitUntil: until}
	for i, r := range m.results {
		switch {
		case m.wanted[i] != nil && m.first[m.wanted[i].Ref()] != i:
			p.Failed++ // occurs twice
		case errors.Is(r.Err, errNotReached):
		case r.Err != nil:
			p.Failed++
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
