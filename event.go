package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// Types of the events that [Service.HandleEvent] acts on. It ignores all others.
const (
	EventUserCreated = "user.created"
	EventUserUpdated = "user.updated"
	EventUserDeleted = "user.deleted"

	EventOrganizationInvitationAccepted = "organizationInvitation.accepted"
	EventOrganizationInvitationRevoked  = "organizationInvitation.revoked"
	EventOrganizationMembershipCreated  = "organizationMembership.created"
	EventOrganizationMembershipUpdated  = "organizationMembership.updated"
	EventOrganizationMembershipDeleted  = "organizationMembership.deleted"
)

// ErrUnconfirmed means that Clerk's API does not show what an event reports. The event is less than two
// minutes old, so the API may still lag. HTTP 503. Deliver the event again in a few seconds.
var ErrUnconfirmed error = &statusError{http.StatusServiceUnavailable, "Clerk does not confirm the event yet"}

// freshEvent is the age up to which Clerk's API may lag behind an event.
const freshEvent = 2 * time.Minute

// Event is a Clerk webhook event, reduced to the fields that the library uses. Only [ParseEvent] and
// [WebhookVerifier.Verify] set all of them, so to queue an event, store its payload. It prints and logs
// without addresses.
type Event struct {
	ID         string    // svix-id, the same in every retry; empty from ParseEvent
	Type       string    // EventUserCreated or any other type
	InstanceID string    // the Clerk instance, ins_…
	Timestamp  time.Time // when it happened; zero if Clerk did not say

	UserID string // can be empty
	User   *User  // the user at the time of the event, for user.created and user.updated; otherwise nil

	OrganizationID string // of organizationInvitation.… and organizationMembership.… events
	InvitationID   string // of organizationInvitation.… events

	memberID string // from the marker of our invitations, which Clerk copies to the membership
	email    string // normalised; of the invitation, or that the member signs in with
}

// ParseEvent parses an event without verifying a signature. Use it only if the signature
// has been verified elsewhere. It does not parse the data of unknown types.
//
// Errors: [ErrBadEvent], with a reason that contains nothing from the payload. ParseEvent is
// safe for concurrent use and safe to retry.
func ParseEvent(payload []byte) (*Event, error) {
	ev, err := parseEvent(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadEvent, err)
	}
	return ev, nil
}

func parseEvent(payload []byte) (*Event, error) {
	envelope := wire.Parse(payload)
	ev := &Event{Type: envelope.Text("type"), InstanceID: envelope.ID("instance_id"), Timestamp: envelope.Time("timestamp")}
	data := envelope.Object("data")
	switch {
	case envelope == nil:
		return nil, errors.New("the payload is not a JSON object")
	case !eventType.MatchString(ev.Type):
		return nil, errors.New("type is not an event type")
	}
	switch ev.Type {
	case EventUserCreated, EventUserUpdated:
		u, ok := data.User()
		if !ok {
			return nil, errors.New("data.id is not a user ID")
		}
		ev.UserID = u.ID
		ev.User = &User{
			ID: u.ID, PrimaryEmailID: u.PrimaryEmailID, Incomplete: u.Incomplete, CreatedAt: u.CreatedAt,
			Banned: u.Banned, Deprovisioned: u.Deprovisioned, Locked: u.Locked, LockEndsIn: u.LockEndsIn,
		}
		for _, e := range u.Emails {
			ev.User.Emails = append(ev.User.Emails, UserEmail(e))
		}
	case EventUserDeleted:
		ev.UserID = data.ID("id")
		if ev.UserID == "" && (data.Has("id") || data == nil && envelope.Has("data")) {
			return nil, errors.New("data.id is not a user ID")
		}
	case EventOrganizationInvitationAccepted, EventOrganizationInvitationRevoked:
		ev.UserID, ev.OrganizationID, ev.InvitationID = data.ID("user_id"), data.ID("organization_id"), data.ID("id")
		ev.email, _ = normalizeEmail(data.Text("email_address"))
	case EventOrganizationMembershipCreated, EventOrganizationMembershipUpdated, EventOrganizationMembershipDeleted:
		u := data.Object("public_user_data")
		ev.UserID, ev.OrganizationID = u.ID("user_id"), data.Object("organization").ID("id")
		ev.email, _ = normalizeEmail(u.Text("identifier"))
	}
	if ev.OrganizationID != "" {
		marked := Invitation{PublicMetadata: data["public_metadata"]}
		m, _ := marked.mark()
		ev.memberID = m.ID
	}
	return ev, nil
}

