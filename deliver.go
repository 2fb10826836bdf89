package clerkinvite

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// maxEmpty is how many times in a row a pass finds nothing that it can claim.
const maxEmpty = 5

// DeliverOptions are the options of Deliver; nil is all defaults.
type DeliverOptions struct {
	Limit int // at most so many members; 0 means all that are due, a negative one is an error
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
func (s *Service) Deliver(ctx context.Context, opts *DeliverOptions) (_ *DeliverReport, err error) {
	ctx, seen := s.observe(ctx, "Deliver")
	defer seen.done(&err)
	report := &DeliverReport{}
	limit := 0
	if opts != nil {
		limit = opts.Limit
	}
	if limit < 0 {
		return report, &InvalidParamsError{"Limit", "is negative"}
	}
	// What this pass postpones is due after its start, so it does not come back.
	for due, empty := s.now(), 0; ; {
		batch := findBatch
		if limit > 0 {
			batch = min(batch, limit-report.Claimed)
		}
		if batch <= 0 {
			return report, nil
		}
		rows, err := s.store.Due(ctx, due, batch)
		if err != nil || len(rows) == 0 {
			return report, err
		}
		l, mine, err := s.claim(ctx, rows)
		if err != nil {
			return report, err
		}
		// Others are faster, or a clock was set back: no reason to go round and round.
		if empty++; len(mine) > 0 {
			empty = 0
		} else if empty == maxEmpty {
			return report, nil
		}
		l.due, l.more = due, len(mine) == findBatch
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

// claim takes rows for one attempt at delivering them in the background, and leaves
// out those that somebody else was faster to change.
func (s *Service) claim(ctx context.Context, rows []*Member) (lease, []*Member, error) {
	if err := s.learnGates(ctx); err != nil {
		return lease{}, nil, err
	}
	l := s.newLease()
	l.turns, l.closed = true, make(map[string]time.Time)
	var changes []Change
	for _, row := range rows {
		if !row.held(l.claimedAt) {
			changes = append(changes, Change{row, s.claimed(*row, l.claimedAt)})
		}
	}
	claims, err := s.apply(ctx, s.store, changes)
	if err != nil {
		return l, nil, err
	}
	var mine []*Member
	for _, c := range claims {
		if c.Err == nil {
			mine = append(mine, c.Member)
		} else if !errors.Is(c.Err, ErrConflict) {
			return l, nil, c.Err
		}
	}
	return l, mine, nil
}

// count adds one member to the report and returns the error that ends the pass, if any.
func (r *DeliverReport) count(d delivery) error {
	r.Claimed++
	var clerkErr *ClerkInvitationError
	var dup *DuplicateEmailError
	switch {
	case errors.As(d.Err, &clerkErr) && clerkErr.Outcome == Refused:
		r.Refused++
	case errors.As(d.Err, &dup), errors.Is(d.Err, errPurged):
		r.Ended++
	case d.Err != nil:
		r.Postponed++
		if d.stop {
			return d.Err
		}
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
	s.createAll(ctx, calls, l, attempts)
	s.settle(ctx, l, attempts...)
	out := make([]delivery, len(attempts))
	for i, a := range attempts {
		out[i] = *a.settled
	}
	return out
}
