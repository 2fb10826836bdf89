package clerkinvite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Organization is the Clerk organization into which a person is invited. The member becomes active once
// the person has verified the address and belongs to the organization. A user who is already a member there,
// and an invitation that is adopted, keep their role.
type Organization struct {
	ID      string `json:"id"`                // org_…
	Role    string `json:"role,omitempty"`    // a role key such as "org:admin"; "" means "org:member"
	Inviter string `json:"inviter,omitempty"` // the Clerk user (user_…) whose name the email shows, an admin of the organization; "" means no name

	// AddExisting adds a Clerk user who has verified the address to the organization immediately,
	// without an email and without asking them. According to Clerk, it becomes their active organization
	// at their next sign-in. Without AddExisting, they get the organization's invitation.
	AddExisting bool `json:"add_existing,omitempty"`
}

// OrganizationAPI makes the library's calls to Clerk's Backend API about memberships of organizations.
// Package clerkapi implements it, and clerkinvitetest has a fake.
//
// The rules of [ClerkAPI] for concurrency, contexts and errors apply here too.
//
// Until v1, a minor version may add methods to OrganizationAPI.
type OrganizationAPI interface {
	// FindMemberships returns which of up to 100 users are members of one organization. A user who
	// is not a member is not an error.
	FindMemberships(ctx context.Context, q MembershipQuery) ([]Membership, error)

	// AddMember makes a user a member of an organization, and sends no email. It makes exactly
	// one request.
	AddMember(ctx context.Context, m Membership) error

	// RemoveMember ends a user's membership of an organization. It makes exactly one request.
	RemoveMember(ctx context.Context, m Membership) error
}

// Membership is a user's membership of an organization.
type Membership struct {
	OrganizationID string // org_…
	UserID         string // user_…
	Role           string // a role key; RemoveMember ignores it

	CreatedAt time.Time // zero if unknown; only FindMemberships sets it
}

// isOlder reports whether the membership began before the row was reserved, so that no attempt for the row has added it.
func (m *Membership) isOlder(row *Member) bool {
	return !m.CreatedAt.IsZero() && m.CreatedAt.Before(row.ReservedAt.Add(-clockSkew))
}

// MembershipQuery selects members of one organization by their user IDs.
type MembershipQuery struct {
	OrganizationID string
	UserIDs        []string // 1 to 100
}

// Organization returns the organization that the member was last invited into, or nil if it was invited into the
// application.
func (m Member) Organization() *Organization { return m.clerkParams().Organization }

// organization returns the ID of the organization that the member was last invited into, or "".
func (m Member) organization() string {
	if !bytes.Contains(m.Params, []byte(`"organization"`)) { // do not decode the others
		return ""
	}
	return m.clerkParams().organization()
}

// defaultRole is the role in an organization if [Organization] names none.
const defaultRole = "org:member"

// checkOrganization fills in the default role, and returns what is wrong with the parameters of an
// invitation into an organization, or nil.
func (s *Service) checkOrganization(p *InviteParams) error {
	if p.Organization == nil {
		return nil
	}
	o := *p.Organization
	o.Role = cmp.Or(o.Role, defaultRole)
	p.Organization = &o
	switch {
	case s.cfg.Organizations == nil:
		return errNoOrganizations
	case !clerkID.MatchString(o.ID):
		return &InvalidParamsError{"Organization.ID", "must be the ID of an organization (org_…)"}
	case o.Inviter != "" && !clerkID.MatchString(o.Inviter):
		return &InvalidParamsError{"Organization.Inviter", "must be a Clerk user's ID (user_…)"}
	case p.Template != "":
		return &InvalidParamsError{"Template", "must be empty for an organization: Clerk has one template for its invitations"}
	}
	if reason := checkText(o.Role, 255); reason != "" {
		return &InvalidParamsError{"Organization.Role", reason}
	}
	return nil
}

// byOrganization groups attempts by their organization, the application's first.
func byOrganization(attempts []*attempt) (groups [][]*attempt) {
	sorted := slices.Clone(attempts)
	slices.SortStableFunc(sorted, func(a, b *attempt) int { return cmp.Compare(a.organization(), b.organization()) })
	for len(sorted) > 0 {
		organization, n := sorted[0].organization(), 1
		for n < len(sorted) && sorted[n].organization() == organization {
			n++
		}
		groups, sorted = append(groups, sorted[:n]), sorted[n:]
	}
	return groups
}

