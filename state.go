package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// To add a status, change Statuses, Status.Waits, transitions, Member.Due in store.go, the rules of
// clerkinvitetest.MemoryStore, and the model in internal/model/protocol. In migrations/ and
// sqlitestore/migrations/, change the CHECK constraints and the conditions of the partial
// indexes, which the statements repeat. Then check each use of the other statuses.

// Status is the state of a member. docs/architecture.md has the table of state changes.
type Status string

const (
	StatusReserved Status = "reserved" // Clerk was not called yet, the call failed, or the response was lost
	StatusPending  Status = "pending"  // invited; ClerkUserID is "pending_" + InvitationID
	StatusActive   Status = "active"   // a Clerk user; ClerkUserID is that user's ID
	StatusFailed   Status = "failed"   // Clerk refused this person, or Config.WithdrawOnFailure withdrew the invitation; Reason says why
	StatusRevoked  Status = "revoked"  // the invitation was revoked
	StatusExpired  Status = "expired"  // the invitation expired
	StatusRemoved  Status = "removed"  // no longer in the tenant; Reason says why
)

// Statuses returns all states, in the order of the constants.
func Statuses() []Status {
	return []Status{StatusReserved, StatusPending, StatusActive, StatusFailed, StatusRevoked, StatusExpired, StatusRemoved}
}

// Waits reports whether a member in this state (reserved, pending or expired) can become active
// when a user verifies the member's address.
func (s Status) Waits() bool {
	return s == StatusReserved || s == StatusPending || s == StatusExpired
}

// transitions is the table of allowed state changes. A new member is reserved or, if created by Adopt,
// pending or active. apply checks every change against this table. Claims, releases, postponed attempts,
// resends, and changes of role or address do not change the state.
var transitions = map[Status][]Status{
	StatusReserved: {StatusPending, StatusActive, StatusFailed, StatusRevoked, StatusExpired, StatusRemoved},
	StatusPending:  {StatusActive, StatusExpired, StatusRevoked, StatusRemoved, StatusReserved},
	StatusActive:   {StatusRemoved},
	StatusFailed:   {StatusReserved},
	StatusRevoked:  {StatusReserved},
	StatusExpired:  {StatusReserved, StatusActive, StatusRevoked, StatusRemoved},
	StatusRemoved:  {StatusReserved},
}

// Reasons that this library sets. Other values of Member.Reason are Clerk's error codes. If the new invitation of a Resend
// is refused or withdrawn, the member has the same reason but is not failed: it stays pending with the older invitation or,
// in an organization that has lost it, becomes revoked. A member that still waits has the reason of the last
// attempt that was not limited and whose effect is known.
const (
	ReasonUserBanned        = "user_banned"        // failed: the Clerk user with this address is banned
	ReasonUserDeprovisioned = "user_deprovisioned" // failed: the Clerk user with this address is deprovisioned
	ReasonUserLocked        = "user_locked"        // failed: the Clerk user with this address is locked; reserved, pending: retried when the lock ends, or after an hour
	ReasonUserDeleted       = "user_deleted"       // removed: the Clerk user was deleted
	ReasonSecondAddress     = "second_address"     // removed: the same user is in the tenant under another address
	ReasonRevokedAtClerk    = "revoked_at_clerk"   // revoked: the invitation was revoked at Clerk
	ReasonWithdrawn         = "withdrawn"          // failed: not sent, because Config.WithdrawOnFailure is set
	ReasonBulkRejected      = "bulk_rejected"      // reserved, pending: to be retried, after Clerk rejected the bulk request with this member
	ReasonAdopted           = "adopted"            // pending, active: unchanged since Adopt
	ReasonLeftOrganization  = "left_organization"  // removed: the user has left the organization, or was removed from it
	ReasonOrganizationFull  = "organization_full"  // failed: the organization has no free seat
	ReasonUnavailable       = "unavailable"        // reserved, pending: to be retried, after a request to Clerk failed without a code
	ReasonRejected          = "rejected"           // reserved, pending: to be retried, after Clerk, a firewall or the ClerkAPI rejected a request without a code; failed: rejected repeatedly
)

// allowed reports whether a member may change from one state to another.
func allowed(from, to Status) bool { return from == to || slices.Contains(transitions[from], to) }

// keepsActive reports whether the member is active before and after the change. Only an active member's
// address can change, because Clerk may have an invitation for any other member's address.
func (c Change) keepsActive() bool {
	return c.Old.Status == StatusActive && c.New.Status == StatusActive
}

// apply writes changes, and returns one Result per change, in order. A change that the table does not
// allow gets a *TransitionError. A change without New erases the row. Recorded changes get the actor of
// ctx.
func (s *Service) apply(ctx context.Context, st TxStore, changes []Change) ([]Result, error) {
	results := make([]Result, len(changes))
	var legal []Change
	var at []int // index in changes of each legal change
	for i, c := range changes {
		if c.New != nil {
			if !allowed(c.Old.Status, c.New.Status) || c.Old.Email != c.New.Email && !c.keepsActive() {
				results[i].Err = &TransitionError{c.Old.Status, c.New.Status}
				continue
			}
			c.New.UpdatedAt = s.now()
			if c.Recorded() {
				c.New.ChangedBy = actor(ctx)
			}
		}
		legal, at = append(legal, c), append(at, i)
	}
	if len(legal) == 0 {
		return results, nil
	}
	updated, err := st.Update(ctx, legal)
	if err != nil {
		return nil, err
	}
	for i, r := range updated {
		results[at[i]] = r
		switch {
		case r.Err != nil || !legal[i].Recorded():
		case legal[i].New == nil:
			s.stateChanged(ctx, legal[i].Old.Status, "")
			s.log.InfoContext(ctx, "member erased", "member", *legal[i].Old)
		default:
			s.stateChanged(ctx, legal[i].Old.Status, r.Member.Status)
			s.log.InfoContext(ctx, "member changed", "from", legal[i].Old.Status, "member", *r.Member)
		}
	}
	return results, nil
}

