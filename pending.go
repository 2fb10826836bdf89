package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PendingPrefix starts the ClerkUserID of a member who has not accepted yet.
const PendingPrefix = "pending_"

// PendingID returns the ClerkUserID of a member who waits on this invitation.
func PendingID(invitationID string) string { return PendingPrefix + invitationID }

// IsPending reports whether a ClerkUserID stands for an invitation and not for a user.
func IsPending(clerkUserID string) bool { return strings.HasPrefix(clerkUserID, PendingPrefix) }

// InvitationID returns the invitation that a pending ClerkUserID stands for.
func InvitationID(clerkUserID string) (string, bool) {
	return strings.CutPrefix(clerkUserID, PendingPrefix)
}

// Resolve makes the members that wait for u active, in all tenants, and returns
// those it changed. u must come from Clerk's Backend API just now: it is taken as
// proof that the user holds the addresses that it shows as verified. It makes no
// request to Clerk.
//
// A member whose invitation has run out resolves only if u was created while it was
// valid. A banned user resolves nothing. A user has one active member per tenant:
// the one that is active already, else the one with the primary address, else the
// oldest; the others end removed.
//
// Errors: *[InvalidParamsError], a store's error as it is. Resolve is safe for
// concurrent use and for repetition.
func (s *Service) Resolve(ctx context.Context, u User) (_ []*Member, err error) {
	ctx, seen := s.observe(ctx, "Resolve")
	defer seen.done(&err)
	if !clerkID.MatchString(u.ID) {
		return nil, &InvalidParamsError{"User.ID", "is not an id of Clerk's"}
	}
	return s.resolveUser(ctx, &u, nil)
}

// ResolveUser reads the user from Clerk with one request and resolves it as Resolve
// does: the way to be up to date at sign-in without waiting for a webhook. For a
// member whose invitation has run out it may ask Clerk for that invitation too.
//
// Errors: *[InvalidParamsError], [ErrNotFound] if Clerk has no such user,
// *[ClerkInvitationError], a store's error as it is.
func (s *Service) ResolveUser(ctx context.Context, userID string) (_ []*Member, err error) {
	ctx, seen := s.observe(ctx, "ResolveUser")
	defer seen.done(&err)
	if !clerkID.MatchString(userID) {
		return nil, &InvalidParamsError{"userID", "is not an id of Clerk's"}
	}
	u, err := s.readUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	return s.resolveUser(ctx, u, s.accepted)
}

// readUser returns the user with the id, or ErrNotFound if Clerk has none.
func (s *Service) readUser(ctx context.Context, id string) (*User, error) {
	users, err := s.findUsers(ctx, UserQuery{IDs: []string{id}})
	if err != nil {
		return nil, s.clerkError(ctx, "find users", err)
	}
	for i := range users {
		if users[i].ID == id {
			return &users[i], nil
		}
	}
	return nil, ErrNotFound
}

// clerkError wraps the failure of a call that sends nothing to anybody.
func (s *Service) clerkError(ctx context.Context, op string, err error) error {
	var api *APIError
	if !errors.As(err, &api) {
		return err
	}
	s.log.WarnContext(ctx, "call to Clerk failed", "op", op, "cause", logError(err))
	return &ClerkInvitationError{Op: op, Outcome: Fault, Err: err}
}

// acceptance tells whether Clerk lists the invitation of a row that has run out as
// accepted. Without it that is not asked.
type acceptance func(ctx context.Context, row *Member) (bool, error)

func (s *Service) resolveUser(ctx context.Context, u *User, accepted acceptance) ([]*Member, error) {
	emails := u.verifiedEmails()
	if len(emails) == 0 {
		return nil, nil
	}
	rows, err := s.store.Find(ctx, Query{Emails: emails, UserIDs: []string{u.ID}})
	if err != nil {
		return nil, err
	}
	return s.resolve(ctx, u, rows, accepted)
}