// decideMembers decides for rows of one organization. For each row, one of the users has verified the address.
func (s *Service) decideMembers(ctx context.Context, p *pass, attempts []*attempt, users []User) {
	var ids []string
	for _, a := range attempts {
		ids = append(ids, verifiedBy(users, a.row.Email).ID)
	}
	members, err := s.findMembers(ctx, attempts[0].organization(), ids)
	for _, a := range attempts {
		u := verifiedBy(users, a.row.Email)
		if v := s.memberVerdict(ctx, p, a, u, members[u.ID], err); v.kind != undecided {
			a.decide(v)
			p.countAdding(a)
		}
	}
}

// holderVerdict decides for a row whose address u has verified.
func (s *Service) holderVerdict(ctx context.Context, p *pass, a *attempt, u *User) verdict {
	if a.organization() == "" {
		return userVerdict(u, nil, s.now())
	}
	members, err := s.findMembers(ctx, a.organization(), []string{u.ID})
	return s.memberVerdict(ctx, p, a, u, members[u.ID], err)
}

// memberVerdict decides for a row whose address u has verified. m is u's membership of the row's organization, or
// nil; err is why that is unknown. A member of the organization is linked. Any other user is added, or the verdict is
// undecided and the user gets an invitation.
func (s *Service) memberVerdict(ctx context.Context, p *pass, a *attempt, u *User, m *Membership, err error) verdict {
	if err != nil {
		return s.callFailed(ctx, p, a, call{op: "find memberships", organization: true}, err)
	}
	if m != nil && a.params.Organization.AddExisting && a.claim.hadEffect && !m.isOlder(a.row) {
		a.maybeAdded = u // by an earlier attempt
	}
	v := userVerdict(u, nil, s.now())
	switch {
	case v.kind != isLinked, m != nil: // barred users get no invitation
		return v
	case a.params.Organization.AddExisting:
		return s.addMember(ctx, p, a, u)
	}
	return verdict{}
}

// findMembers returns the users' memberships of the organization, by user ID, with one request per 100 users. What they
// prove about a member is in proof in pending.go.
func (s *Service) findMembers(ctx context.Context, organization string, userIDs []string) (map[string]*Membership, error) {
	if s.cfg.Organizations == nil {
		return nil, errNoOrganizations
	}
	slices.Sort(userIDs)
	members := make(map[string]*Membership)
	for chunk := range slices.Chunk(slices.Compact(userIDs), lookupSize) {
		found, err := request(ctx, s, endpointMemberships, "clerk.FindMemberships", func(ctx context.Context) ([]Membership, error) {
			return s.cfg.Organizations.FindMemberships(ctx, MembershipQuery{organization, chunk})
		})
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			if m.OrganizationID == organization {
				members[m.UserID] = &m
			}
		}
	}
	return members, nil
}

// addMemberships adds to p which of up to 100 users are members of the organization, if it is not "". It asks
// Clerk for those that p does not have. See proof in pending.go.
func (s *Service) addMemberships(ctx context.Context, organization string, userIDs []string, p proof) error {
	unknown := slices.DeleteFunc(slices.Clone(userIDs), func(id string) bool {
		_, known := p.members[Membership{OrganizationID: organization, UserID: id}]
		return known
	})
	if organization == "" || len(unknown) == 0 {
		return nil
	}
	members, err := s.findMembers(ctx, organization, unknown)
	if err != nil {
		return s.clerkError(ctx, "find memberships", err)
	}
	for _, id := range unknown {
		p.members[Membership{OrganizationID: organization, UserID: id}] = members[id] != nil
	}
	return nil
}

// errNoOrganizations is a mistake in the host's configuration, so it is not an *InvalidParamsError, whose text admins see.
var errNoOrganizations = errors.New("clerkinvite: Config.Organizations is missing: set it to the result of clerkapi.New")

