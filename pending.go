package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PendingPrefix is the prefix of a pending member's ClerkUserID.
const PendingPrefix = "pending_"

// PendingID returns the ClerkUserID of a member who is pending on this invitation.
func PendingID(invitationID string) string { return PendingPrefix + invitationID }

// IsPending reports whether a ClerkUserID refers to an invitation and not to a user.
func IsPending(clerkUserID string) bool { return strings.HasPrefix(clerkUserID, PendingPrefix) }

// InvitationID returns the invitation's ID in a pending ClerkUserID.
func InvitationID(clerkUserID string) (string, bool) {
	return strings.CutPrefix(clerkUserID, PendingPrefix)
}

// Resolve makes the members that wait for u active, in all tenants, and returns the members that it
// changed. u must have just been read from Clerk's Backend API, because its verified addresses are
// taken as proof. Resolve makes no request to Clerk, so it does not change members that wait for an
// organization; ResolveUser does.
//
// A member whose invitation has expired becomes active only if u was created while the invitation was
// valid. ([Service.ResolveUser] also accepts an older account if Clerk lists the invitation as
// accepted.) A banned, deprovisioned or locked user makes no member active. When a lock ends, resolve
// the user again or leave it to Reconcile.
//
// A user has one active member per tenant; the others become removed. Resolve chooses the first that
// exists of
//   - the member that is already active,
//   - the member with the user's primary address,
//   - the member with the earliest ReservedAt, which a Resend renews.
//
// If u has given up the address of an active member, the member gets u's verified primary address,
// unless another member of the tenant has it.
//
// Errors: *[InvalidParamsError]; [ErrConflict] if other processes keep changing a row; the context's
// and the store's error, unchanged. Resolve is safe for concurrent use and safe to retry.
func (s *Service) Resolve(ctx context.Context, u User) (_ []*Member, err error) {
	ctx, op := s.observe(ctx, "Resolve")
	defer op.end(&err)
	if !clerkID.MatchString(u.ID) {
		return nil, &InvalidParamsError{"User.ID", "must be a Clerk ID (user_…)"}
	}
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	return s.resolveUser(ctx, &u, proof{})
}

// ResolveUser reads the user from Clerk and resolves it as Resolve does. Call it at sign-in, so that
// members become active without waiting for a webhook. It makes one request, one more per address
// for members whose invitation has expired, and one more per organization that a member of this user waits for.
//
// Errors: *[InvalidParamsError]; [ErrNotFound] if Clerk has no such user;
// *[ClerkInvitationError] if Clerk fails; [ErrConflict] if other processes keep changing a row; the
// context's and the store's error, unchanged. ResolveUser is safe for concurrent use and safe to retry.
func (s *Service) ResolveUser(ctx context.Context, userID string) (_ []*Member, err error) {
	ctx, op := s.observe(ctx, "ResolveUser")
	defer op.end(&err)
	if !clerkID.MatchString(userID) {
		return nil, &InvalidParamsError{"userID", "must be a Clerk ID (user_…)"}
	}
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	u, err := s.readUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	return s.resolveUser(ctx, u, askClerk())
}

// readUser returns the user with the ID, or ErrNotFound if Clerk says that the user does not exist.
func (s *Service) readUser(ctx context.Context, id string) (*User, error) {
	u, err := request(ctx, s, endpointGetUser, "clerk.GetUser", func(ctx context.Context) (*User, error) {
		return s.api.GetUser(ctx, id)
	})
	switch {
	case saysNotFound(err):
		return nil, ErrNotFound
	case err == nil && u.ID != id:
		err = errNoUser
	}
	if err != nil {
		return nil, s.clerkError(ctx, "get user", err)
	}
	return u, nil
}

