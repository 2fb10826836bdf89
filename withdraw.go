package clerkinvite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// Revoke revokes an invitation at Clerk, so that its link stops working, and then in the store. A
// reserved member will not be invited, and an expired member can no longer become active. The person can
// still sign up at Clerk, but that never makes a revoked member active. If the member is already revoked,
// Revoke returns it unchanged. If a failed attempt may have added the person to the organization
// (AddExisting), Revoke ends that membership, unless it is older than the member or another member is active by it.
//
// Errors:
//   - *[InvalidParamsError];
//   - [ErrNotFound];
//   - *[TransitionError] if the member is in another state, or the invitation was accepted. After an
//     acceptance, the member becomes active if a user has verified the address. Otherwise the person
//     signed up under another address: use Remove;
//   - [ErrLastAdmin] if the membership to end is the last admin's. A member that waited is then resolved as by
//     ResolveUser, and usually becomes active;
//   - *[ClerkInvitationError] if Clerk fails (the member is unchanged);
//   - [ErrConflict] if the member keeps changing;
//   - the context's and the store's error, unchanged.
//
// Revoke is safe for concurrent use and safe to retry.
func (s *Service) Revoke(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Revoke")
	defer op.end(&err)
	return s.revokeOrRemove(ctx, ref, StatusRevoked)
}

// Remove removes a reserved, pending, active or expired member from the tenant. It first revokes an open
// invitation at Clerk. The row stays, with the status removed, and the address can be invited again. The Clerk
// user is not changed, so the host must deny them access to the tenant. If the member is already removed, Remove
// returns it unchanged. If an active member of the application still has an open invitation, the next Reconcile
// revokes it.
//
// In an organization, Remove also ends the membership of an active member's user. A member who has accepted becomes
// active first. For any other member, even an already removed one, Remove ends the membership of the user who has
// verified the address. It keeps that membership if another member of this user is active in the organization,
// or waits for it and now becomes active.
//
// Errors: the same as Revoke. Unlike Revoke, Remove also removes a member who has accepted. Remove is safe for
// concurrent use and safe to retry.
func (s *Service) Remove(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Remove")
	defer op.end(&err)
	return s.revokeOrRemove(ctx, ref, StatusRemoved)
}

// revokeOrRemove ends a member at Clerk, and then in the store. to is its new state: revoked or removed.
func (s *Service) revokeOrRemove(ctx context.Context, ref Ref, to Status) (*Member, error) {
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	return s.change(ctx, ref, func(row *Member) (*Member, error) {
		if !allowed(row.Status, to) {
			return nil, &TransitionError{row.Status, to}
		}
		if resolved, err := s.endAtClerk(ctx, row, to); err != nil || resolved {
			return nil, err // without an error, the member is read again
		}
		if row.Status == to {
			return row, nil
		}
		ended := asEnded(*row, to, "", s.now())
		if row.Due() && row.isClaimed(*ended.SettledAt) || s.justWithdrawn(row, *ended.SettledAt) {
			ended.ClaimedUntil = ended.SettledAt // so that Purge waits for a lease; see justWithdrawn
		}
		return ended, nil
	})
}

// endAtClerk revokes the invitations of a member that becomes revoked or removed, and ends its membership. It reports
// whether it has resolved the member instead, because the person had accepted.
func (s *Service) endAtClerk(ctx context.Context, row *Member, to Status) (resolved bool, err error) {
	endsMembership := row.mayEndMembership(to)
	if endsMembership && s.cfg.Organizations == nil {
		return false, errNoOrganizations
	}
	accepted, err := s.revokeOpen(ctx, row, row.mayHaveOthers(to))
	if err == nil && accepted != notAccepted {
		resolved, err = s.resolveAccepted(ctx, row, to, accepted)
	}
	if resolved {
		return true, nil
	}
	if err == nil && endsMembership {
		err = s.endMembership(ctx, row, to, accepted)
	}
	if err != nil && !s.deletedOrganization(ctx, row, err) {
		return false, err
	}
	if !row.mayHaveOthers(to) {
		return false, nil
	}
	return false, s.revokeEarlier(ctx, row)
}

// mayHaveOthers reports whether a member that becomes revoked or removed may have more open invitations at Clerk than the
// one that it waits for. An incomplete attempt or an earlier send may have created them. A member that no longer waits may
// also have one if the person joined without accepting it. In the application, the next Reconcile revokes that one.
func (m Member) mayHaveOthers(to Status) bool {
	if m.Status.Waits() {
		return m.Send > 1 || m.Due() && m.Attempts > 0
	}
	return to == StatusRemoved && m.organization() != "" && (m.Send > 1 || m.InvitationID != "" || m.Attempts > 0)
}