// addMember makes the user a member of the row's organization. It sends no email, so it can be repeated. Like a
// create, it starts and finishes during the lease.
func (s *Service) addMember(ctx context.Context, p *pass, a *attempt, u *User) verdict {
	if ctx.Err() != nil || !p.fresh(s.now()) || p.failures >= maxFailures {
		return s.released(ctx, p)
	}
	o := a.params.Organization
	if err := p.closedOrganizations[o.ID]; err != nil {
		return refused(opAddMember, reasonOf(err), err)
	}
	adding, cancel := p.creating(ctx)
	defer cancel()
	_, err := request(adding, s, endpointAddMember, "clerk.AddMember", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.cfg.Organizations.AddMember(ctx, Membership{OrganizationID: o.ID, UserID: u.ID, Role: o.Role})
	})
	switch {
	case err == nil:
		a.maybeAdded = u
		return userVerdict(u, nil, s.now())
	case codeOf(err) == codeAlreadyMember:
		return userVerdict(u, nil, s.now())
	}
	if !saysNotFound(err) { // otherwise it may be the user who was deleted
		p.noteClosed(o.ID, err)
	}
	v := s.callFailed(ctx, p, a, call{op: opAddMember, sends: true, organization: true}, err)
	if v.kind == isUncertain {
		a.maybeAdded = u
	}
	return v
}

const opAddMember = "add member"

// countAdding is countFailures for a request that may have added a user, before its verdict is written.
func (p *pass) countAdding(a *attempt) {
	v := &a.verdict
	switch {
	case v.op == opAddMember && a.unexplained():
		if !a.isRetry() {
			p.failures++
		}
		v.stop = p.failures >= maxFailures
	case v.op == opAddMember && v.kind == isRefused, v.kind == isLinked && a.maybeAdded != nil:
		p.failures = 0
	}
}

// mustUndoAdding reports whether the attempt's row is withdrawn or refused, but the user may have been added.
func (a *attempt) mustUndoAdding() bool {
	return (a.verdict.withdraw || a.verdict.kind == isRefused) && a.maybeAdded != nil
}

// undoAdding ends the membership that mustUndoAdding reports. If that fails, the row keeps waiting, and the next attempt
// finds out.
func (s *Service) undoAdding(ctx context.Context, a *attempt) {
	v := &a.verdict
	if !a.mustUndoAdding() {
		return
	}
	err := s.removeAdded(ctx, a)
	if err == nil {
		return
	}
	v.withdraw, v.leftOver = false, false
	if v.kind == isRefused {
		v.kind, v.dueAt = isPostponed, s.now().Add(s.backoff(a.row.Attempts))
		v.op, v.err = "remove member", unwrapped(err)
	}
}

// unwrapped returns the error in a *ClerkInvitationError, because the verdict's report wraps it again.
func unwrapped(err error) error {
	var clerkErr *ClerkInvitationError
	if errors.As(err, &clerkErr) {
		return clerkErr.Err
	}
	return err
}

// removeAdded ends the membership of maybeAdded, unless it is needed: see removeUnneeded. It returns and logs why that
// failed. It returns nil if the membership is the last admin's, because Clerk never ends it.
func (s *Service) removeAdded(ctx context.Context, a *attempt) error {
	if a.maybeAdded == nil {
		return nil
	}
	p := askClerk()
	p.onlyAccepted = true // the membership may be the attempt's own
	err := s.removeUnneeded(ctx, a.row, a.maybeAdded, p)
	if err != nil {
		s.log.WarnContext(ctx, "membership not ended", "member", *a.row, "cause", logError(err))
	}
	if errors.Is(err, ErrLastAdmin) {
		return nil
	}
	return err
}

// needsMembership reports whether m is active by a membership of the organization, or waits to be added to it.
func (m Member) needsMembership(organization string) bool {
	o := m.clerkParams().Organization
	return o != nil && o.ID == organization && (m.Status == StatusActive || m.Status.Waits() && o.AddExisting)
}

// removeUnneeded ends u's membership of row's organization, unless another member is or will be active by it, or row itself
// has become active in the meantime. It first resolves the other members that wait for u there.
func (s *Service) removeUnneeded(ctx context.Context, row *Member, u *User, p proof) error {
	failure := s.resolveOthers(ctx, row, u, p)
	if err := s.excuseWrite(ctx, row, failure); err != nil {
		return err
	}
	rows, err := s.rowsOf(ctx, u)
	needed := slices.ContainsFunc(rows, func(other *Member) bool {
		switch {
		case other.organization() != row.organization():
			return false
		case other.Status == StatusActive:
			return other.ID != row.ID || other.Version != row.Version
		}
		return other.ID != row.ID && failure != nil && other.Status.Waits() // it could not be written
	})
	if err != nil || needed {
		return err
	}
	return s.removeMember(ctx, row.organization(), u.ID)
}

