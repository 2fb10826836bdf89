package clerkinvite

import (
	"context"
	"errors"
	"time"
)

// doubtAge is how old a row must be before Invite checks a duplicate at Clerk. Run reconciles every hour,
// so younger rows are rarely out of date.
const doubtAge = 24 * time.Hour

// doubtful reports whether the row is so old that it may differ from Clerk.
func (m Member) doubtful(now time.Time) bool {
	return (m.Status == StatusPending || m.Status == StatusActive) && !m.Due() && !m.held(now) && now.Sub(m.UpdatedAt) >= doubtAge
}

// clearStaleDuplicate handles a member that blocks an invitation as a duplicate. If the row may be out of
// date, it asks Clerk and changes the row as Reconcile would. It reports whether the address can be
// invited now, which is false if Clerk fails.
func (s *Service) clearStaleDuplicate(ctx context.Context, row *Member) bool {
	if !row.doubtful(s.now()) {
		return false
	}
	// Writing UpdatedAt before asking Clerk limits this to one check a day per member, regardless of the
	// number of callers and of Clerk's response.
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

// changeOne applies one change.
func (s *Service) changeOne(ctx context.Context, row *Member, next Member) (*Member, error) {
	results, err := s.apply(ctx, s.store, []Change{{row, &next}})
	if err != nil {
		return nil, err
	}
	return results[0].Member, results[0].Err
}

// listedAsEnded returns the pending row in its new state if Clerk lists its invitation as ended, and nil
// otherwise. An invitation that is missing from the list may still exist.
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

// addressGivenUp reads an active member's user from Clerk. If the user has given up the member's address,
// the member gets the user's new address. If the user was deleted, userReplaced decides. It reports whether
// the address is free.
func (s *Service) addressGivenUp(ctx context.Context, row *Member) bool {
	if !clerkID.MatchString(row.ClerkUserID) {
		return false // imported with an ID that Clerk cannot have
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

// userReplaced removes an active member whose user was deleted if another user has verified the address. It
// first runs Reconcile's check of the secret key, because another Clerk instance does not know the user.
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
