package clerkinvite

import (
	"context"
	"errors"
	"time"
)

// Revoke withdraws an invitation: at Clerk first, so that its link is dead, then in the
// store. A member that is reserved is not invited any more. It does not keep the person
// from signing up at Clerk by themselves, but a revoked member is never resolved by that.
//
// Errors: *[InvalidParamsError]; [ErrNotFound]; *[TransitionError] if the member is in
// another state, also if the invitation was accepted: then the member is resolved, if
// somebody holds the address verified (if not, they signed up under another: use Remove);
// *[ClerkInvitationError] if Clerk could not be asked: the member stays as it is;
// [ErrConflict] if it keeps changing; a store's error as it is. Revoke is safe for
// concurrent use and for repetition: a member that is revoked is returned as it is.
func (s *Service) Revoke(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Revoke")
	defer seen.done(&err)
	return s.withdraw(ctx, ref, StatusRevoked)
}

// Remove takes a reserved, pending or active member out of the tenant. The row stays, as
// removed, and the address can be invited again. An open invitation is revoked at Clerk
// first; for an active member, who needs none, Clerk is not asked, and one that is open all
// the same is revoked by the next Reconcile. The Clerk user is not touched: whether they may go on using the tenant is the
// host's to check.
//
// Errors and safety are those of Revoke; that the person has just accepted is no error.
func (s *Service) Remove(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Remove")
	defer seen.done(&err)
	return s.withdraw(ctx, ref, StatusRemoved)
}

func (s *Service) withdraw(ctx context.Context, ref Ref, to Status) (*Member, error) {
	_, now, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
		if row.Status == to {
			return row, nil
		}
		if !allowed(row.Status, to) {
			return nil, &TransitionError{row.Status, to}
		}
		// The row names one invitation at most. There may be another: of an attempt that has not
		// come to its end, or of an earlier send.
		look := row.Status != StatusActive && (row.Send > 1 || row.Due() && row.Attempts > 0)
		accepted, earlier, err := s.revokeOpen(ctx, row, look)
		if err == nil && (accepted || earlier) && to == StatusRevoked {
			err = s.acceptedInstead(ctx, row, to, accepted)
		}
		if err != nil {
			return nil, err
		}
		return ended(*row, to, "", s.now()), nil
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

// acceptedInstead resolves a member whose invitation cannot be withdrawn any more, and
// returns the error that says so; or nil if it was an invitation of an earlier send, which
// can be long ago, and nobody holds the address: the current one is still to be withdrawn.
func (s *Service) acceptedInstead(ctx context.Context, row *Member, to Status, current bool) error {
	users, err := s.findUsers(ctx, UserQuery{Emails: []string{row.Email}})
	if err != nil {
		return s.clerkError(ctx, "find users", err)
	}
	u := holder(users, row.Email)
	if u == nil && !current {
		return nil
	}
	if u != nil {
		if _, err := s.resolveUser(ctx, u, s.accepted); err != nil {
			return err
		}
		if row, err = s.get(ctx, row.Ref()); err != nil {
			return err
		}
	}
	return &TransitionError{row.Status, to}
}

// Purge erases a member and its history from the store, whatever its state, after
// revoking what is open for it at Clerk. It is for requests to erase a person's data;
// to take somebody out of a tenant, use Remove. What Clerk keeps of its own, the user and
// the record of invitations, is to be erased at Clerk. While it is under way the member
// counts as held: inviting the address is a duplicate. An invitation that Clerk makes only
// after that, from a request of an attempt that was cut off, stays; Reconcile reports it
// as Unknown.
//
// Errors: *[InvalidParamsError]; [ErrNotFound], also when it is purged already;
// [ErrConflict] while an attempt at delivering holds the member: try again after
// Config.Lease; *[ClerkInvitationError] if Clerk could not be asked: nothing is erased;
// a store's error as it is. Purge is safe for concurrent use and for repetition.
func (s *Service) Purge(ctx context.Context, ref Ref) (err error) {
	ctx, seen := s.observe(ctx, "Purge")
	defer seen.done(&err)
	var mine time.Time // when the claim of an earlier round ends
	for range 10 {
		var l lease
		// With the lease nobody begins to deliver what is about to go.
		row, claimed, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
			if l = s.newLease(); row.held(l.claimedAt) && !row.ClaimedUntil.Equal(mine) {
				return nil, ErrConflict
			}
			next := s.claimed(*row, l.claimedAt)
			if next.Attempts = row.Attempts; !row.Due() {
				next.NextAttemptAt = row.NextAttemptAt
			}
			return next, nil
		})
		if err != nil {
			return err
		}
		mine = *claimed.ClaimedUntil
		err = s.erase(ctx, l, claimed)
		if !errors.Is(err, ErrConflict) {
			if err != nil {
				s.restore(ctx, l, claimed, row)
			}
			return err
		}
	}
	return ErrConflict
}

