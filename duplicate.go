package clerkinvite

import (
	"context"
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
		return s.userReplaced(ctx, row)
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

// userReplaced removes an active member whose user was deleted, if another user holds the address
// verified now. Only Reconcile's checks tell that the secret key is not another instance's.
func (s *Service) userReplaced(ctx context.Context, row *Member) bool {
	users, err := s.findHolders(ctx, row.Email)
	u := holder(users, row.Email)
	if err == nil && (u == nil || u.ID == row.ClerkUserID || !clerkID.MatchString(row.ClerkUserID)) {
		return false
	}
	r := s.newReconciliation()
	if r.missing = []*Member{row}; err == nil {
		err = r.checkKey(ctx)
	}
	if err == nil {
		err = r.removeMissing(ctx)
	}
	if err != nil {
		s.log.WarnContext(ctx, "duplicate not checked", "member", *row, "cause", logError(err))
	}
	return r.report.Removed > 0
}
