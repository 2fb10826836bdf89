package clerkinvite

import (
	"context"
	"errors"
	"time"
)

// doubtAge is how long a member's row must be unchanged before Invite doubts it. Run reconciles every
// hour, so younger rows are seldom out of date.
const doubtAge = 24 * time.Hour

// doubtful reports whether Clerk may know by now that a duplicate is not what its row says.
func (m Member) doubtful(now time.Time) bool {
	return (m.Status == StatusPending || m.Status == StatusActive) && !m.Due() && !m.held(now) && now.Sub(m.UpdatedAt) >= doubtAge
}

// clearStaleDuplicate asks Clerk about a member that makes an invitation a duplicate, if its row may be out
// of date, and changes the row as Reconcile would. It reports whether the address can be invited now. If
// Clerk fails, it cannot.
func (s *Service) clearStaleDuplicate(ctx context.Context, row *Member) bool {
	if !row.doubtful(s.now()) {
		return false
	}
	// UpdatedAt is written before Clerk is asked, so that there is one look a day per member, however
	// many callers there are and whatever Clerk responds.
	row, err := s.changeOne(ctx, row, *row)
	if err != nil {
		return false
	}
	if row.Status == StatusActive {
		return s.addressGivenUp(ctx, row)
	}
	list, err := s.listAll(ctx, row.Email)
	if err != nil {
		s.log.WarnContext(ctx, "duplicate not checked", "member", *row, "cause", logError(err))
		return false
	}
	next := listedAsEnded(row, list, s.now())
	if next == nil {
		return false
	}
	_, err = s.changeOne(ctx, row, *next)
	return err == nil
}

// changeOne makes one change.
func (s *Service) changeOne(ctx context.Context, row *Member, next Member) (*Member, error) {
	results, err := s.apply(ctx, s.store, []Change{{row, &next}})
	if err != nil {
		return nil, err
	}
	return results[0].Member, results[0].Err
}

// listedAsEnded returns the pending row after its invitation has ended according to Clerk's list, or
// nil. An invitation that is not in the list may exist.
func listedAsEnded(row *Member, list []Invitation, now time.Time) (next *Member) {
	for i := range list {
		if m, ours := list[i].mark(); ours && m.ID == row.ID && m.Send > row.Send {
			return nil // the row is older than the invitation, as after restoring a backup
		}
		if list[i].ID == row.InvitationID {
			next = asEndedAtClerk(row, list[i].Status, now)
		}
	}
	return next
}

// addressGivenUp reads the user of an active member. If the user no longer has the address, the member
// follows the user; if the user was deleted, userReplaced decides. It reports whether the address is free.
func (s *Service) addressGivenUp(ctx context.Context, row *Member) bool {
	if !clerkID.MatchString(row.ClerkUserID) {
		return false // an imported row
	}
	u, err := s.readUser(ctx, row.ClerkUserID)
	free := false
	switch {
	case errors.Is(err, ErrNotFound):
		free, err = s.userReplaced(ctx, row)
	case err == nil:
		var now *Member
		now, err = s.follow(ctx, u, row, true)
		free = err == nil && (now == nil || now.Email != row.Email)
	}
	if err != nil {
		s.log.WarnContext(ctx, "duplicate not checked", "member", *row, "cause", logError(err))
	}
	return free
}

// userReplaced removes an active member whose user was deleted, if another user holds the address
// verified now. Only Reconcile's check tells that the secret key is not another instance's.
func (s *Service) userReplaced(ctx context.Context, row *Member) (bool, error) {
	users, err := s.findHolders(ctx, row.Email)
	if u := holder(users, row.Email); err != nil || u == nil || u.ID == row.ClerkUserID {
		return false, err
	}
	r := s.newReconciliation()
	if err := r.checkKey(ctx); err != nil || !r.at.Known {
		return false, err
	}
	_, err = s.changeOne(ctx, row, *asEnded(*row, StatusRemoved, ReasonUserDeleted, s.now()))
	return err == nil, err
}
