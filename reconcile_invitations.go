package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"time"
)

// invitations checks Clerk's invitations: the open ones, and ended ones back to the oldest that a member
// waits for.
func (r *reconciliation) invitations(ctx context.Context) error {
	if err := r.listedInvitations(ctx); err != nil {
		return err
	}
	if r.s.cfg.Organizations != nil {
		r.organizations = true
		if err := r.listedInvitations(ctx); err != nil {
			return err
		}
	}
	if r.progress.Oldest == nil {
		return nil
	}
	return inOrder(ctx, r.expireOverdue, r.unlistedInvitations)
}

// listedInvitations checks the invitations into the application or, with r.organizations, into all
// organizations.
func (r *reconciliation) listedInvitations(ctx context.Context) error {
	if err := r.openInvitations(ctx); err != nil || r.progress.Oldest == nil {
		return err
	}
	return inOrder(ctx, r.revokedInvitations, r.acceptedInvitations, r.expiredInvitations)
}

// openInvitations finds left-over invitations and revokes them. It lists Clerk's invitations before it reads
// the rows, so that an invitation cannot be newer than the rows.
func (r *reconciliation) openInvitations(ctx context.Context) error {
	var leftOver []RevokeRequest
	err := r.list(ctx, InvitationPending, time.Time{}, func(list []listed) {
		for _, l := range list {
			switch {
			case !l.marked:
			case l.row == nil:
				r.report.Unknown++ // may belong to another application
			case l.send > l.row.Send:
				r.report.Newer++
				r.hasNewer[l.row.ID] = true
			case slices.ContainsFunc(l.adopters, r.waits):
			case !keeps(l.row, l.Invitation, l.send), !r.waits(l.row):
				leftOver = append(leftOver, RevokeRequest{l.ID, l.OrganizationID})
			}
		}
	})
	if err != nil || r.keySeemsWrong() {
		return err
	}
	// Revoke after listing. A revoked invitation disappears from the list, so the next page would skip
	// another invitation.
	for _, inv := range leftOver {
		if err := r.revokeAndCount(ctx, inv); err != nil {
			return err
		}
	}
	return nil
}

// waits reports whether a row that may wait for its invitation still does after a dry run, which has not written the change
// to the row.
func (r *reconciliation) waits(row *Member) bool { return !r.opts.DryRun || !r.changed[row.ID] }

// revokeAndCount revokes a left-over invitation. The error is not nil if the reconciliation must stop.
func (r *reconciliation) revokeAndCount(ctx context.Context, inv RevokeRequest) error {
	if r.opts.DryRun {
		r.report.LeftOver++
		return nil
	}
	err := r.s.revokeLeftOver(ctx, inv)
	var api *APIError
	isAPI := errors.As(err, &api)
	switch {
	case err == nil:
		r.report.LeftOver++
	case ctx.Err() != nil, isAPI && failureOf(err, "").ofInstance():
		return r.s.clerkError(ctx, "revoke invitation", err)
	case isAPI && api.StatusCode/100 == 4: // probably accepted or expired in the meantime
	default:
		r.note(ctx, r.s.clerkError(ctx, "revoke invitation", err))
	}
	return nil
}

// revokedInvitations revokes the members whose invitation was revoked at Clerk.
func (r *reconciliation) revokedInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationRevoked)
	if err != nil {
		return err
	}
	var changes []Change
	for _, row := range rows {
		changes = append(changes, Change{row, asEndedAtClerk(row, InvitationRevoked, r.s.now())})
	}
	_, err = r.apply(ctx, changes)
	return err
}

// acceptedInvitations makes members whose invitation was accepted active, if a user has verified the
// address.
func (r *reconciliation) acceptedInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationAccepted)
	if err != nil {
		return err
	}
	accepted := make(map[string]bool)
	for _, row := range rows {
		accepted[row.InvitationID] = true
	}
	users, err := r.resolve(ctx, emailsOf(rows), accepted)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !r.changed[row.ID] && !r.unreadable[row.Email] && !row.overdue(r.began.Add(-clockSkew)) && verifiedBy(users, row.Email) == nil {
			r.report.AcceptedElsewhere = append(r.report.AcceptedElsewhere, row)
		}
	}
	return nil
}

