package clerkinvite

import (
	"context"
	"errors"
)

// An active member's address follows the user's address. When Clerk shows that the user has given up the
// member's address, the member gets the user's verified primary address, and the old address can be
// invited again. The history records the change, but not the addresses.

// left reports whether u is the user of row and has given up row's address. It returns false for a user
// without a verified address and for a user whose addresses are not all known, because neither proves that
// the address was given up.
func (u *User) left(row *Member) bool {
	return row.Status == StatusActive && row.ClerkUserID == u.ID && !u.Incomplete &&
		len(u.verifiedEmails()) > 0 && !u.holdsVerified(row.Email)
}

// verifiedPrimary returns the normalised primary address of u if u has verified it, or "".
func (u *User) verifiedPrimary() string {
	if primary := u.primaryEmail(); primary != "" && u.holdsVerified(primary) {
		return primary
	}
	return ""
}

// asMoved returns m with another address.
func asMoved(m Member, email string) *Member {
	m.Email = email
	return &m
}

// followAll calls follow for each row whose address u has given up. It returns the members that changed,
// and the first error.
func (s *Service) followAll(ctx context.Context, u *User, rows []*Member, ask bool) (changed []*Member, err error) {
	for _, row := range rows {
		if !u.left(row) {
			continue
		}
		now, rowErr := s.follow(ctx, u, row, ask)
		if now != nil && now.Email != row.Email {
			changed = append(changed, now)
		}
		if err == nil {
			err = rowErr
		}
	}
	return changed, err
}

// follow gives row the verified primary address of u. If that address is not verified, or another member
// of the tenant has it, follow returns the row with its old address. It returns nil if the row no longer
// exists. It calls Clerk only if ask is true.
func (s *Service) follow(ctx context.Context, u *User, row *Member, ask bool) (*Member, error) {
	for range 10 {
		if !u.left(row) { // another process may have changed the row
			return row, nil
		}
		email := u.verifiedPrimary()
		if email == "" {
			s.outdated(ctx, row, whyUnverified)
			return row, nil
		}
		now, err := s.changeOne(ctx, row, *asMoved(*row, email))
		switch {
		case err == nil:
			return now, nil
		case errors.Is(err, ErrConflict):
			rows, err := s.store.Find(ctx, Query{IDs: []string{row.ID}})
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			row = rows[0]
		case errors.Is(err, ErrEmailTaken):
			free, err := s.freeOwnAddress(ctx, row, email, ask)
			if err != nil || !free {
				return row, err
			}
		default:
			return row, err
		}
	}
	return row, ErrConflict
}

// freeOwnAddress erases the row that has the address if the row only records a second address of a
// member. It reports whether the address is free now.
func (s *Service) freeOwnAddress(ctx context.Context, row *Member, email string, ask bool) (bool, error) {
	ref := Ref{TenantID: row.TenantID, Email: email}
	other, err := s.get(ctx, ref)
	switch {
	case errors.Is(err, ErrNotFound):
		return true, nil
	case err != nil:
		return false, err
	case !other.isSecondAddress():
		s.outdated(ctx, row, whyTaken)
		return false, nil
	case !ask: // the next Reconcile erases it
		return false, nil
	}
	switch err = s.purge(ctx, ref, Member.isSecondAddress); {
	case err == nil, errors.Is(err, ErrNotFound):
		return true, nil
	case errors.Is(err, ErrConflict): // another process is erasing the row or inviting the address again
		return false, nil
	}
	return false, err
}

// isSecondAddress reports whether m was removed because its user is in the tenant under another address.
func (m Member) isSecondAddress() bool {
	return m.Status == StatusRemoved && m.Reason == ReasonSecondAddress
}

const (
	whyUnverified = "the user's primary address is not verified"
	whyTaken      = "another member of the tenant has the user's primary address"
)

// outdated logs that a member keeps an address that its user no longer has.
func (s *Service) outdated(ctx context.Context, row *Member, why string) {
	s.log.WarnContext(ctx, "address of a member is out of date", "member", *row, "why", why)
}