// erase revokes all that carries the id of a member, which nobody knows any more when it
// is erased, and erases it.
func (s *Service) erase(ctx context.Context, l lease, row *Member) error {
	calls, cancel := l.context(ctx)
	defer cancel()
	if _, _, err := s.revokeOpen(calls, row, true); err != nil {
		return err
	}
	done, err := s.apply(ctx, s.store, []Change{{row, nil}})
	if err != nil {
		return err
	}
	return done[0].Err
}

// restore gives up a claim under which nothing has come about. If that fails, it ends by itself.
func (s *Service) restore(ctx context.Context, l lease, claimed, row *Member) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	next := *claimed
	next.ClaimedUntil, next.NextAttemptAt = row.ClaimedUntil, row.NextAttemptAt
	if _, err := s.apply(ctx, s.store, []Change{{claimed, &next}}); err != nil {
		s.log.WarnContext(ctx, "claim not given up", "member", *row, "cause", logError(err))
	}
}

// revokeOpen revokes the invitation of a pending member, and with look also all others
// that Clerk lists as pending for it. It reports whether one of them was accepted, of the
// current send or of an earlier one.
func (s *Service) revokeOpen(ctx context.Context, row *Member, look bool) (accepted, earlier bool, err error) {
	// First, because a list that cannot be had must not keep this link alive.
	if row.Status == StatusPending {
		if accepted, err = s.revokeOne(ctx, row, row.InvitationID); err != nil {
			return false, false, err
		}
	}
	if !look {
		return accepted, false, nil
	}
	list, err := s.listInvitations(ctx, row.Email, "")
	if err != nil {
		return false, false, s.clerkError(ctx, "list invitations", err)
	}
	for i := range list {
		m, ours := list[i].mark()
		// One that was made before the library came has no mark; the row names it.
		if ours && m.ID != row.ID || !ours && list[i].ID != row.InvitationID || row.Status == StatusPending && list[i].ID == row.InvitationID {
			continue
		}
		was := list[i].Status == InvitationAccepted
		if list[i].Status == InvitationPending {
			if was, err = s.revokeOne(ctx, row, list[i].ID); err != nil {
				return false, false, err
			}
		}
		accepted, earlier = accepted || was && m.Send == row.Send, earlier || was
	}
	return accepted, earlier, nil
}

// revokeOne revokes one invitation, and reports whether it was accepted already.
func (s *Service) revokeOne(ctx context.Context, row *Member, id string) (accepted bool, err error) {
	err = s.revoke(ctx, id)
	var api *APIError
	if err == nil || !errors.As(err, &api) {
		return false, err
	}
	if api.Code == codeAlreadyAccepted {
		return true, nil
	}
	if api.StatusCode/100 == 4 && !ofInstance(api) {
		// What Clerk answers for an invitation that has run out is unknown. The list tells.
		list, listErr := s.listInvitations(ctx, row.Email, "")
		if listErr != nil {
			return false, s.clerkError(ctx, "list invitations", listErr)
		}
		for _, inv := range list {
			switch {
			case inv.ID != id:
			case inv.Status == InvitationAccepted:
				return true, nil
			case inv.Status == InvitationExpired:
				return false, nil
			}
		}
	}
	return false, s.clerkError(ctx, "revoke invitation", err)
}