// acceptance says which of a member's invitations was accepted. The latest one is the largest.
type acceptance int

const (
	notAccepted acceptance = iota
	earlierAccepted
	currentAccepted
)

// waitsForInvitation reports whether the invitation that m refers to may still be open, judging by m alone.
// An expired invitation may still be open by Clerk's clock.
func (m Member) waitsForInvitation() bool {
	return m.Status == StatusPending || m.Status == StatusExpired && m.InvitationID != ""
}

// revokeOpen revokes the invitation that a member waits for and, if others is true, all other invitations
// that Clerk lists as open for the member. It returns the latest acceptance.
func (s *Service) revokeOpen(ctx context.Context, row *Member, others bool) (accepted acceptance, err error) {
	// Revoke the known invitation first, so that its link stops working even if Clerk cannot list the
	// others.
	if row.waitsForInvitation() {
		wasAccepted, err := s.revokeOne(ctx, row, Invitation{ID: row.InvitationID})
		if err != nil {
			return notAccepted, err
		}
		if wasAccepted {
			accepted = currentAccepted
		}
	}
	if !others {
		return accepted, nil
	}
	other, err := s.revokeOthers(ctx, row)
	return max(accepted, other), err
}

// revokeOthers revokes a member's open invitations, except the one that it waits for, and those that another
// tenant's member waits for.
func (s *Service) revokeOthers(ctx context.Context, row *Member) (accepted acceptance, err error) {
	invitations, err := s.listInvitations(ctx, row, "")
	if err != nil {
		return notAccepted, s.clerkError(ctx, "list invitations", err)
	}
	listed := false // the invitation that the row refers to
	for i := range invitations {
		inv := &invitations[i]
		current := inv.ID == row.InvitationID
		listed = listed || current
		if !inv.belongsTo(row) || current && row.waitsForInvitation() {
			continue
		}
		shared, err := s.isShared(ctx, row, inv)
		if err != nil {
			return notAccepted, err
		}
		if shared {
			continue
		}
		wasAccepted, err := s.revokeOne(ctx, row, *inv)
		if err != nil {
			return notAccepted, err
		}
		switch m, _ := inv.mark(); {
		case wasAccepted && m.Send == row.Send:
			accepted = currentAccepted
		case wasAccepted: // an invitation without a marker is an earlier send's
			accepted = max(accepted, earlierAccepted)
		}
	}
	if !listed {
		return accepted, s.revokeUnlisted(ctx, row)
	}
	return accepted, nil
}

// revokeEarlier revokes a member's open invitations where it was invited into before it was invited elsewhere.
func (s *Service) revokeEarlier(ctx context.Context, row *Member) error {
	for _, organization := range row.clerkParams().Earlier {
		earlier := &Member{ID: row.ID, TenantID: row.TenantID, Email: row.Email, Status: StatusRemoved, ReservedAt: row.ReservedAt}
		if organization != "" {
			params, err := json.Marshal(clerkParams{Organization: &Organization{ID: organization}})
			if err != nil {
				return err
			}
			earlier.Params = params
		}
		if _, err := s.revokeOthers(ctx, earlier); err != nil && !s.deletedOrganization(ctx, earlier, err) {
			return err
		}
	}
	return nil
}

// belongsTo reports whether an invitation was created for the row, or was adopted by it.
func (inv *Invitation) belongsTo(row *Member) bool {
	m, _ := inv.mark()
	return m.ID == row.ID || inv.ID == row.InvitationID
}

// isShared reports whether another tenant's member needs an open invitation that belongs to row. Members share an
// invitation only by adopting it. In an organization, they can adopt even an invitation with row's marker.
func (s *Service) isShared(ctx context.Context, row *Member, inv *Invitation) (bool, error) {
	m, _ := inv.mark()
	if isFinal(inv.Status) || m.ID == row.ID && row.organization() == "" {
		return false, nil
	}
	rows, err := s.store.Find(ctx, Query{Emails: []string{row.Email}})
	return slices.ContainsFunc(rows, func(other *Member) bool {
		created := other.ID == m.ID && other.Due() // the response was lost
		return other.ID != row.ID && (other.InvitationID == inv.ID || created)
	}), err
}

// revokeUnlisted revokes the invitation that an active, failed or removed member still refers to. Clerk's
// list may lag, so a missing invitation may still be open. A revoked member's invitation is not in the list.
func (s *Service) revokeUnlisted(ctx context.Context, row *Member) error {
	if row.Status.Waits() || row.Status == StatusRevoked || row.InvitationID == "" {
		return nil
	}
	shared, err := s.isShared(ctx, row, &Invitation{ID: row.InvitationID})
	if err != nil || shared {
		return err
	}
	err = s.revoke(ctx, RevokeRequest{row.InvitationID, row.organization()})
	if err == nil || codeOf(err) == codeAlreadyAccepted || codeOf(err) == codeNotPending || saysNotFound(err) {
		return nil
	}
	return s.clerkError(ctx, "revoke invitation", err)
}