// userGone reports whether Clerk says that the user does not exist.
func (s *Service) userGone(ctx context.Context, id string) (bool, error) {
	_, err := s.readUser(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return false, err
}

// clerkError wraps the failure of a request that sends no email.
func (s *Service) clerkError(ctx context.Context, op string, err error) error {
	var api *APIError
	if !errors.As(err, &api) {
		return err
	}
	s.log.WarnContext(ctx, "call to Clerk failed", "op", op, "cause", logError(err))
	return &ClerkInvitationError{Op: op, Outcome: OutcomeFault, Err: err}
}

// proof says what Clerk knows beside a user's addresses. An accepted invitation proves that the user joined
// before it expired. A row for an organization becomes active only with the membership.
type proof struct {
	accepted map[string]bool     // IDs of invitations that Clerk lists as accepted
	members  map[Membership]bool // the users of organizations, without roles
	ask      bool                // resolving may call Clerk, also for what is not in the maps
	asked    map[Ref]error       // result of listing the accepted invitations of an organization and address
	ending   *Member             // becomes revoked or removed, so it does not become active; or nil

	onlyAccepted bool // a membership proves nothing without an accepted invitation
}

// askClerk returns an empty proof that asks Clerk when needed.
func askClerk() proof {
	return proof{accepted: make(map[string]bool), members: make(map[Membership]bool), ask: true, asked: make(map[Ref]error)}
}

// isMember reports whether u is known to be a member of row's organization, if it has one.
func (p *proof) isMember(u *User, row *Member) bool {
	organization := row.organization()
	return organization == "" || p.members[Membership{OrganizationID: organization, UserID: u.ID}]
}

// withoutEnding removes the row that ends from rows. If that is u's active row of its tenant, no other row of the tenant
// can be resolved.
func (p *proof) withoutEnding(rows []*Member) []*Member {
	return slices.DeleteFunc(rows, func(row *Member) bool {
		e := p.ending
		return e != nil && (row.ID == e.ID || e.Status == StatusActive && row.TenantID == e.TenantID)
	})
}

// resolveUser finds the rows that wait for u, and resolves them.
func (s *Service) resolveUser(ctx context.Context, u *User, p proof) ([]*Member, error) {
	rows, err := s.rowsOf(ctx, u)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return s.resolve(ctx, u, rows, p)
}

// rowsOf returns the rows that wait for one of u's verified addresses, and u's active rows.
func (s *Service) rowsOf(ctx context.Context, u *User) ([]*Member, error) {
	emails := u.verifiedEmails()
	if len(emails) == 0 {
		return nil, nil
	}
	return s.store.Find(ctx, Query{Emails: emails, UserIDs: []string{u.ID}})
}

// resolve makes the rows that wait for u active, and then updates the addresses of u's active rows.
func (s *Service) resolve(ctx context.Context, u *User, rows []*Member, p proof) ([]*Member, error) {
	var changed []*Member
	for range 10 {
		provable, proveErr := s.prove(ctx, u, rows, p)
		changes, postponed := resolutions(u, provable, p, s.now())
		done, retry, err := s.applyEach(ctx, changes)
		changed = append(changed, done...)
		if err != nil {
			return changed, err
		}
		if !retry && len(postponed) == 0 { // postponed changes depend on the rows that were just written
			moved, err := s.updateAddresses(ctx, u, rows, p.ask)
			return append(changed, moved...), cmp.Or(proveErr, err)
		}
		if rows, err = s.rowsOf(ctx, u); err != nil {
			return changed, err
		}
		rows = p.withoutEnding(rows)
	}
	return changed, fmt.Errorf("clerkinvite: resolve user %s: %w", u.ID, ErrConflict)
}

// resolveOthers resolves the other members that wait for u in row's organization, while row ends. They may have
// accepted, and the webhook may be late.
func (s *Service) resolveOthers(ctx context.Context, row *Member, u *User, p proof) error {
	p.ending = row
	rows, err := s.rowsOf(ctx, u)
	others := slices.DeleteFunc(p.withoutEnding(rows), func(other *Member) bool {
		return !other.Status.Waits() || other.organization() != row.organization()
	})
	if err != nil || len(others) == 0 {
		return err
	}
	_, err = s.resolve(ctx, u, others, p)
	return err
}

// resolveSharers resolves the other tenants' members that wait for the invitation with which an active row's user joined.
// Otherwise they would wait for an accepted invitation.
func (s *Service) resolveSharers(ctx context.Context, row *Member) error {
	rows, err := s.store.Find(ctx, Query{Emails: []string{row.Email}})
	shared := slices.ContainsFunc(rows, func(other *Member) bool {
		return row.InvitationID != "" && other.Status.Waits() && other.InvitationID == row.InvitationID
	})
	if err != nil || !shared {
		return err
	}
	u, err := s.readUser(ctx, row.ClerkUserID)
	if err == nil {
		err = s.excuseWrite(ctx, row, s.resolveOthers(ctx, row, u, askClerk()))
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// excuseWrite logs an error of resolving row's user, and returns nil, unless the error is Clerk's or the context's. It may
// concern another tenant's row, and must not keep row from ending.
func (s *Service) excuseWrite(ctx context.Context, row *Member, err error) error {
	var clerks *ClerkInvitationError
	if err == nil || ctx.Err() != nil || errors.As(err, &clerks) {
		return err
	}
	s.log.WarnContext(ctx, "not all members of a user resolved", "member", *row, "cause", logError(err))
	return nil
}

// applyEach applies changes, and returns the members that changed. retry is true if another process
// changed one of the rows first.
func (s *Service) applyEach(ctx context.Context, changes []Change) (changed []*Member, retry bool, err error) {
	results, err := s.applyBounded(ctx, changes)
	if err != nil {
		return nil, false, err
	}
	for _, r := range results {
		switch {
		case r.Err == nil:
			changed = append(changed, r.Member)
		case errors.Is(r.Err, ErrConflict), errors.Is(r.Err, ErrUserTaken):
			retry = true
		default:
			err = cmp.Or(err, r.Err)
		}
	}
	return changed, retry, err
}

// prove adds the memberships and accepted invitations that resolutions needs to p's maps, and returns the rows that can be
// resolved. If Clerk fails for a row, prove cannot know which of the tenant's rows should become active. So
// it omits that row and the tenant's later rows, and returns the error. Other tenants are not affected.
func (s *Service) prove(ctx context.Context, u *User, rows []*Member, p proof) (provable []*Member, err error) {
	if !p.ask || u.isBarred() {
		return rows, nil
	}
	unproved := make(map[string]bool) // tenants
	for _, row := range inResolutionOrder(u, rows) {
		if rowErr := s.proveRow(ctx, u, row, p); rowErr != nil {
			err, unproved[row.TenantID] = rowErr, true
		}
		if !unproved[row.TenantID] {
			provable = append(provable, row)
		}
	}
	return provable, err
}

// proveRow is prove for one row.
func (s *Service) proveRow(ctx context.Context, u *User, row *Member, p proof) error {
	if !row.Status.Waits() || !u.hasVerified(row.Email) {
		return nil
	}
	err := s.addMemberships(ctx, row.organization(), []string{u.ID}, p)
	if saysDeletedOrganization(err) { // it has no members, and must not keep the user from other tenants for ever
		p.members[Membership{OrganizationID: row.organization(), UserID: u.ID}] = false
		return nil
	}
	if err != nil {
		return err
	}
	if (u.joined(row, s.now()) == needsList || p.onlyAccepted) && p.isMember(u, row) {
		return s.listAccepted(ctx, row, p)
	}
	return nil
}

// listAccepted adds the accepted invitations of a row's address to p. It asks Clerk once per address and
// organization.
func (s *Service) listAccepted(ctx context.Context, row *Member, p proof) error {
	key := Ref{TenantID: row.organization(), Email: row.Email}
	if err, asked := p.asked[key]; asked {
		return err
	}
	list, err := s.listInvitations(ctx, row, InvitationAccepted)
	if err != nil {
		err = s.clerkError(ctx, "list invitations", err)
	}
	for _, inv := range list {
		p.accepted[inv.ID] = true
	}
	p.asked[key] = err
	return err
}

// inResolutionOrder sorts rows by tenant. In each tenant, the row that is or should become u's active
// member comes first.
func inResolutionOrder(u *User, rows []*Member) []*Member {
	primary := u.primaryEmail()
	return slices.SortedFunc(slices.Values(rows), func(a, b *Member) int {
		return cmp.Or(
			cmp.Compare(a.TenantID, b.TenantID),
			trueFirst(a.Status == StatusActive, b.Status == StatusActive),
			trueFirst(a.Email == primary, b.Email == primary),
			a.ReservedAt.Compare(b.ReservedAt),
			cmp.Compare(a.ID, b.ID),
		)
	})
}

// resolutions returns the changes that make u's rows active. postponed contains the rows that become
// removed because another row of the tenant becomes active. Call resolutions again for them after that row
// was written. If the write failed, one of them becomes active instead.
func resolutions(u *User, rows []*Member, p proof, now time.Time) (changes, postponed []Change) {
	if u.isBarred() {
		return nil, nil
	}
	verified := u.verifiedEmails()
	const (
		none = iota
		joining
		active
	)
	tenant, membership := "", none // u's membership in tenant
	for _, row := range inResolutionOrder(u, rows) {
		if row.TenantID != tenant {
			tenant, membership = row.TenantID, none
		}
		if row.Status == StatusActive && row.ClerkUserID == u.ID {
			membership = active
			continue
		}
		if !row.Status.Waits() || !slices.Contains(verified, row.Email) || !p.isMember(u, row) {
			continue
		}
		joined := u.joined(row, now)
		if joined == tooLate || (joined == needsList || p.onlyAccepted) && !p.accepted[row.InvitationID] {
			continue
		}
		second := Change{row, asEnded(*row, StatusRemoved, ReasonSecondAddress, now)}
		switch {
		case membership == none:
			changes = append(changes, Change{row, asJoined(*row, u.ID, now)})
			membership = joining
		case row.Status == StatusExpired: // stays
		case membership == active:
			changes = append(changes, second)
		default:
			postponed = append(postponed, second)
		}
	}
	return changes, postponed
}

// joinedState says whether a user may have accepted an invitation while it was valid.
type joinedState int

const (
	tooLate   joinedState = iota // or a time is unknown
	inTime                       // or the invitation is still valid
	needsList                    // if Clerk lists the invitation as accepted
)

// joined says whether u may have accepted row's invitation while it was valid.
func (u *User) joined(row *Member, now time.Time) joinedState {
	switch {
	case !row.overdue(now) && !u.createdAfterExpiry(row), u.createdWhileValid(row):
		return inTime
	case u.createdBeforeExpiry(row) && row.InvitationID != "":
		return needsList
	}
	return tooLate
}

// createdBeforeExpiry reports whether u was created before row's invitation expired, by Clerk's clock. A
// younger account cannot have accepted the invitation. The address may have a new owner. If a time is
// unknown, createdBeforeExpiry and createdAfterExpiry both return false.
func (u *User) createdBeforeExpiry(row *Member) bool {
	return row.ExpiresAt != nil && !u.CreatedAt.IsZero() && !u.CreatedAt.After(*row.ExpiresAt)
}

// createdAfterExpiry reports whether u was certainly created after row's invitation expired, even if this
// machine's clock is behind Clerk's.
func (u *User) createdAfterExpiry(row *Member) bool {
	return row.ExpiresAt != nil && u.CreatedAt.After(*row.ExpiresAt)
}

// createdWhileValid reports whether u was created while row's invitation was valid. If so, u joined in
// time, although the invitation has expired since.
func (u *User) createdWhileValid(row *Member) bool {
	return u.createdBeforeExpiry(row) && row.InvitedAt != nil && !u.CreatedAt.Before(*row.InvitedAt)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// An active member's address follows the user's address. When Clerk shows that the user has given up the
// member's address, the member gets the user's verified primary address, and the old address can be
// invited again. The history records the change, but not the addresses.

// gaveUp reports whether u is the user of row and has given up row's address. It returns false for a user
// without a verified address and for a user whose addresses are not all known, because neither proves that
// the address was given up.
func (u *User) gaveUp(row *Member) bool {
	return row.Status == StatusActive && row.ClerkUserID == u.ID && !u.Incomplete &&
		len(u.verifiedEmails()) > 0 && !u.hasVerified(row.Email)
}

// verifiedPrimary returns the normalised primary address of u if u has verified it, or "".
func (u *User) verifiedPrimary() string {
	if primary := u.primaryEmail(); primary != "" && u.hasVerified(primary) {
		return primary
	}
	return ""
}

// withEmail returns m with another address.
func withEmail(m Member, email string) *Member {
	m.Email = email
	return &m
}

// updateAddresses calls updateAddress for each row. It returns the members that changed, and the first error.
func (s *Service) updateAddresses(ctx context.Context, u *User, rows []*Member, ask bool) (changed []*Member, err error) {
	for _, row := range rows {
		now, rowErr := s.updateAddress(ctx, u, row, ask)
		if now != nil && now.Email != row.Email {
			changed = append(changed, now)
		}
		err = cmp.Or(err, rowErr)
	}
	return changed, err
}

// updateAddress gives row the verified primary address of u. If that address is not verified, or another member
// of the tenant has it, updateAddress returns the row with its old address. It returns nil if the row no longer
// exists. It calls Clerk only if ask is true.
func (s *Service) updateAddress(ctx context.Context, u *User, row *Member, ask bool) (*Member, error) {
	for range 10 {
		if !u.gaveUp(row) { // another process may have changed the row
			return row, nil
		}
		email := u.verifiedPrimary()
		if email == "" {
			s.logStaleAddress(ctx, row, whyUnverified)
			return row, nil
		}
		now, err := s.changeOne(ctx, row, withEmail(*row, email))
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
		s.logStaleAddress(ctx, row, whyTaken)
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

// logStaleAddress logs that a member keeps an address that its user no longer has.
func (s *Service) logStaleAddress(ctx context.Context, row *Member, why string) {
	s.log.WarnContext(ctx, "address of a member is out of date", "member", *row, "why", why)
}
