package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// organizationEvent handles an event of an organization. It asks Clerk only if the event concerns a row
// for that organization.
func (s *Service) organizationEvent(ctx context.Context, e *Event) ([]*Member, error) {
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	rows, err := s.rowsOfEvent(ctx, e)
	if err != nil {
		return nil, err
	}
	switch e.Type {
	case EventOrganizationInvitationAccepted, EventOrganizationMembershipCreated, EventOrganizationMembershipUpdated:
		if slices.ContainsFunc(rows, func(row *Member) bool { return row.Status.Waits() }) && e.UserID != "" {
			return s.joinedOrganization(ctx, e, rows)
		}
	case EventOrganizationInvitationRevoked:
		return s.revokedInOrganization(ctx, e, rows)
	case EventOrganizationMembershipDeleted:
		return s.leftOrganization(ctx, e)
	}
	return nil, nil
}

// rowsOfEvent returns the rows for the event's organization that the event may concern.
func (s *Service) rowsOfEvent(ctx context.Context, e *Event) ([]*Member, error) {
	var q Query
	if e.memberID != "" {
		q.IDs = []string{e.memberID}
	}
	if e.email != "" {
		q.Emails = []string{e.email}
	}
	if len(q.IDs)+len(q.Emails) == 0 {
		return nil, nil
	}
	rows, err := s.store.Find(ctx, q)
	return slices.DeleteFunc(rows, func(row *Member) bool { return row.organization() != e.OrganizationID }), err
}

// joinedOrganization resolves the user of an event.
func (s *Service) joinedOrganization(ctx context.Context, e *Event, rows []*Member) ([]*Member, error) {
	u, err := s.readUser(ctx, e.UserID)
	if errors.Is(err, ErrNotFound) {
		return nil, s.unconfirmed(ctx, e)
	}
	if err != nil {
		return nil, err
	}
	p := askClerk()
	changed, err := s.resolveUser(ctx, u, p)
	if err == nil && slices.ContainsFunc(rows, func(row *Member) bool {
		return row.Status.Waits() && u.hasVerified(row.Email) && !u.isBarred() && !p.isMember(u, row)
	}) {
		err = s.unconfirmed(ctx, e)
	}
	return changed, err
}

// revokedInOrganization revokes the members whose invitation was revoked at Clerk.
func (s *Service) revokedInOrganization(ctx context.Context, e *Event, rows []*Member) (changed []*Member, err error) {
	for _, row := range rows {
		if row.Status != StatusPending || row.InvitationID != e.InvitationID || row.Due() { // a resend revokes the older one itself
			continue
		}
		list, err := s.listAll(ctx, row)
		if err != nil {
			return changed, s.clerkError(ctx, "list invitations", err)
		}
		next := listedAsEnded(row, list, s.now())
		if next == nil {
			return changed, s.unconfirmed(ctx, e)
		}
		now, err := s.changeOne(ctx, row, next)
		switch {
		case err == nil:
			changed = append(changed, now)
		case !errors.Is(err, ErrConflict): // otherwise another process was faster
			return changed, err
		}
	}
	return changed, nil
}

// leftOrganization removes the members of the organization that are active as a user who has left it.
func (s *Service) leftOrganization(ctx context.Context, e *Event) (changed []*Member, err error) {
	for range 10 {
		rows, err := s.store.Find(ctx, Query{UserIDs: []string{e.UserID}})
		rows = slices.DeleteFunc(rows, func(row *Member) bool { return row.organization() != e.OrganizationID })
		if err != nil || len(rows) == 0 {
			return changed, err
		}
		members, err := s.findMembers(ctx, e.OrganizationID, []string{e.UserID})
		switch {
		case saysNotFound(err): // the organization was deleted, or the key is another instance's, which does not know the user
			if gone, err := s.userGone(ctx, e.UserID); err != nil || gone {
				return changed, err
			}
		case err != nil:
			return changed, s.clerkError(ctx, "find memberships", err)
		case members[e.UserID]:
			return changed, s.unconfirmed(ctx, e)
		}
		changes := make([]Change, len(rows))
		for i, row := range rows {
			changes[i] = Change{row, asEnded(*row, StatusRemoved, ReasonLeft, s.now())}
		}
		done, retry, err := s.applyEach(ctx, changes)
		if changed = append(changed, done...); err != nil || !retry {
			return changed, err
		}
	}
	return changed, fmt.Errorf("clerkinvite: user %s left an organization: %w", e.UserID, ErrConflict)
}