// resolve makes the rows that wait for u active. rows are those that wait for one of
// its addresses and those that are active under its id.
func (s *Service) resolve(ctx context.Context, u *User, rows []*Member, accepted acceptance) ([]*Member, error) {
	var changed []*Member
	for range 10 {
		changes, later, unproven := s.resolutions(ctx, u, rows, accepted)
		results, err := s.apply(ctx, s.store, changes)
		if err != nil {
			return changed, err
		}
		again := len(later) > 0
		for _, r := range results {
			switch {
			case r.Err == nil:
				changed = append(changed, r.Member)
			case errors.Is(r.Err, ErrConflict), errors.Is(r.Err, ErrUserTaken):
				again = true // somebody moved it meanwhile: look at it anew
			default:
				return changed, r.Err
			}
		}
		if !again {
			return changed, unproven
		}
		if rows, err = s.store.Find(ctx, Query{Emails: u.verifiedEmails(), UserIDs: []string{u.ID}}); err != nil {
			return changed, err
		}
	}
	return changed, fmt.Errorf("clerkinvite: resolve user %s: %w", u.ID, ErrConflict)
}

// resolutions decides which rows become u's. later are those that end because another
// becomes active: they are to be decided anew when that has been written, for if it is
// not, they are the next. A tenant with a row for which Clerk could not be asked is left
// out, and holds up no other.
func (s *Service) resolutions(ctx context.Context, u *User, rows []*Member, accepted acceptance) (changes, later []Change, unproven error) {
	if u.Banned {
		return nil, nil, nil
	}
	verified, primary, now := u.verifiedEmails(), u.primaryEmail(), s.now()
	// By tenant; in each tenant the one that is or becomes active comes first.
	rows = slices.SortedFunc(slices.Values(rows), func(a, b *Member) int {
		return cmp.Or(
			cmp.Compare(a.TenantID, b.TenantID),
			-compareBool(a.Status == StatusActive, b.Status == StatusActive),
			-compareBool(a.Email == primary, b.Email == primary),
			a.ReservedAt.Compare(b.ReservedAt),
			cmp.Compare(a.ID, b.ID),
		)
	})
	tenant, taken, joins, unknown := "", false, false, false
	for _, row := range rows {
		if row.TenantID != tenant {
			tenant, taken, joins, unknown = row.TenantID, false, false, false
		}
		if row.Status == StatusActive && row.ClerkUserID == u.ID {
			taken = true
			continue
		}
		if unknown || !row.Status.Waits() || !slices.Contains(verified, row.Email) {
			continue
		}
		if row.overdue(now) {
			proven, err := u.createdWhileValid(row), error(nil)
			if !proven && accepted != nil && row.InvitationID != "" {
				proven, err = accepted(ctx, row)
			}
			if err != nil {
				// Which row of this tenant is the member cannot be said before that is known.
				unproven, unknown = err, true
			}
			if !proven {
				continue
			}
		}
		switch second := (Change{row, ended(*row, StatusRemoved, ReasonSecondAddress, now)}); {
		case !taken && !joins:
			changes = append(changes, Change{row, joined(*row, u.ID, now)})
			joins = true
		case row.Status == StatusExpired:
		case taken:
			changes = append(changes, second)
		default:
			later = append(later, second)
		}
	}
	return changes, later, unproven
}

// sameSet reports whether two lists hold the same.
func sameSet(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) }) &&
		!slices.ContainsFunc(b, func(s string) bool { return !slices.Contains(a, s) })
}

// createdWhileValid reports whether u was created while the invitation of row was valid,
// both by Clerk's clock: then u joined in time although it has run out by now.
func (u *User) createdWhileValid(row *Member) bool {
	return row.InvitedAt != nil && row.ExpiresAt != nil && !u.CreatedAt.Before(*row.InvitedAt) && !u.CreatedAt.After(*row.ExpiresAt)
}

// accepted asks Clerk whether the invitation of row was accepted.
func (s *Service) accepted(ctx context.Context, row *Member) (bool, error) {
	list, err := s.listInvitations(ctx, row.Email, InvitationAccepted)
	if err != nil {
		return false, s.clerkError(ctx, "list invitations", err)
	}
	return slices.ContainsFunc(list, func(inv Invitation) bool { return inv.ID == row.InvitationID }), nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