// expiredInvitations expires the members whose invitation has expired, unless a user has verified the
// address. It looks up only members that were not looked up since the expiry.
func (r *reconciliation) expiredInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationExpired)
	if err != nil {
		return err
	}
	unchecked := slices.DeleteFunc(slices.Clone(rows), func(row *Member) bool { return r.checkedAfterExpiry[row.ID] })
	if _, err = r.resolve(ctx, emailsOf(unchecked), nil); err != nil {
		return err
	}
	var changes []Change
	for _, row := range rows {
		if !r.changed[row.ID] && !r.unreadable[row.Email] && !r.unresolved[row.ID] {
			changes = append(changes, Change{row, asEndedAtClerk(row, InvitationExpired, r.s.now())})
		}
	}
	_, err = r.apply(ctx, changes)
	return err
}

// unlistedInvitations activates adopted members whose invitation Clerk does not list, if a user has verified
// the address. Clerk's lists are read before, because the invitation may have ended before the user had it.
func (r *reconciliation) unlistedInvitations(ctx context.Context) error {
	if !r.progress.Oldest.IsZero() {
		return nil // no member has an invitation whose time is unknown
	}
	q := PageQuery{Statuses: []Status{StatusPending}, Limit: reconcilePage}
	for {
		rows, err := r.s.store.Page(ctx, q)
		if err != nil {
			return err
		}
		if _, err := r.resolve(ctx, emailsOf(filter(rows, r.isUnlisted)), nil); err != nil || len(rows) < q.Limit {
			return err
		}
		last := rows[len(rows)-1]
		q.AfterTenantID, q.AfterID = last.TenantID, last.ID
	}
}

// isUnlisted reports whether a pending member's time is still unknown after Clerk's lists were read.
func (r *reconciliation) isUnlisted(row *Member) bool {
	return row.InvitedAt == nil && r.unwritten[row.ID] == nil && !row.Due() && !r.changed[row.ID] && !r.hasNewer[row.ID] &&
		!row.overdue(r.began.Add(-clockSkew)) && !row.UpdatedAt.After(r.began) // otherwise adopted after the lists were read
}

// emailsOf returns the distinct addresses of members.
func emailsOf(members []*Member) []string {
	var emails []string
	for _, m := range members {
		emails = append(emails, m.Email)
	}
	slices.Sort(emails)
	return slices.Compact(emails)
}

// waitingFor returns the pending members whose invitation has this final status in Clerk's list.
func (r *reconciliation) waitingFor(ctx context.Context, status InvitationStatus) (members []*Member, err error) {
	err = r.list(ctx, status, *r.progress.Oldest, func(list []listed) {
		for _, l := range list {
			// A member that is due for a resend belongs to Deliver.
			if l.isCurrent() && l.row.Status == StatusPending && !l.row.Due() && !r.changed[l.row.ID] && !r.hasNewer[l.row.ID] {
				members = append(members, l.row)
			}
		}
	})
	return members, err
}

// list reads Clerk's invitations in a status. For each page, it corrects the times in the members' rows, notes the
// members whose invitation Clerk has shown, and then calls page. If oldest is not zero, it reads the newest first and
// stops at invitations that are older.
func (r *reconciliation) list(ctx context.Context, status InvitationStatus, oldest time.Time, page func(list []listed)) error {
	q := InvitationQuery{Status: status, Limit: listPage, NewestFirst: !oldest.IsZero(), AllOrganizations: r.organizations}
	var previous []Invitation
	for {
		all, err := r.s.listInvitationPage(ctx, q)
		if err != nil {
			return r.s.clerkError(ctx, "list invitations", err)
		}
		last := len(all) < q.Limit || q.NewestFirst && all[len(all)-1].createdBefore(oldest)
		invitations := withoutRepeated(all, previous)
		if !last && !slices.ContainsFunc(invitations, func(inv Invitation) bool { return inv.ID != "" }) {
			return r.s.clerkError(ctx, "list invitations", errEndlessList)
		}
		r.report.Invitations += len(invitations)
		list, err := r.withTimes(ctx, slices.DeleteFunc(invitations, func(inv Invitation) bool { return inv.ID == "" || inv.Status != status }))
		if err != nil {
			return err
		}
		for i := range list {
			if list[i].isCurrent() {
				r.noteShown(list[i].row)
			}
		}
		page(list)
		if last {
			return nil
		}
		previous = all
		q.Offset += q.Limit
	}
}

// listed is an invitation in Clerk's list, with one of its members. An invitation is listed once per member.
type listed struct {
	*Invitation
	row *Member // nil if the invitation has no member in this database

	// Only for the member that the marker identifies, whether or not it exists in this database:
	marked   bool
	send     int       // the marker's
	adopters []*Member // the other members that wait for the invitation
}

