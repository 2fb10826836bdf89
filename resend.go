package clerkinvite

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// Resend sends a pending member a new invitation with the same parameters, and then revokes the
// older one. The person always has at least one working invitation, except in organizations (below).
// If Clerk refuses the new invitation, the older one stays. If Clerk fails or its response is lost, the member stays due,
// and Run or Deliver sends the new invitation without a second email.
//
// An organization allows one pending invitation per address. Resend therefore revokes the older one first, even if
// another tenant or the dashboard created it. If Clerk refuses the new one, the member becomes revoked, and
// its Reason says why. If the older one was accepted, but the person has left the organization or used
// another address, the new one is sent.
//
// The member's status says what happened:
//   - pending: Clerk has sent the new invitation;
//   - active: the person had already joined, and usually no email was sent.
//
// Errors:
//   - *[InvalidParamsError];
//   - [ErrNotFound];
//   - *[TransitionError] if the member is not pending, or its invitation has expired (to invite
//     again, call Invite);
//   - *[DuplicateEmailError] if the person is already a member under another address; this member
//     is then removed;
//   - *[CooldownError] within Config.ResendCooldown of the last invitation, or while another
//     resend of this member is running;
//   - *[ClerkInvitationError] if Clerk refuses the person or fails, or the context ends during
//     the delivery;
//   - [ErrConflict] if the member keeps changing;
//   - the context's and the store's error, unchanged.
//
// Resend is safe for concurrent use, also by several processes: only one caller sends. It is safe
// to retry.
func (s *Service) Resend(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Resend")
	defer op.end(&err)
	var p *pass
	row, err := s.change(ctx, ref, func(row *Member) (_ *Member, err error) {
		if p, err = s.newPass(ctx); err != nil {
			return nil, err
		}
		return s.nextSend(p, row)
	})
	if err != nil {
		return nil, err
	}
	done := s.deliverNow(ctx, p, row) // also revokes the older invitation, see revokeLeftOvers in deliver_leftovers.go
	switch {
	case done.Err != nil:
		return nil, done.Err
	case done.Member.Status != StatusPending && done.Member.Status != StatusActive:
		return nil, &TransitionError{done.Member.Status, StatusPending}
	}
	return done.Member, nil
}

// nextSend returns a pending row claimed by the pass for a new send, or for the current one if that is an earlier
// resend that was not completed.
func (s *Service) nextSend(p *pass, row *Member) (*Member, error) {
	now := p.claimedAt
	switch {
	case row.Status != StatusPending:
		return nil, &TransitionError{row.Status, StatusPending}
	case row.overdue(now): // Reconcile will expire it
		return nil, &TransitionError{StatusExpired, StatusPending}
	case row.isClaimed(now):
		return nil, &CooldownError{s.machineTime(*row.ClaimedUntil)}
	}
	next, params := *row, row.clerkParams()
	next.Bulk = false
	if row.Due() && params.Withdraw == "" {
		return p.claim(s, next), nil
	}
	if row.SettledAt != nil && s.cfg.ResendCooldown > 0 {
		if until := row.SettledAt.Add(s.cfg.ResendCooldown); until.After(now) {
			return nil, &CooldownError{s.machineTime(until)}
		}
	}
	next.Send, next.Attempts, next.Reason, next.ReservedAt = next.Send+1, 0, "", now
	if w := s.withdrawal(onDelay); w != params.Withdraw {
		params.Withdraw = w
		encoded, err := json.Marshal(params)
		if err != nil {
			return nil, err
		}
		next.Params = encoded
	}
	return p.claim(s, next), nil
}

// Link reads the link of a pending member's current invitation from Clerk, for a person who did not get
// the email. Anyone who has the link can accept the invitation, so Link does not print, log or store it.
// During a Resend, the current invitation is the older one; in an organization it may have been revoked.
// Link makes one request, or two for an international domain in an organization, and changes nothing.
//
// Errors:
//   - *[InvalidParamsError];
//   - [ErrNotFound];
//   - [ErrNoLink] if the member is not pending, Clerk does not list its invitation as pending, or
//     Clerk does not show the link (the text says which);
//   - *[ClerkInvitationError] if Clerk fails;
//   - the context's and the store's error, unchanged.
//
// Link is safe for concurrent use and safe to retry.
func (s *Service) Link(ctx context.Context, ref Ref) (_ Secret, err error) {
	ctx, op := s.observe(ctx, "Link")
	defer op.end(&err)
	row, err := s.get(ctx, ref)
	if err != nil {
		return Secret{}, err
	}
	if row.Status != StatusPending {
		return Secret{}, fmt.Errorf("%w: the member is %s", ErrNoLink, row.Status)
	}
	var list []Invitation
	if row.organization() == "" {
		list, err = s.listInvitationPage(ctx, InvitationQuery{Query: row.InvitationID, Limit: listPage})
	} else { // Clerk looks for addresses only
		list, err = s.listInvitations(ctx, row, "")
	}
	if err != nil {
		return Secret{}, s.clerkError(ctx, "list invitations", err)
	}
	i := slices.IndexFunc(list, func(inv Invitation) bool { return inv.ID == row.InvitationID })
	switch {
	case i < 0: // revoked, or not shown yet
		return Secret{}, fmt.Errorf("%w: Clerk does not list the invitation", ErrNoLink)
	case list[i].Status != InvitationPending:
		return Secret{}, fmt.Errorf("%w: Clerk lists the invitation as %s", ErrNoLink, clip(string(list[i].Status)))
	case list[i].URL.Reveal() != "":
		return list[i].URL, nil
	case row.URL.Reveal() != "": // stored, because the host sends it
		return row.URL, nil
	}
	return Secret{}, fmt.Errorf("%w: Clerk's list does not show it", ErrNoLink)
}
