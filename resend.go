package clerkinvite

import "context"

// Resend sends a pending member another invitation, with what the first was asked for
// with, and revokes the older one when the new one is there. At no moment is the person
// without an invitation that works if they had one: if Clerk refuses the new one, the
// older stays, and if Clerk fails or its answer is lost, the resend stays due and Run or
// Deliver finishes it, without a second email.
//
// Status of the result says what happened: pending, Clerk has sent the new invitation;
// active, the person had accepted meanwhile, and as a rule no email went out.
//
// Errors: *[InvalidParamsError]; [ErrNotFound]; *[TransitionError] if the member is not
// pending (one whose invitation has ended is invited again by Invite); *[CooldownError]
// within Config.ResendCooldown of the last invitation, or while another resend of this
// member is under way; *[ClerkInvitationError]; a store's error as it is. Resend is
// safe for concurrent use, also from several processes: one caller sends.
func (s *Service) Resend(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Resend")
	defer seen.done(&err)
	var l lease
	_, row, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
		l = s.newLease()
		next := *row
		switch {
		case row.Status != StatusPending:
			return nil, &TransitionError{row.Status, StatusPending}
		case row.held(l.claimedAt):
			return nil, &CooldownError{*row.ClaimedUntil}
		case row.Due(): // an earlier resend that did not come to its end
		default:
			if row.SettledAt != nil && s.cfg.ResendCooldown > 0 {
				if until := row.SettledAt.Add(s.cfg.ResendCooldown); until.After(l.claimedAt) {
					return nil, &CooldownError{until}
				}
			}
			next.Send, next.Attempts, next.Reason = next.Send+1, 0, ""
		}
		return s.claimed(next, l.claimedAt), nil
	})
	if err != nil {
		return nil, err
	}
	done := s.deliver(ctx, l, []*Member{row})[0]
	switch {
	case done.Err != nil:
		return nil, done.Err
	case done.Member.Status != StatusPending && done.Member.Status != StatusActive:
		return nil, &TransitionError{done.Member.Status, StatusPending}
	}
	return done.Member, nil
}