// isFinal reports whether an invitation with this status can no longer be accepted. An unknown
// status proves nothing.
func isFinal(status InvitationStatus) bool {
	return status == InvitationAccepted || status == InvitationExpired || status == InvitationRevoked
}

// revokeOne revokes one invitation, unless its status is final. It reports whether the invitation was accepted.
func (s *Service) revokeOne(ctx context.Context, row *Member, inv Invitation) (accepted bool, err error) {
	if isFinal(inv.Status) {
		return inv.Status == InvitationAccepted, nil
	}
	failure := s.revoke(ctx, RevokeRequest{inv.ID, row.organization()})
	var api *APIError
	switch {
	case failure == nil || !errors.As(failure, &api):
		return false, failure
	case api.Code == codeAlreadyAccepted:
		return true, nil
	case !errors.Is(failure, errNotRevoked) && (api.StatusCode/100 != 4 || failureOf(failure, "").ofInstance()):
		// The failure says nothing about this invitation.
		return false, s.clerkError(ctx, "revoke invitation", failure)
	}
	// Clerk does not document how it rejects the revocation of an expired or accepted invitation, and even
	// a 404 does not prove that the invitation does not exist. So look in the list.
	list, err := s.listAll(ctx, row)
	if err != nil {
		return false, s.clerkError(ctx, "list invitations", err)
	}
	i := slices.IndexFunc(list, func(listed Invitation) bool { return listed.ID == inv.ID })
	switch {
	case i < 0:
		return s.acceptedUnlisted(ctx, row, failure)
	case isFinal(list[i].Status):
		return list[i].Status == InvitationAccepted, nil
	}
	return false, s.clerkError(ctx, "revoke invitation", failure)
}

// acceptedUnlisted reports whether an invitation that Clerk neither revokes nor lists was accepted. It
// returns failure as an error unless the link certainly no longer works.
func (s *Service) acceptedUnlisted(ctx context.Context, row *Member, failure error) (accepted bool, err error) {
	u, _, err := s.findJoined(ctx, row)
	if err != nil {
		return false, s.clerkError(ctx, "find users", err)
	}
	overdue := row.overdue(s.now().Add(-clockSkew))
	accepted = u != nil && (!overdue || u.createdBeforeExpiry(row))
	if accepted || overdue {
		return accepted, nil
	}
	unknown, err := s.isUnknown(ctx, row, failure)
	if err != nil || unknown {
		return false, err
	}
	return false, s.clerkError(ctx, "revoke invitation", failure)
}

// isUnknown reports whether an invitation that Clerk does not list does not exist, after the request to revoke it
// has failed: Clerk says so, the invitation is too old for the list to lag, and the key is not another instance's.
func (s *Service) isUnknown(ctx context.Context, row *Member, failure error) (bool, error) {
	created := cmp.Or(row.InvitedAt, row.SettledAt, &row.ReservedAt) // or later
	switch {
	case !saysNotFound(failure), !created.Before(s.now().Add(-clockSkew)):
		return false, nil
	case row.organization() != "":
		return true, nil // another instance would not have listed the organization's invitations
	}
	return s.showsOurInvitation(ctx)
}

// resolveAccepted resolves the members of the user who has accepted the invitation of a member that becomes revoked or
// removed.
//
// For removed, it reports whether the member has changed. In an organization, other tenants' members may wait for the same
// invitation, so they are resolved too.
//
// For revoked, it returns a *TransitionError, because an accepted invitation cannot be revoked. There is one exception:
// only an earlier send was accepted, perhaps long ago, and no user has verified the address. Then the current invitation
// can be revoked.
func (s *Service) resolveAccepted(ctx context.Context, row *Member, to Status, accepted acceptance) (resolved bool, err error) {
	if to == StatusRemoved && (!row.Status.Waits() || row.organization() == "") {
		return false, nil
	}
	u, _, err := s.findJoined(ctx, row)
	if err != nil {
		return false, s.clerkError(ctx, "find users", err)
	}
	if u == nil && (to == StatusRemoved || accepted == earlierAccepted) {
		return false, nil
	}
	now := row
	if u != nil {
		_, failure := s.resolveUser(ctx, u, askClerk())
		if err := s.excuseWrite(ctx, row, failure); err != nil {
			return false, err
		}
		if now, err = s.get(ctx, row.refByID()); err != nil {
			return false, err
		}
		if failure != nil && to == StatusRevoked && now.Version == row.Version {
			return false, failure
		}
	}
	if to == StatusRevoked {
		return false, &TransitionError{now.Status, to}
	}
	return now.Version != row.Version, nil
}

