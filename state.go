package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// moves is the table of allowed moves; everything that changes a status goes
// through apply, which asks it. What stays in its state is no move: a claim, a
// release, a postponed attempt, a resend, a corrected role.
var moves = map[Status][]Status{
	StatusReserved: {StatusPending, StatusActive, StatusFailed, StatusRevoked, StatusRemoved},
	StatusPending:  {StatusActive, StatusExpired, StatusRevoked, StatusRemoved, StatusReserved},
	StatusActive:   {StatusRemoved},
	StatusFailed:   {StatusReserved},
	StatusRevoked:  {StatusReserved},
	StatusExpired:  {StatusReserved, StatusActive},
	StatusRemoved:  {StatusReserved},
}

// Reasons of the library's own. Besides these, Reason holds codes of Clerk's.
const (
	ReasonUserBanned    = "user_banned"    // failed: the Clerk user who holds the address verified is banned
	ReasonUserDeleted   = "user_deleted"   // removed: the Clerk user was deleted
	ReasonSecondAddress = "second_address" // removed: the same user is in the tenant under another address
	ReasonAtClerk       = "revoked_at_clerk"
)

// allowed reports whether a member may go from one state to another.
func allowed(from, to Status) bool { return from == to || slices.Contains(moves[from], to) }

// apply makes changes, one Result each, in order. A change that the table does not
// know becomes a *TransitionError and is not made. One without New erases the row.
func (s *Service) apply(ctx context.Context, st TxStore, changes []Change) ([]Result, error) {
	results := make([]Result, len(changes))
	var legal []Change
	var at []int
	for i, c := range changes {
		if c.New != nil {
			if !allowed(c.Old.Status, c.New.Status) {
				results[i].Err = &TransitionError{c.Old.Status, c.New.Status}
				continue
			}
			c.New.UpdatedAt = s.now()
		}
		legal, at = append(legal, c), append(at, i)
	}
	if len(legal) == 0 {
		return results, nil
	}
	made, err := st.Update(ctx, legal)
	if err != nil {
		return nil, err
	}
	for i, r := range made {
		results[at[i]] = r
		switch {
		case r.Err != nil || !legal[i].Recorded():
		case legal[i].New == nil:
			s.moved(ctx, legal[i].Old.Status, "")
			s.log.InfoContext(ctx, "member erased", "member", *legal[i].Old)
		default:
			s.moved(ctx, legal[i].Old.Status, r.Member.Status)
			s.log.InfoContext(ctx, "member moved", "from", legal[i].Old.Status, "member", *r.Member)
		}
	}
	return results, nil
}

// change reads a member, makes of it what next says, and does both again while somebody
// else is faster. next may leave the member as it is by returning it, or fail.
func (s *Service) change(ctx context.Context, ref Ref, next func(row *Member) (*Member, error)) (was, now *Member, err error) {
	for range 10 {
		row, err := s.get(ctx, ref)
		if err != nil {
			return nil, nil, err
		}
		made, err := next(row)
		if err != nil || made == row {
			return row, made, err
		}
		done, err := s.apply(ctx, s.store, []Change{{row, made}})
		if err != nil {
			return row, nil, err
		}
		if !errors.Is(done[0].Err, ErrConflict) {
			return row, done[0].Member, done[0].Err
		}
	}
	return nil, nil, ErrConflict
}

// The functions below build the New of a Change from the row as it was read.

// released gives up a claim under which nothing was sent: as if it had not been made.
func released(m Member, due time.Time) *Member {
	m.Attempts--
	m.ClaimedUntil, m.NextAttemptAt = nil, &due
	return &m
}

// postponed ends an attempt that certainly had no effect.
func postponed(m Member, due time.Time, reason string) *Member {
	m.ClaimedUntil, m.NextAttemptAt, m.Reason = nil, &due, clip(reason)
	return &m
}

// settled ends delivery in the given state.
func settled(m Member, to Status, now time.Time) *Member {
	m.Status, m.Sent, m.SettledAt = to, m.Send, &now
	m.ClaimedUntil, m.NextAttemptAt, m.URL, m.Reason = nil, nil, Secret{}, ""
	if to != StatusPending {
		m.ClerkUserID = ""
	}
	return &m
}

// invited settles the row as pending on inv. The link is kept only for a host that
// mails it itself.
func invited(m Member, inv *Invitation, p clerkParams, now time.Time) *Member {
	n := settled(m, StatusPending, now)
	n.InvitationID, n.ClerkUserID = inv.ID, PendingID(inv.ID)
	created := now // near enough, where Clerk's answer has no time that can be read
	if !inv.CreatedAt.IsZero() {
		created = inv.CreatedAt.UTC().Truncate(time.Microsecond)
	}
	n.InvitedAt = &created
	n.ExpiresAt = nil
	switch {
	case inv.ExpiresAt != nil:
		at := inv.ExpiresAt.UTC().Truncate(time.Microsecond)
		n.ExpiresAt = &at
	case p.ExpiresInDays > 0:
		// Clerk's description lets expires_at be missing; then it is what was asked for.
		at := created.AddDate(0, 0, p.ExpiresInDays)
		n.ExpiresAt = &at
	}
	if p.SkipEmail {
		n.URL = inv.URL
	}
	return n
}

// joined makes the row the active member that is the Clerk user.
func joined(m Member, userID string, now time.Time) *Member {
	n := settled(m, StatusActive, now)
	n.ClerkUserID = userID
	return n
}

// ended settles the row in a state that keeps it for the record only.
func ended(m Member, to Status, reason string, now time.Time) *Member {
	n := settled(m, to, now)
	n.Reason = clip(reason)
	return n
}

// clip keeps a code that Clerk sent from being a novel, and from holding an address:
// reasons are stored and logged.
func clip(reason string) string {
	reason = scrub.Line(reason)
	return strings.ToValidUTF8(reason[:min(len(reason), 255)], "")
}

// backoff is the time from one attempt to the next: the lease, doubled with each
// attempt, an hour at most.
func (s *Service) backoff(attempts int) time.Duration {
	d := s.cfg.Lease
	for range attempts - 1 {
		if d *= 2; d >= time.Hour {
			return max(time.Hour, s.cfg.Lease)
		}
	}
	return d
}