// writeTime limits applyBounded.
const writeTime = 15 * time.Second

// applyBounded is apply with a time limit, for changes of several tenants. Without the limit, a hook that
// blocks for one tenant would block the others forever. A PgxStore divides the time among the changes.
func (s *Service) applyBounded(ctx context.Context, changes []Change) ([]Result, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	return s.apply(ctx, s.store, changes)
}

// change reads a member, calls next for the new version of its row, and writes that version. If another process
// changes the row first, or next returns nil, change starts again. next can return the row itself to leave it unchanged.
func (s *Service) change(ctx context.Context, ref Ref, next func(row *Member) (*Member, error)) (now *Member, err error) {
	for range 10 {
		row, err := s.get(ctx, ref)
		if err != nil {
			return nil, err
		}
		ref = row.refByID() // in the next round, ref may no longer identify this member
		wanted, err := next(row)
		if err != nil || wanted == row {
			return wanted, err
		}
		if wanted == nil {
			continue
		}
		now, err = s.changeOne(ctx, row, wanted)
		if !errors.Is(err, ErrConflict) {
			return now, err
		}
	}
	return nil, ErrConflict
}

// changeOne writes one change. Without next it erases the row.
func (s *Service) changeOne(ctx context.Context, row, next *Member) (*Member, error) {
	results, err := s.apply(ctx, s.store, []Change{{row, next}})
	if err != nil {
		return nil, err
	}
	return results[0].Member, results[0].Err
}

// An invitation with only one attempt gets another if Clerk has rejected the attempt's bulk request, because that decided
// nothing. The row's reason says so.

func (m Member) allowsAnotherAttempt() bool { return m.Reason == ReasonBulkRejected }

func withAnotherAttempt(m Member) Member {
	m.Reason = ReasonBulkRejected
	return m
}

func withoutAnotherAttempt(m Member) Member {
	if m.allowsAnotherAttempt() {
		m.Reason = ""
	}
	return m
}

// mayHaveEffect reports whether an attempt may have had an effect at Clerk that the row does not show: an invitation or a
// membership. Call it only while no attempt owns the row. ClaimedUntil is then the end of a lease whose result was not
// saved, or the flag that asReleased sets. Attempts > 0 excludes a row that an interrupted Purge has claimed.
func (m Member) mayHaveEffect() bool { return m.ClaimedUntil != nil && m.Attempts > 0 }

// The functions below return Change.New for a row.

// asReleased releases the claim.
func asReleased(m Member, due time.Time, mayHaveEffect bool) *Member {
	m.ClaimedUntil, m.NextAttemptAt = nil, &due
	if mayHaveEffect {
		past := m.UpdatedAt // certainly past, so it is only the flag
		m.ClaimedUntil = &past
	}
	return &m
}

// asSettled completes the send in the given state.
func asSettled(m Member, to Status, now time.Time) *Member {
	m.Status, m.Sent, m.SettledAt = to, m.Send, &now
	m.ClaimedUntil, m.NextAttemptAt, m.URL, m.Reason = nil, nil, Secret{}, ""
	if to != StatusPending {
		m.ClerkUserID = ""
	}
	return &m
}

// maxInvitationID and maxLink are the largest sizes that a row can store, in bytes.
const (
	maxInvitationID = 247
	maxLink         = 16 << 10
)

// hasID reports whether Clerk's response has an ID that a row can store. Without it, the invitation
// cannot be revoked.
func (inv *Invitation) hasID() bool {
	return clerkID.MatchString(inv.ID) && len(inv.ID) <= maxInvitationID
}

// asInvited completes the send as pending on inv. The link is stored only if the host emails it.
func asInvited(m Member, inv *Invitation, p clerkParams, now time.Time) *Member {
	n := asSettled(m, StatusPending, now)
	n.InvitationID, n.ClerkUserID = inv.ID, PendingID(inv.ID)
	created := now // fallback if Clerk's response has no readable time
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
		// expires_at is optional in Clerk's OpenAPI description.
		at := created.AddDate(0, 0, p.ExpiresInDays)
		n.ExpiresAt = &at
	}
	if link := inv.URL.Reveal(); p.SkipEmail && len(link) <= maxLink && !strings.Contains(link, "\x00") {
		n.URL = inv.URL
	}
	return n
}

// asJoined completes the send as active under the Clerk user's ID.
func asJoined(m Member, userID string, now time.Time) *Member {
	n := asSettled(m, StatusActive, now)
	n.ClerkUserID = userID
	return n
}

// asEnded completes the send in a final state.
func asEnded(m Member, to Status, reason string, now time.Time) *Member {
	n := asSettled(m, to, now)
	n.Reason = clip(reason)
	return n
}

// asEndedAtClerk ends the row in the same way as its invitation at Clerk. It returns nil if the invitation
// is still open, was accepted, or has an unknown status.
func asEndedAtClerk(m *Member, status InvitationStatus, now time.Time) *Member {
	switch status {
	case InvitationRevoked:
		return asEnded(*m, StatusRevoked, ReasonRevokedAtClerk, now)
	case InvitationExpired:
		return asEnded(*m, StatusExpired, "", now)
	default:
		return nil
	}
}

// clip shortens a code from Clerk and removes addresses from it, because reasons are stored and logged.
func clip(reason string) string {
	reason = scrub.Line(reason)
	return strings.ToValidUTF8(reason[:min(len(reason), 255)], "")
}
