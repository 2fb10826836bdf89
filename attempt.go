package clerkinvite

import (
	"context"
	"errors"
	"time"
)

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
	tens      bool                      // may share a request with others
	asked     bool                      // was in a request for several that was refused because of somebody
	answer    error                     // what a request for several said about this address
	bulkOpens time.Time                 // when a limit ends that kept this row from a request for several
	result    func(m *Member) *delivery // what the caller gets; nil: the row
	settled   *delivery
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

// maxOwnFaults is how many attempts it takes until a fault of a row's own parameters
// ends it. It is more than one, because they may come from a configuration that somebody
// is just mending.
const maxOwnFaults = 3

// failed decides after a call that did not succeed. Whether the call could have
// sent an email decides what its failure means.
func (s *Service) failed(ctx context.Context, a *attempt, op string, err error, sends bool) {
	outcome := classify(err, a.row.Email)
	if outcome == Uncertain && !sends || outcome == Refused && a.shared {
		outcome = Fault // nothing was sent; and what concerns many refuses nobody
	}
	if outcome == Fault && a.row.Attempts >= maxOwnFaults && !a.shared && ownFault(err) {
		outcome = Refused // asked for ever it would use up the requests of everybody else
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
		if ownFault(err) {
			stop = false
		}
		var invalid *InvalidParamsError
		if !isAPI && !errors.As(err, &invalid) {
			stop = true // the host's own, as of a circuit breaker
		}
		due := s.now().Add(wait)
		a.claimOnly = true
		a.next = func(m Member) *Member {
			if a.shared && !sends {
				m.Attempts-- // it was not this row's turn yet
			}
			return postponed(m, due, reason)
		}
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

// released gives up the claim, as if it had not been made; unless Clerk was asked and may
// have done it, which the next attempt has to know.
func (a *attempt) released(m Member, due time.Time) *Member {
	n := released(m, due)
	if a.asked {
		n.Attempts = m.Attempts
	}
	return n
}

// release decides: the row is given back, untouched and due.
func (s *Service) release(ctx context.Context, l lease, a *attempt) {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = errLeaseEnds
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return a.released(m, l.due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: "deliver", Outcome: Fault, Member: m, Err: cause}}, unreached: true}
	}
}

// closed decides: the row is given back, due when the endpoint opens again.
func (s *Service) closed(a *attempt, op string, err error) {
	wait, _ := RetryAfter(err)
	due := s.now().Add(wait)
	if !a.bulkOpens.IsZero() && a.bulkOpens.Before(due) {
		due = a.bulkOpens
	}
	if latest := s.now().Add(time.Hour + slidingMargin); due.After(latest) {
		due = latest // look again: it may be the word of a process whose clock is wrong
	}
	a.claimOnly = true
	a.next = func(m Member) *Member { return a.released(m, due) }
	a.result = func(m *Member) *delivery {
		return &delivery{Result: Result{m, &ClerkInvitationError{Op: op, Outcome: Fault, Member: m, Err: err}}}
	}
}