// decideAbandoned decides for a row of which usedItsOnlyAttempt is true. If that attempt may have added a user to the row's
// organization, the member becomes active, because Clerk does not show who added a user.
func (s *Service) decideAbandoned(ctx context.Context, p *pass, a *attempt) {
	v := verdict{kind: isAbandoned, reason: ReasonWithdrawn}
	if o := a.params.Organization; o != nil && o.AddExisting {
		u, m, err := s.findJoined(ctx, a.row)
		switch {
		case err != nil:
			a.decide(s.callFailed(ctx, p, a, call{op: "find memberships", organization: true}, err))
			a.verdict.withdraw, a.verdict.leftOver = false, false // until Clerk says whether there is a membership
			return
		case u != nil:
			if v = userVerdict(u, nil, s.now()); v.kind != isLinked && a.claim.hadEffect && !m.isOlder(a.row) {
				a.maybeAdded = u // by that attempt, and barred since
			}
		}
	}
	a.decide(v)
}

// prepareOrganization makes room for the invitation of a row for an organization: it revokes the member's
// older invitations. The verdict is undecided if the new one can be created now. limit is a limit that
// prevents the create; then nothing is revoked.
func (s *Service) prepareOrganization(ctx context.Context, p *pass, a *attempt, found foundInvitations) (v verdict, limit *metLimit) {
	if found.current != nil && found.current.Status == InvitationRevoked { // by an interrupted attempt, or in the dashboard
		a.olderRevoked = true
	}
	if err := p.closedOrganizations[a.organization()]; err != nil {
		return refused("create invitation", reasonOf(err), err), nil
	}
	if !a.hasEarlierSends() {
		return verdict{}, nil
	}
	if p.background {
		if err := s.loadLimits(ctx, organizationEndpoints.create); err != nil {
			return s.notSent(ctx, p, a, err), nil
		}
	}
	if limit := s.knownLimit(p, a); limit != nil {
		return verdict{}, limit
	}
	accepted, err := s.revokeOlder(ctx, a, found)
	switch {
	case err != nil: // a 404 may only mean that Clerk does not show the older invitation yet
		return s.callFailed(ctx, p, a, call{op: "revoke invitation", organization: !saysNotFound(err)}, unwrapped(err)), nil
	case accepted: // perhaps since the pass looked for users; a person who has left or used another address is invited again
		v, _ = s.findAgain(ctx, p, a)
	}
	return v, nil
}

// revokeOlder revokes the invitation that the attempt's row refers to, and those of earlier sends that Clerk
// lists as pending. It reports whether the first was accepted.
func (s *Service) revokeOlder(ctx context.Context, a *attempt, found foundInvitations) (accepted bool, err error) {
	if a.row.InvitationID != "" && !a.olderRevoked {
		current := Invitation{ID: a.row.InvitationID} // Clerk's list may lag
		if found.current != nil {
			current = *found.current
		}
		if accepted, err = s.revokeOne(ctx, a.row, current); err != nil {
			return false, err
		}
		a.olderRevoked = !accepted
	}
	for _, inv := range found.older {
		if _, err := s.revokeOne(ctx, a.row, *inv); err != nil {
			return false, err
		}
	}
	return accepted, nil
}

// mayEndMembership reports whether endMembership can have a membership to end.
func (m Member) mayEndMembership(to Status) bool {
	return to == StatusRemoved && m.organization() != "" || m.addingInterrupted()
}

// addingInterrupted reports whether an interrupted attempt may have added the user to the organization.
func (m Member) addingInterrupted() bool {
	o := m.clerkParams().Organization
	return o != nil && o.AddExisting && m.Due() && m.mayHaveEffect()
}