// HandleEvent applies a verified webhook, and returns the members that it changed, in all tenants.
//
// HandleEvent does not trust the event. It reads the user from Clerk and acts on the response, so
// replayed, old and unordered events do no harm. It does so in these cases:
//
//   - A member waits for one of the event's verified addresses.
//   - The event says that an active member's user was deleted, or has given up the member's address.
//   - The event concerns a member of an organization. It then also reads the invitation or the membership.
//
// It ignores all other events.
//
// Clerk's API can lag behind its events. If it contradicts an event, and the event's Timestamp is less
// than two minutes old, HandleEvent returns [ErrUnconfirmed]. It ignores a contradicted event that is
// older or has no Timestamp.
//
// Errors: [ErrUnconfirmed]; *[ClerkInvitationError] if Clerk fails; [ErrConflict] if other processes
// keep changing a row; the context's and the store's error, unchanged. After an error, deliver the event
// again. HandleEvent is safe for concurrent use and safe to retry.
func (s *Service) HandleEvent(ctx context.Context, e *Event) (_ []*Member, err error) {
	ctx, op := s.observe(ctx, "HandleEvent")
	defer op.end(&err)
	switch {
	case e != nil && e.OrganizationID != "" && s.cfg.Organizations != nil:
		return s.organizationEvent(ctx, e)
	case e == nil || e.UserID == "":
		return nil, nil
	case e.Type == EventUserDeleted:
	case e.User == nil || e.Type != EventUserCreated && e.Type != EventUserUpdated:
		return nil, nil
	}
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	if e.Type == EventUserDeleted {
		return s.userLeft(ctx, e, ReasonUserDeleted)
	}
	rows, err := s.rowsOf(ctx, e.User)
	if err != nil || !slices.ContainsFunc(rows, func(m *Member) bool { return m.Status.Waits() || e.User.gaveUp(m) }) {
		return nil, err
	}
	u, err := s.readUser(ctx, e.UserID)
	if errors.Is(err, ErrNotFound) {
		return nil, s.unconfirmed(ctx, e) // deleted since, not shown yet, or the dashboard's example event
	}
	if err != nil {
		return nil, err
	}
	found := rows
	if !sameVerified(u, e.User) { // the event or the response is out of date, so other rows may wait for u
		if found, err = s.rowsOf(ctx, u); err != nil {
			return nil, err
		}
	}
	changed, err := s.resolve(ctx, u, found, askClerk())
	if err == nil && !u.confirms(e.User, rows) {
		err = s.unconfirmed(ctx, e)
	}
	return changed, err
}

