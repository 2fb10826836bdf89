package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Revoke revokes an invitation at Clerk, so that its link stops working, and then in the store. A
// reserved member will not be invited, and an expired member can no longer become active. The person can
// still sign up at Clerk, but that never makes a revoked member active. If the member is already revoked,
// Revoke returns it unchanged. A membership of an organization that AddExisting may have created before
// a failure is ended.
//
// Errors:
//   - *[InvalidParamsError];
//   - [ErrNotFound];
//   - *[TransitionError] if the member is in another state, or the invitation was accepted. After an
//     acceptance, the member becomes active if a user has verified the address. Otherwise the person
//     signed up under another address: use Remove;
//   - *[ClerkInvitationError] if Clerk fails (the member is unchanged);
//   - [ErrConflict] if the member keeps changing;
//   - the context's and the store's error, unchanged.
//
// Revoke is safe for concurrent use and safe to retry.
func (s *Service) Revoke(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Revoke")
	defer op.end(&err)
	return s.withdraw(ctx, ref, StatusRevoked)
}

// Remove removes a reserved, pending, active or expired member from the tenant. An open invitation is
// revoked at Clerk first. The row stays, with the status removed, and the address can be invited again.
// Clerk is not called for active members; if an invitation is still open, the next Reconcile revokes
// it. The Clerk user is not changed, so the host must deny them access to the tenant. If the member is
// already removed, Remove returns it unchanged. The membership of the member's organization is ended first.
//
// Errors: those of Revoke, except that Remove also removes a member who has accepted; [ErrLastAdmin] if the
// member is the last admin of the organization (nothing is changed). Remove is safe for concurrent use and
// safe to retry.
func (s *Service) Remove(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Remove")
	defer op.end(&err)
	return s.withdraw(ctx, ref, StatusRemoved)
}