// isCurrent reports whether the row refers to the invitation.
func (l *listed) isCurrent() bool { return l.row != nil && l.row.InvitationID == l.ID }

// withMembers reads the members of invitations. An invitation can have an owner, the member that its marker identifies.
// It can also have adopters, other members of any tenant that wait for it. The result has an entry for each member. An
// invitation without members has one entry without a row.
func (s *Service) withMembers(ctx context.Context, invitations []Invitation) ([]listed, error) {
	var q Query
	for i := range invitations {
		if m, marked := invitations[i].mark(); marked {
			q.IDs = append(q.IDs, m.ID)
		}
		if email, reason := normalizeEmail(invitations[i].Email); reason == "" {
			q.Emails = append(q.Emails, email)
		}
	}
	var rows []*Member
	if len(q.IDs)+len(q.Emails) > 0 {
		var err error
		if rows, err = s.store.Find(ctx, q); err != nil {
			return nil, err
		}
	}
	byID, waiting := make(map[string]*Member), make(map[string][]*Member) // waiting is by invitation
	for _, row := range rows {
		byID[row.ID] = row
		if row.Status.Waits() && row.InvitationID != "" {
			waiting[row.InvitationID] = append(waiting[row.InvitationID], row)
		}
	}
	var list []listed
	for i := range invitations {
		inv := &invitations[i]
		m, marked := inv.mark()
		owner := byID[m.ID] // nil without a marker, because no row has the ID ""
		adopters := filter(waiting[inv.ID], func(row *Member) bool { return row != owner })
		if owner != nil || len(adopters) == 0 {
			list = append(list, listed{Invitation: inv, row: owner, marked: marked, send: m.Send, adopters: adopters})
		}
		for _, row := range adopters {
			list = append(list, listed{Invitation: inv, row: row})
		}
	}
	return list, nil
}

// withoutRepeated removes duplicates within a page and invitations of the previous page. Pages overlap if an
// invitation is created between the two requests. Invitations without an ID stay.
func withoutRepeated(page, previous []Invitation) []Invitation {
	known := make(map[string]bool)
	for _, inv := range previous {
		known[inv.ID] = true
	}
	var kept []Invitation
	for _, inv := range page {
		if inv.ID == "" || !known[inv.ID] {
			kept = append(kept, inv)
		}
		known[inv.ID] = true
	}
	return kept
}

// createdBefore reports whether Clerk says that the invitation was created before the given time.
func (inv *Invitation) createdBefore(t time.Time) bool {
	return !inv.CreatedAt.IsZero() && inv.CreatedAt.Before(t)
}

// withTimes returns the invitations with their members, after correcting the times in the members' rows.
func (r *reconciliation) withTimes(ctx context.Context, invitations []Invitation) ([]listed, error) {
	list, err := r.s.withMembers(ctx, invitations)
	if err == nil {
		err = r.correctTimes(ctx, list)
	}
	return list, err
}

// correctTimes corrects the rows whose times differ from Clerk's times of their open invitation. Adopted
// members have no times, so they also get the times of ended invitations.
func (r *reconciliation) correctTimes(ctx context.Context, list []listed) error {
	var changes []Change
	var corrected []*listed // of changes
	for i := range list {
		l := &list[i]
		if !l.isCurrent() || l.row.Status != StatusPending || l.row.InvitedAt != nil && l.Status != InvitationPending {
			continue
		}
		row := *l.row
		if l.ExpiresAt != nil || row.InvitedAt == nil { // Adopt has only assumed an expiry
			row.ExpiresAt = l.ExpiresAt
		}
		if row.InvitedAt == nil && !l.CreatedAt.IsZero() {
			row.InvitedAt = &l.CreatedAt
		}
		next := row.Clone() // rounds the times as a store does
		if !sameTime(next.InvitedAt, l.row.InvitedAt) || !sameTime(next.ExpiresAt, l.row.ExpiresAt) {
			changes, corrected = append(changes, Change{l.row, next}), append(corrected, l)
		}
	}
	if r.dryRun() {
		for i, c := range changes {
			r.unwritten[c.Old.ID], corrected[i].row = c.New, c.New
		}
		return nil
	}
	results, err := r.s.applyBounded(ctx, changes)
	if err != nil {
		return err
	}
	for i, result := range results {
		switch {
		case result.Err == nil:
			corrected[i].row = result.Member
		case !errors.Is(result.Err, ErrConflict):
			r.note(ctx, result.Err)
		}
	}
	return nil
}