// sameVerified reports whether a and b have verified the same addresses.
func sameVerified(a, b *User) bool {
	x, y := a.verifiedEmails(), b.verifiedEmails()
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// unconfirmed returns ErrUnconfirmed for an event that Clerk contradicts, or nil if the event is too old
// to wait for Clerk. The age comes from the event's Timestamp, because Svix puts a new time on each delivery.
// If the store's clock cannot be read, the age is unknown, and Svix must deliver the event again.
func (s *Service) unconfirmed(ctx context.Context, e *Event) error {
	if err := s.setClock(ctx, s.store); err != nil { // Config.Now may have been set since HandleEvent began
		return err
	}
	if e.Timestamp.IsZero() || s.now().Sub(e.Timestamp).Abs() >= freshEvent {
		return nil
	}
	return ErrUnconfirmed
}

// confirms reports whether u, as read from Clerk, agrees with event about the waiting rows and about the
// addresses of u's active rows.
func (u *User) confirms(event *User, rows []*Member) bool {
	return !slices.ContainsFunc(rows, func(row *Member) bool {
		if event.gaveUp(row) {
			return !u.gaveUp(row)
		}
		joins := !event.isBarred() && row.Status.Waits() && event.hasVerified(row.Email)
		return joins && (u.isBarred() || !u.hasVerified(row.Email))
	})
}

// userLeft removes the active members of an event's user, if Clerk confirms the event: all of them if the user
// was deleted, or those of the organization that the user has left.
func (s *Service) userLeft(ctx context.Context, e *Event, reason string) (changed []*Member, err error) {
	for range 10 {
		rows, err := s.store.Find(ctx, Query{UserIDs: []string{e.UserID}})
		if e.OrganizationID != "" {
			rows = filter(rows, func(row *Member) bool { return row.organization() == e.OrganizationID })
		}
		if err != nil || len(rows) == 0 {
			return changed, err
		}
		left, err := s.confirmsLeft(ctx, e, rows)
		if err != nil {
			return changed, err
		}
		if !left {
			return changed, s.unconfirmed(ctx, e)
		}
		changes := make([]Change, len(rows))
		for i, row := range rows {
			changes[i] = Change{row, asEnded(*row, StatusRemoved, reason, s.now())}
		}
		done, retry, err := s.applyEach(ctx, changes)
		if changed = append(changed, done...); err != nil || !retry {
			return changed, err
		}
	}
	return changed, fmt.Errorf("clerkinvite: user %s: %s: %w", e.UserID, reason, ErrConflict)
}

// confirmsLeft reports whether Clerk confirms that the user was deleted or has left the organization. rows are the
// members that the event would remove.
func (s *Service) confirmsLeft(ctx context.Context, e *Event, rows []*Member) (bool, error) {
	if e.OrganizationID == "" {
		return s.userGone(ctx, e.UserID)
	}
	if slices.ContainsFunc(rows, func(row *Member) bool { return row.isFresh(s.now()) }) {
		return false, nil // the event may be about an earlier membership, and Clerk may not show the new one yet
	}
	members, err := s.findMembers(ctx, e.OrganizationID, []string{e.UserID})
	switch {
	case saysNotFound(err), codeOf(err) == codeUnknownOrganization:
		// The organization was deleted, or the key is another instance's, which does not know the user.
		gone, err := s.userGone(ctx, e.UserID)
		return err == nil && !gone, err
	case err != nil:
		return false, s.clerkError(ctx, "find memberships", err)
	}
	return members[e.UserID] == nil, nil
}

// organizationEvent handles an event of an organization. It asks Clerk only if the event concerns a row
// for that organization.
func (s *Service) organizationEvent(ctx context.Context, e *Event) ([]*Member, error) {
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	if e.Type == EventOrganizationMembershipDeleted {
		return s.userLeft(ctx, e, ReasonLeftOrganization)
	}
	rows, err := s.rowsOfEvent(ctx, e)
	if err != nil {
		return nil, err
	}
	switch e.Type {
	case EventOrganizationInvitationAccepted, EventOrganizationMembershipCreated, EventOrganizationMembershipUpdated:
		if slices.ContainsFunc(rows, func(row *Member) bool { return row.Status.Waits() }) && e.UserID != "" {
			return s.joinedOrganization(ctx, e)
		}
	case EventOrganizationInvitationRevoked:
		return s.revokedInOrganization(ctx, e, rows)
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

// joinedOrganization resolves the user of an event. The event is unconfirmed if Clerk does not show the membership
// that one of the user's rows still waits for.
func (s *Service) joinedOrganization(ctx context.Context, e *Event) ([]*Member, error) {
	u, err := s.readUser(ctx, e.UserID)
	if errors.Is(err, ErrNotFound) {
		return nil, s.unconfirmed(ctx, e)
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.rowsOf(ctx, u) // another event may have activated the member in the meantime
	if err != nil {
		return nil, err
	}
	p := askClerk()
	changed, err := s.resolve(ctx, u, rows, p)
	if err == nil && slices.ContainsFunc(rows, func(row *Member) bool {
		return row.organization() == e.OrganizationID && row.Status.Waits() && u.hasVerified(row.Email) && !u.isBarred() && !p.isMember(u, row)
	}) {
		err = s.unconfirmed(ctx, e)
	}
	return changed, err
}

// revokedInOrganization revokes the members whose invitation was revoked at Clerk. It returns the first error.
func (s *Service) revokedInOrganization(ctx context.Context, e *Event, rows []*Member) (changed []*Member, err error) {
	for _, row := range rows {
		if row.Status != StatusPending || row.InvitationID != e.InvitationID || row.Due() { // a resend revokes the older one itself
			continue
		}
		now, rowErr := s.revokedAtClerk(ctx, e, row)
		if now != nil {
			changed = append(changed, now)
		}
		err = cmp.Or(err, rowErr)
	}
	return changed, err
}

// revokedAtClerk revokes the member of an event if Clerk lists its invitation as revoked. It returns nil if another process
// was faster.
func (s *Service) revokedAtClerk(ctx context.Context, e *Event, row *Member) (*Member, error) {
	list, err := s.listAll(ctx, row)
	if err != nil {
		return nil, s.clerkError(ctx, "list invitations", err)
	}
	next := listedAsEnded(row, list, s.now())
	if next == nil {
		return nil, s.unconfirmed(ctx, e)
	}
	now, err := s.changeOne(ctx, row, next)
	switch {
	case errors.Is(err, ErrConflict):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return now, nil
}