// endMembership ends the membership of a member that becomes, or already is, revoked or removed:
//   - removed, from active: the membership by which it is active, even if another member is active by it too;
//   - removed, from another state: the membership of the user who has verified the address;
//   - revoked: the membership of that user, but only if an interrupted attempt may have added it.
//
// Clerk's list of memberships may lag. After an acceptance, or an interrupted attempt to add the user, endMembership ends
// the membership even if the list does not show it.
func (s *Service) endMembership(ctx context.Context, row *Member, to Status, accepted acceptance) error {
	if row.Status == StatusActive {
		if err := s.resolveSharers(ctx, row); err != nil {
			return err
		}
		return s.removeMember(ctx, row.organization(), row.ClerkUserID)
	}
	u, m, err := s.findHolder(ctx, row)
	mayBeMember := m != nil || row.Status.Waits() && accepted != notAccepted || row.addingInterrupted()
	switch {
	case err != nil:
		return s.clerkError(ctx, "find memberships", err)
	case u == nil, !mayBeMember, to == StatusRevoked && m != nil && m.isOlder(row):
		return nil
	}
	p := askClerk()
	if m != nil { // the list may no longer show it
		p.members[Membership{OrganizationID: row.organization(), UserID: u.ID}] = true
	}
	err = s.removeUnneeded(ctx, row, u, p)
	if errors.Is(err, ErrLastAdmin) { // the user stays, so the member becomes active
		if _, failure := s.resolveUser(ctx, u, askClerk()); failure != nil {
			s.log.WarnContext(ctx, "not all members of a user resolved", "member", *row, "cause", logError(failure))
		}
	}
	return err
}

// removeMember ends the user's membership of the organization. It succeeds if the membership does not exist.
func (s *Service) removeMember(ctx context.Context, organization, userID string) error {
	_, err := request(ctx, s, endpointRemoveMember, "clerk.RemoveMember", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.cfg.Organizations.RemoveMember(ctx, Membership{OrganizationID: organization, UserID: userID})
	})
	switch {
	case err == nil:
		return nil
	case codeOf(err) == codeLastAdmin:
		return ErrLastAdmin
	case saysNotFound(err): // the user has left, the organization was deleted, or the key is another instance's
		known, unknown := s.keySeemsRightFor(ctx, userID)
		if known || unknown != nil {
			return unknown
		}
	}
	return s.clerkError(ctx, "remove member", err)
}

// keySeemsRightFor reports whether Clerk shows the user or, if the user was deleted, anything else of this
// database.
func (s *Service) keySeemsRightFor(ctx context.Context, userID string) (bool, error) {
	gone, err := s.userGone(ctx, userID)
	if err != nil || !gone {
		return err == nil, err
	}
	return s.keySeemsRight(ctx)
}

// refusedByOrganization reports whether Clerk refuses a person for an organization: because of the
// organization, the role, or the person's other memberships.
func refusedByOrganization(err error) bool {
	code := codeOf(err)
	return refusesEverybody(err) || saysNotFound(err) ||
		code == "exclusive_organization_membership" || code == codeNotAdmin || code == "organization_membership_managed_by_scim"
}

// refusesEverybody reports whether an organization accepts no new members: it is full, or does not exist.
func refusesEverybody(err error) bool {
	return saysFull(err) || saysNoOrganization(err)
}

// saysFull reports whether Clerk says that the organization, or the plan, has no free seat.
func saysFull(err error) bool {
	code := codeOf(err)
	return code == codeFull || code == codeNoSeats
}

// saysNoOrganization reports whether a response about an organization says that it does not exist. If the
// request named an invitation, a user or an inviter, the response may be about those.
func saysNoOrganization(err error) bool {
	var api *APIError
	if !errors.As(err, &api) {
		return false
	}
	return api.Code == codeUnknownOrganization || api.Code == codeNoOrganizations ||
		saysNotFound(err) && api.Meta[metaParamName] == nil
}

// saysDeletedOrganization is saysNoOrganization without the response while organizations are disabled.
func saysDeletedOrganization(err error) bool {
	return saysNoOrganization(err) && codeOf(err) != codeNoOrganizations
}

// deletedOrganization reports whether a call for the row failed because its organization was deleted, and all
// of its invitations and memberships with it. Another instance's key would get the same response.
func (s *Service) deletedOrganization(ctx context.Context, row *Member, failure error) bool {
	if row.organization() == "" || !saysDeletedOrganization(failure) {
		return false
	}
	if _, err := s.listInvitations(ctx, row, InvitationPending); !saysNoOrganization(err) {
		return false
	}
	known, err := s.keySeemsRight(ctx)
	return err == nil && known
}

// noteClosed remembers for the rest of the pass that an organization accepts no new members, so that the
// pass does not waste a request on each of them.
func (p *pass) noteClosed(organization string, err error) {
	if organization == "" || !refusesEverybody(err) {
		return
	}
	if p.closedOrganizations == nil {
		p.closedOrganizations = make(map[string]error)
	}
	p.closedOrganizations[organization] = err
}