func (s *Service) withdraw(ctx context.Context, ref Ref, to Status) (*Member, error) {
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	_, now, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
		if row.Status == to {
			return row, nil
		}
		if !allowed(row.Status, to) {
			return nil, &TransitionError{row.Status, to}
		}
		// The row refers to one invitation. An incomplete attempt or an earlier send may have created
		// another one.
		list := row.Status != StatusActive && (row.Send > 1 || row.Due() && row.Attempts > 0)
		accepted, err := s.revokeOpen(ctx, row, list)
		if err == nil && accepted != notAccepted && to == StatusRevoked {
			err = s.resolveAccepted(ctx, row, accepted)
		}
		if err == nil && row.organization() != "" {
			err = s.endMembership(ctx, row, to, accepted)
		}
		if err != nil {
			return nil, err
		}
		return asEnded(*row, to, "", s.now()), nil
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

// acceptance says whether one of a member's invitations was accepted, and which.
type acceptance int

const (
	notAccepted acceptance = iota
	earlierAccepted
	currentAccepted
)

// revokeOpen revokes the invitation of a pending or expired member. If list is true, it also revokes all
// other invitations that Clerk lists as pending for the member. It returns the latest acceptance.
func (s *Service) revokeOpen(ctx context.Context, row *Member, list bool) (accepted acceptance, err error) {
	// Revoke the known invitation first, so that its link stops working even if Clerk cannot list the
	// others. An expired invitation may still be open by Clerk's clock.
	named := row.Status == StatusPending || row.Status == StatusExpired && row.InvitationID != ""
	if named {
		if yes, err := s.revokeOne(ctx, row, row.InvitationID); err != nil {
			return notAccepted, err
		} else if yes {
			accepted = currentAccepted
		}
	}
	if !list {
		return accepted, nil
	}
	invitations, err := s.listInvitations(ctx, row, "")
	if err != nil {
		return notAccepted, s.clerkError(ctx, "list invitations", err)
	}
	unlisted := !named && row.InvitationID != "" && row.Status != StatusRevoked
	for i := range invitations {
		inv := &invitations[i]
		unlisted = unlisted && inv.ID != row.InvitationID
		m, ours := inv.mark()
		belongs := ours && m.ID == row.ID || !ours && inv.ID == row.InvitationID // an adopted member's invitation has no marker
		if !belongs || named && inv.ID == row.InvitationID {
			continue
		}
		yes := inv.Status == InvitationAccepted
		if !yes && !endedAtClerk(inv.Status) {
			if yes, err = s.revokeOne(ctx, row, inv.ID); err != nil {
				return notAccepted, err
			}
		}
		switch {
		case yes && m.Send == row.Send:
			accepted = currentAccepted
		case yes:
			accepted = max(accepted, earlierAccepted)
		}
	}
	if unlisted {
		return accepted, s.revokeUnlisted(ctx, row)
	}
	return accepted, nil
}

// revokeUnlisted revokes the invitation of a member who no longer waits for it, unless another tenant's
// row refers to it. Clerk's list may lag, so a missing invitation may still be open.
func (s *Service) revokeUnlisted(ctx context.Context, row *Member) error {
	rows, err := s.store.Find(ctx, Query{Emails: []string{row.Email}})
	if err != nil || slices.ContainsFunc(rows, func(other *Member) bool { return other.InvitationID == row.InvitationID }) {
		return err
	}
	err = s.revoke(ctx, RevokeRequest{row.InvitationID, row.organization()})
	if err == nil || codeOf(err) == codeAlreadyAccepted || saysNotFound(err) {
		return nil
	}
	return s.clerkError(ctx, "revoke invitation", err)
}

// endedAtClerk reports whether an invitation with this status can no longer be accepted. An unknown
// status proves nothing.
func endedAtClerk(status string) bool {
	return status == InvitationAccepted || status == InvitationExpired || status == InvitationRevoked
}

// revokeOne revokes one invitation. It reports whether the invitation was already accepted.
func (s *Service) revokeOne(ctx context.Context, row *Member, id string) (accepted bool, err error) {
	failure := s.revoke(ctx, RevokeRequest{id, row.organization()})
	var api *APIError
	switch {
	case failure == nil || !errors.As(failure, &api):
		return false, failure
	case api.Code == codeAlreadyAccepted:
		return true, nil
	case !errors.Is(failure, errNotRevoked) && (api.StatusCode/100 != 4 || failureOf(failure, "").ofInstance()):
		return false, s.clerkError(ctx, "revoke invitation", failure)
	}
	// Clerk does not document how it rejects the revocation of an expired or accepted invitation, and even
	// a 404 does not prove that the invitation does not exist. So look in the list.
	list, err := s.listAll(ctx, row)
	if err != nil {
		return false, s.clerkError(ctx, "list invitations", err)
	}
	i := slices.IndexFunc(list, func(inv Invitation) bool { return inv.ID == id })
	switch {
	case i < 0:
		return s.withdrawUnlisted(ctx, row, failure)
	case endedAtClerk(list[i].Status):
		return list[i].Status == InvitationAccepted, nil
	}
	return false, s.clerkError(ctx, "revoke invitation", failure)
}

// withdrawUnlisted handles an invitation that Clerk neither revokes nor lists. It reports whether the
// invitation was accepted. It returns failure as an error unless the link certainly no longer works.
func (s *Service) withdrawUnlisted(ctx context.Context, row *Member, failure error) (accepted bool, err error) {
	u, err := s.findJoined(ctx, row)
	if err != nil {
		return false, s.clerkError(ctx, "find users", err)
	}
	now := s.now()
	overdue := row.overdue(now.Add(-clockSkew))
	switch {
	case u != nil && (!overdue || u.createdBeforeExpiry(row)):
		return true, nil
	case overdue:
		return false, nil
	case saysNotFound(failure) && cmp.Or(row.InvitedAt, &row.ReservedAt).Before(now.Add(-clockSkew)):
		// The invitation is too old for the list to lag, but the key may belong to another instance.
		if known, err := s.showsOurs(ctx); err != nil || known {
			return false, err
		}
	}
	return false, s.clerkError(ctx, "revoke invitation", failure)
}

// resolveAccepted resolves a member whose invitation was accepted, and returns a *TransitionError. It
// returns nil if the current invitation can be revoked, because only an earlier send was accepted,
// possibly long ago, and no user has verified the address.
func (s *Service) resolveAccepted(ctx context.Context, row *Member, accepted acceptance) error {
	u, err := s.findJoined(ctx, row)
	if err != nil {
		return s.clerkError(ctx, "find users", err)
	}
	if u == nil && accepted == earlierAccepted {
		return nil
	}
	if u != nil {
		if _, err := s.resolveUser(ctx, u, askClerk()); err != nil {
			return err
		}
		if row, err = s.get(ctx, row.refByID()); err != nil {
			return err
		}
	}
	return &TransitionError{row.Status, StatusRevoked}
}

// Purge revokes a member's open invitations at Clerk, and then erases the member and its history from
// the store, in any state. Use it for erasure requests, and Remove to take somebody out of a tenant.
// Purge does not erase data at Clerk, such as the user and past invitations, and does not end the membership
// of an organization: call Remove first.
//
// While Purge runs, an Invite of the address returns a *[DuplicateEmailError]. If a request from an
// interrupted attempt reaches Clerk after the purge, its invitation stays; Reconcile reports it as
// Unknown.
//
// Errors:
//   - *[InvalidParamsError];
//   - [ErrNotFound], also if the member is already erased;
//   - [ErrConflict] while a delivery attempt owns the member (try again after Config.Lease);
//   - *[ClerkInvitationError] if Clerk fails (nothing is erased);
//   - the context's and the store's error, unchanged.
//
// Purge is safe for concurrent use and safe to retry.
func (s *Service) Purge(ctx context.Context, ref Ref) (err error) {
	ctx, op := s.observe(ctx, "Purge")
	defer op.end(&err)
	return s.purge(ctx, ref, func(Member) bool { return true })
}

// purge is Purge for members that satisfy may. For other members it returns ErrConflict.
func (s *Service) purge(ctx context.Context, ref Ref, may func(Member) bool) error {
	var ourClaim time.Time // end of the previous round's claim
	var due *time.Time     // NextAttemptAt from before our claim
	for range 10 {
		l, row, claimed, err := s.claimForPurge(ctx, ref, may, ourClaim)
		if err != nil {
			return err
		}
		ref = row.refByID()
		if row.ClaimedUntil == nil || !row.ClaimedUntil.Equal(ourClaim) {
			due = row.NextAttemptAt
		}
		ourClaim = *claimed.ClaimedUntil
		switch err = s.erase(ctx, l, claimed); {
		case err == nil:
			return nil
		case !errors.Is(err, ErrConflict):
			s.unclaim(ctx, l, claimed, due)
			return err
		}
	}
	return ErrConflict
}

// claimForPurge claims a member, so that no delivery starts before the member is erased.
func (s *Service) claimForPurge(ctx context.Context, ref Ref, may func(Member) bool, ourClaim time.Time) (l lease, row, claimed *Member, err error) {
	row, claimed, err = s.change(ctx, ref, func(row *Member) (*Member, error) {
		if l, err = s.newLease(ctx); err != nil {
			return nil, err
		}
		if !may(*row) || row.held(l.claimedAt) && !row.ClaimedUntil.Equal(ourClaim) {
			return nil, ErrConflict
		}
		next := s.claimed(*row, l.claimedAt)
		if next.Attempts = row.Attempts; !row.Due() {
			next.NextAttemptAt = row.NextAttemptAt
		}
		return next, nil
	})
	return l, row, claimed, err
}

// erase revokes all invitations with the member's ID, and then erases the member.
func (s *Service) erase(ctx context.Context, l lease, row *Member) error {
	inside, cancel := l.context(ctx)
	defer cancel()
	if _, err := s.revokeOpen(inside, row, true); err != nil {
		return err
	}
	results, err := s.apply(ctx, s.store, []Change{{row, nil}})
	if err != nil {
		return err
	}
	return results[0].Err
}

// unclaim releases the claim after a failed erase. If that fails too, the claim expires.
func (s *Service) unclaim(ctx context.Context, l lease, claimed *Member, due *time.Time) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	next := *claimed
	next.ClaimedUntil, next.NextAttemptAt = nil, due
	if _, err := s.apply(ctx, s.store, []Change{{claimed, &next}}); err != nil {
		s.log.WarnContext(ctx, "claim not released", "member", *claimed, "cause", logError(err))
	}
}