// Purge revokes a member's open invitations at Clerk, and then erases the member and its history from the store, in
// any state. It also revokes invitations into earlier organizations, except adopted ones. Use it for erasure requests.
// To remove a person from a tenant, use Remove. Purge does not erase data at Clerk, such as the user and past
// invitations, and does not end the membership of an organization: call Remove first.
//
// While Purge runs, an Invite of the address returns a *[DuplicateEmailError]. If a request from an
// interrupted attempt reaches Clerk after the purge, its invitation stays; Reconcile reports it as
// Unknown. The same applies to a left-over invitation, and to that of an interrupted attempt, if the member's
// address has changed since and no Reconcile has revoked it yet.
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

// purge is Purge, but only for a member for which may returns true. For other members it returns ErrConflict.
func (s *Service) purge(ctx context.Context, ref Ref, may func(Member) bool) error {
	var c purgeClaim
	for range 10 { // other calls may change the member under the claim
		claim, err := s.claimForPurge(ctx, ref, may, c)
		if err != nil {
			s.unclaim(ctx, c)
			return err
		}
		c = claim
		if err = s.erase(ctx, c); err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			s.unclaim(ctx, c)
			return err
		}
		ref = c.row.refByID()
	}
	s.unclaim(ctx, c)
	return ErrConflict
}

// purgeClaim is a claim that keeps deliveries from starting before the member is erased.
type purgeClaim struct {
	lease
	row    *Member // as claimed
	before *Member // before the claim
}

// claimForPurge claims a member, or renews the previous claim if that still owns the member.
func (s *Service) claimForPurge(ctx context.Context, ref Ref, may func(Member) bool, previous purgeClaim) (c purgeClaim, err error) {
	c.row, err = s.change(ctx, ref, func(row *Member) (_ *Member, err error) {
		if c.lease, err = s.newLease(ctx); err != nil {
			return nil, err
		}
		isOurClaim := previous.row != nil && row.hasClaimOf(previous.row)
		owned := row.isClaimed(c.claimedAt) || s.justWithdrawn(row, c.claimedAt)
		if !may(*row) || owned && !isOurClaim {
			return nil, ErrConflict
		}
		c.before = row
		if isOurClaim {
			c.before = previous.before
		}
		next := s.asClaimed(*row, c.claimedAt)
		next.Attempts = row.Attempts // a purge is not an attempt to deliver
		if !row.Due() {
			next.NextAttemptAt = row.NextAttemptAt
		}
		return next, nil
	})
	return c, err
}

// justWithdrawn reports whether row was withdrawn during an attempt, less than a lease ago. Such a row has a claim that
// ended when it was settled. Clerk's list may not show the attempt's invitation yet.
func (s *Service) justWithdrawn(row *Member, now time.Time) bool {
	return !row.Due() && row.mayHaveEffect() && row.SettledAt != nil && now.Sub(*row.SettledAt) < s.cfg.Lease
}

// erase revokes all invitations with the member's ID, and then erases the member.
func (s *Service) erase(ctx context.Context, c purgeClaim) error {
	inside, cancel := c.context(ctx)
	defer cancel()
	if _, err := s.revokeOpen(inside, c.row, true); err != nil && !s.deletedOrganization(inside, c.row, err) {
		return err
	}
	if err := s.revokeEarlier(inside, c.row); err != nil {
		return err
	}
	_, err := s.changeOne(ctx, c.row, nil)
	return err
}

// unclaim releases the claim, if there is one, after a failed erase. If that fails too, the claim expires.
func (s *Service) unclaim(ctx context.Context, c purgeClaim) {
	if c.row == nil {
		return
	}
	ctx, cancel := c.settling(ctx)
	defer cancel()
	released := func(row *Member) (*Member, error) {
		if !row.hasClaimOf(c.row) {
			return row, nil // another call owns the member, or has ended it
		}
		next := *row
		next.ClaimedUntil = c.before.ClaimedUntil
		if sameTime(row.NextAttemptAt, c.row.NextAttemptAt) {
			next.NextAttemptAt = c.before.NextAttemptAt
		}
		return &next, nil
	}
	next, _ := released(c.row)
	_, err := s.changeOne(ctx, c.row, next)
	if errors.Is(err, ErrConflict) { // the member was updated under the claim
		_, err = s.change(ctx, c.row.refByID(), released)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		s.log.WarnContext(ctx, "claim not released", "member", *c.row, "cause", logError(err))
	}
}
