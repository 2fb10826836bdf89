package clerkinvite

import (
	"context"
	"slices"
)

// A left-over invitation is open at Clerk, but no member needs it. An example is the older invitation after a Resend: it
// is revoked here, after the new one is written. An organization's older invitation is revoked before: see revokeOlder in
// organization.go.

// revokeLeftOvers revokes the left-over invitations of settled attempts. Failures are only logged: Reconcile revokes
// invitations with a marker later.
func (s *Service) revokeLeftOvers(ctx context.Context, l lease, attempts []*attempt) {
	for _, a := range attempts {
		if !a.verdict.leftOver || a.delivery.Member == nil {
			continue
		}
		ctx, cancel := l.settling(ctx)
		s.revokeLeftOversOf(ctx, a)
		hangs := ctx.Err() != nil
		cancel()
		if hangs {
			return // Clerk does not respond
		}
	}
}

// revokeLeftOversOf revokes the left-over invitations for the attempt's address: those with a marker, and the one that the
// row referred to before, even if Clerk does not list it yet. See isLeftOver.
func (s *Service) revokeLeftOversOf(ctx context.Context, a *attempt) {
	previous := a.row.InvitationID // a.row is the row before it was settled
	if a.olderRevoked {
		previous = ""
	}
	list, err := s.listInvitations(ctx, a.row, "")
	if err != nil {
		// Continue, because the previous invitation is known without the list.
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
	}
	list = openOrUnlisted(list, previous)
	var q Query
	for i := range list {
		m, ours := list[i].mark()
		if ours {
			q.IDs = append(q.IDs, m.ID)
		}
		// Members of several tenants may wait for an adopted invitation, and for any invitation of an organization.
		if a.organization() != "" || !ours && list[i].ID == previous {
			q.Emails = []string{a.row.Email}
		}
	}
	if len(q.IDs)+len(q.Emails) == 0 {
		return
	}
	// The rows are read after Clerk's list, so an invitation that is created in between is not in the list.
	rows, err := s.store.Find(ctx, q)
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
		return
	}
	for i := range list {
		if isLeftOver(&list[i], previous, rows) {
			s.tryRevokeLeftOver(ctx, RevokeRequest{list[i].ID, a.organization()})
		}
	}
}

// openOrUnlisted returns the pending invitations of a list, and the previous invitation if the list does not have it. It
// may be revoked already, or it is open and Clerk's list lags.
func openOrUnlisted(list []Invitation, previous string) []Invitation {
	listed := slices.ContainsFunc(list, func(inv Invitation) bool { return inv.ID == previous })
	list = slices.DeleteFunc(list, func(inv Invitation) bool { return inv.Status != InvitationPending })
	if previous != "" && !listed {
		list = slices.Insert(list, 0, Invitation{ID: previous})
	}
	return list
}

// isLeftOver reports whether a pending invitation can be revoked because no member needs it. rows are all members
// that may refer to it. previous is the invitation that the settled row referred to before.
func isLeftOver(inv *Invitation, previous string, rows []*Member) bool {
	m, marked := inv.mark()
	isOwner := func(row *Member) bool { return marked && row.ID == m.ID }
	adopted := func(row *Member) bool { return !isOwner(row) && row.Status.Waits() && row.InvitationID == inv.ID }
	switch owner := slices.IndexFunc(rows, isOwner); {
	case slices.ContainsFunc(rows, adopted):
		return false
	case !marked: // may be another application's
		return inv.ID == previous
	default: // without its owner, it may be another database's
		return owner >= 0 && !keeps(rows[owner], inv, m.Send)
	}
}

// keeps reports whether the row still needs a pending invitation with its ID in the marker.
func keeps(row *Member, inv *Invitation, send int) bool {
	if send > row.Send {
		return true // the row is older than the invitation, as after restoring a backup
	}
	if row.Status != StatusReserved && row.Status != StatusPending {
		return false
	}
	underWay := row.Sent < row.Send && send == row.Send // not written yet
	return row.InvitationID == inv.ID || underWay
}

// tryRevokeLeftOver is revokeLeftOver for callers that continue after a failure.
func (s *Service) tryRevokeLeftOver(ctx context.Context, r RevokeRequest) {
	if err := s.revokeLeftOver(ctx, r); err != nil && codeOf(err) != codeNotPending { // otherwise it has ended
		s.log.WarnContext(ctx, "left-over invitation not revoked", "invitation", r.ID, "cause", logError(err))
	}
}

// revokeLeftOver revokes an invitation that no row refers to.
func (s *Service) revokeLeftOver(ctx context.Context, r RevokeRequest) error {
	err := s.revoke(ctx, r)
	if err == nil {
		s.log.InfoContext(ctx, "left-over invitation revoked", "invitation", r.ID)
	}
	return err
}

// revoke revokes an invitation at Clerk. It succeeds if Clerk says that the invitation is revoked, or names no status.
func (s *Service) revoke(ctx context.Context, r RevokeRequest) error {
	inv, err := request(ctx, s, endpointsOf(r.OrganizationID).revoke, "clerk.RevokeInvitation", func(ctx context.Context) (*Invitation, error) {
		return s.api.RevokeInvitation(ctx, r)
	})
	switch {
	case codeOf(err) == codeAlreadyRevoked:
		return nil
	case err == nil && inv.Status != "" && inv.Status != InvitationRevoked:
		return errNotRevoked
	}
	return err
}
