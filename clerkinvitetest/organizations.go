package clerkinvitetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

const (
	adminRole  = "org:admin"
	memberRole = "org:member"
)

// OrganizationSpec describes an organization to add.
type OrganizationSpec struct {
	MaxMembers int      // members and pending invitations together; 0 means unlimited
	Roles      []string // keys of its roles; nil means org:admin and org:member
}

// organization is an organization at Clerk.
type organization struct {
	id          string
	maxMembers  int
	roles       []string
	members     []*membershipRecord // oldest first
	invitations []*invitationRecord // oldest first
	createdAt   time.Time
}

// membership is a user's membership of an organization.
type membership struct {
	id              string
	user            *userRecord
	role            string
	metadata        json.RawMessage // a JSON object, as is the next
	privateMetadata json.RawMessage
	createdAt       time.Time
	updatedAt       time.Time
}

// membershipRecord is a membership with its settled version, for Behavior.Lag. A membership that has ended
// remains until the next Settle.
type membershipRecord struct {
	membership
	settled *membership
	ended   bool
}

// AddOrganization adds an organization without members. It panics if the ID exists.
func (c *Clerk) AddOrganization(id string, o OrganizationSpec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.organizations[id] != nil {
		panic(fmt.Sprintf("clerkinvitetest: organization %q already exists", id))
	}
	roles := slices.Clone(o.Roles)
	if roles == nil {
		roles = []string{adminRole, memberRole}
	}
	c.organizations[id] = &organization{id: id, maxMembers: o.MaxMembers, roles: roles, createdAt: c.time()}
}

// DeleteOrganization deletes an organization with its memberships and invitations. It panics if the
// organization does not exist.
func (c *Clerk) DeleteOrganization(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, now := c.knownOrganization(id), c.time()
	if c.behavior.DeleteEndsMemberships {
		for _, m := range o.current() {
			c.endMembership(o, m, now)
		}
	}
	for _, r := range o.invitations {
		delete(c.byID, r.id)
		c.byEmail[r.email] = slices.DeleteFunc(c.byEmail[r.email], func(other *invitationRecord) bool { return other == r })
	}
	c.invitations = slices.DeleteFunc(c.invitations, func(r *invitationRecord) bool { return r.organization == id })
	delete(c.organizations, id)
	c.emit("organization.deleted", map[string]any{"object": "organization", "id": id, "slug": o.slug(), "deleted": true}, now)
}

// DisableOrganizations disables organizations for the instance: Clerk rejects every request about
// them.
func (c *Clerk) DisableOrganizations() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noOrganizations = true
}

// Members returns the members of an organization, oldest membership first, or nil if the organization does
// not exist. It ignores [Behavior].Lag.
func (c *Clerk) Members(organization string) []clerkinvite.Membership {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.organizations[organization]
	if o == nil {
		return nil
	}
	var out []clerkinvite.Membership
	for _, m := range o.current() {
		out = append(out, clerkinvite.Membership{OrganizationID: o.id, UserID: m.user.id, Role: m.role})
	}
	return out
}

// JoinOrganization makes a user a member without an invitation, as an operator or a verified domain
// does, even if the organization is full. It panics if the organization, user or role does not exist,
// or if the user is a member.
func (c *Clerk) JoinOrganization(organization, userID, role string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, r, now := c.knownOrganization(organization), c.knownUser(userID), c.time()
	if !slices.Contains(o.roles, role) {
		panic(fmt.Sprintf("clerkinvitetest: organization %s has no role %q", organization, role))
	}
	if o.member(userID) != nil {
		panic(fmt.Sprintf("clerkinvitetest: user %s is already a member of %s", userID, organization))
	}
	c.join(o, membership{user: r, role: role, metadata: json.RawMessage("{}"), privateMetadata: json.RawMessage("{}")}, now)
}

// SetMemberRole changes the role of a member. It panics if there is no such member or role.
func (c *Clerk) SetMemberRole(organization, userID, role string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, m, now := c.knownOrganization(organization), c.knownMember(organization, userID), c.time()
	if !slices.Contains(o.roles, role) {
		panic(fmt.Sprintf("clerkinvitetest: organization %s has no role %q", organization, role))
	}
	m.role, m.updatedAt = role, now
	c.emit("organizationMembership.updated", c.wireMembership(o, &m.membership, now), now)
}

// LeaveOrganization ends a membership, as the member or an operator does, even that of the last
// admin. It panics if there is no such member.
func (c *Clerk) LeaveOrganization(organization, userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endMembership(c.knownOrganization(organization), c.knownMember(organization, userID), c.time())
}

// AcceptOrganization accepts an organization's invitation as a user who has verified its address, in
// a session of the application. [Clerk.Accept] follows the link instead.
//
// It returns an error if the invitation does not exist or is not pending, or the user is banned,
// deprovisioned or locked or has not verified the address. It panics if there is no such user.
func (c *Clerk) AcceptOrganization(invitationID, userID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	inv, err := c.pendingByID(invitationID, now)
	if err != nil {
		return err
	}
	r := c.knownUser(userID)
	reason := r.account.barred(now)
	switch {
	case inv.organization == "":
		return fmt.Errorf("clerkinvitetest: invitation %s is not into an organization", invitationID)
	case reason != "":
		return fmt.Errorf("clerkinvitetest: user %s is %s and cannot sign in", userID, reason)
	}
	if e := r.email(inv.email); e == nil || !e.verified() {
		return errors.New("clerkinvitetest: the user has not verified the invitation's address")
	}
	inv.set(clerkinvite.InvitationAccepted, now)
	c.joinBy(inv, r, now)
	return nil
}

// CreateInDashboard adds an organization's invitation, as an admin can in Clerk's components and in
// its dashboard. Its email is not counted. It panics if there is no such organization or role, or if
// metadata is not JSON.
func (c *Clerk) CreateInDashboard(organization, email, role string, metadata map[string]any) clerkinvite.Invitation {
	p := foreign(email, metadata)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.knownOrganization(organization).roles, role) {
		panic(fmt.Sprintf("clerkinvitetest: organization %s has no role %q", organization, role))
	}
	p.organization, p.role = organization, role
	return c.addForeign(p)
}

// OrganizationEvents returns the events of organizations since its last call, oldest first, whatever
// caused them: a method of c or a request.
func (c *Clerk) OrganizationEvents() []Webhook {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	return events
}

func (c *Clerk) emit(kind string, data any, now time.Time) {
	c.events = append(c.events, c.event(kind, data, now))
}

// knownOrganization returns an organization, or panics if it does not exist.
func (c *Clerk) knownOrganization(id string) *organization {
	o := c.organizations[id]
	if o == nil {
		panic(fmt.Sprintf("clerkinvitetest: there is no organization %q", id))
	}
	return o
}

// knownMember returns a membership, or panics if it does not exist.
func (c *Clerk) knownMember(organization, userID string) *membershipRecord {
	m := c.knownOrganization(organization).member(userID)
	if m == nil {
		panic(fmt.Sprintf("clerkinvitetest: user %q is not a member of %s", userID, organization))
	}
	return m
}

// member returns a user's membership, or nil.
func (o *organization) member(userID string) *membershipRecord {
	for _, m := range o.members {
		if !m.ended && m.user.id == userID {
			return m
		}
	}
	return nil
}

// current returns the memberships that have not ended, oldest first.
func (o *organization) current() []*membershipRecord {
	return slices.DeleteFunc(slices.Clone(o.members), func(m *membershipRecord) bool { return m.ended })
}

// roles returns the roles of the instance: the default ones and those of its organizations.
func (c *Clerk) roles() []string {
	roles := []string{adminRole, memberRole}
	for _, o := range c.organizations {
		roles = append(roles, o.roles...)
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func (o *organization) admins() int {
	n := 0
	for _, m := range o.current() {
		if m.role == adminRole {
			n++
		}
	}
	return n
}

func (o *organization) pending(now time.Time) int {
	n := 0
	for _, r := range o.invitations {
		if r.statusAt(now) == clerkinvite.InvitationPending {
			n++
		}
	}
	return n
}

// memberHolds reports whether a member has verified the folded address.
func (c *Clerk) memberHolds(o *organization, email string) bool {
	return slices.ContainsFunc(c.holders(email), func(r *userRecord) bool {
		return r.email(email).verified() && o.member(r.id) != nil
	})
}

func (o *organization) slug() string { return strings.ToLower(strings.ReplaceAll(o.id, "_", "-")) }

func (o *organization) settle() {
	o.members = o.current()
	for _, m := range o.members {
		now := m.membership
		m.settled = &now
	}
}

// joinBy makes the user who has accepted an invitation a member.
func (c *Clerk) joinBy(inv *invitationRecord, r *userRecord, now time.Time) {
	c.emit("organizationInvitation.accepted", wireAcceptedInvitation{c.wireOrganizationInvitation(&inv.invitation, now), r.id}, now)
	o := c.organizations[inv.organization]
	if o.member(r.id) != nil {
		return
	}
	m := membership{user: r, role: inv.role, metadata: inv.metadata, privateMetadata: inv.privateMetadata}
	if inv.bulk && c.behavior.BulkLosesMetadata {
		m.metadata, m.privateMetadata = json.RawMessage("{}"), json.RawMessage("{}")
	}
	c.join(o, m, now)
}

func (c *Clerk) join(o *organization, m membership, now time.Time) *membershipRecord {
	m.id, m.createdAt, m.updatedAt = c.newID("orgmem"), now, now
	r := &membershipRecord{membership: m}
	o.members = append(o.members, r)
	c.emit("organizationMembership.created", c.wireMembership(o, &r.membership, now), now)
	return r
}

func (c *Clerk) endMembership(o *organization, m *membershipRecord, now time.Time) {
	m.ended = true
	c.emit("organizationMembership.deleted", c.wireMembership(o, &m.membership, now), now)
}

// endMemberships ends all memberships of a deleted user.
func (c *Clerk) endMemberships(r *userRecord) {
	now := c.time()
	for _, id := range slices.Sorted(maps.Keys(c.organizations)) {
		o := c.organizations[id]
		m := o.member(r.id)
		switch {
		case m == nil:
		case c.behavior.DeleteEndsMemberships:
			c.endMembership(o, m, now)
		default:
			m.ended = true
		}
	}
}

// end revokes an invitation. Clerk sends an event for an organization's.
func (c *Clerk) end(r *invitationRecord, now time.Time) {
	r.set(clerkinvite.InvitationRevoked, now)
	if r.organization != "" {
		c.emit("organizationInvitation.revoked", c.wireOrganizationInvitation(&r.invitation, now), now)
	}
}

// findOrganization returns the organization in the path of a request, or its rejection.
func (c *Clerk) findOrganization(id string) (*organization, *response) {
	var a response
	o := c.organizations[id]
	switch {
	case c.noOrganizations:
		a = notEnabled()
	case o == nil && c.behavior.OrganizationUnauthorized:
		a = refuse(http.StatusNotFound, "organization_not_found_or_unauthorized", "not found or unauthorized",
			"Given organization not found, or you don't have permission to access the organization", nil)
	case o == nil:
		a = refuse(http.StatusNotFound, "resource_not_found", "not found", "Given organization not found.", nil)
	default:
		return o, nil
	}
	return nil, &a
}

func notEnabled() response {
	return refuse(http.StatusForbidden, "organization_not_enabled_in_instance", "access denied",
		"The organizations feature is not enabled for this instance. You can enable it at https://dashboard.clerk.com.", nil)
}

// checkRole returns Clerk's rejection of a role that the organization does not have, or nil.
func (o *organization) checkRole(role string) *response {
	if slices.Contains(o.roles, role) {
		return nil
	}
	a := refuse(http.StatusNotFound, "resource_not_found", "not found", "Organization role not found", map[string]any{"param_name": "role"})
	return &a
}

// checkAdmin returns Clerk's rejection of a user who is not an admin, or nil. It accepts an empty ID.
func (o *organization) checkAdmin(userID string) *response {
	if m := o.member(userID); userID == "" || m != nil && m.role == adminRole {
		return nil
	}
	a := refuse(http.StatusForbidden, "not_an_admin_in_organization", "not an administrator",
		"Current user is not an administrator in the organization. Only administrators can perform this action.", nil)
	return &a
}

// checkSeats returns Clerk's rejection of so many more members and invitations, or nil.
func (c *Clerk) checkSeats(o *organization, more int, now time.Time) *response {
	if o.maxMembers == 0 || len(o.current())+o.pending(now)+more <= o.maxMembers {
		return nil
	}
	a := refuse(http.StatusForbidden, "organization_membership_quota_exceeded", "organization membership quota exceeded",
		fmt.Sprintf("You have reached your limit of %d organization memberships, including outstanding invitations.", o.maxMembers), nil)
	if c.behavior.OrganizationInsufficientSeats {
		a = refuse(http.StatusPaymentRequired, "insufficient_seats", "insufficient seats",
			"The organization's plan does not have enough seats.", map[string]any{"seats_quantity": o.maxMembers})
	}
	return &a
}

func refuseMember(who string) response {
	return refuse(http.StatusBadRequest, "already_a_member_in_organization", "already a member", who+" is already a member of the organization.", nil)
}

// refusePending rejects second pending invitations of an organization.
func (c *Clerk) refusePending(emails []string) *response {
	if len(emails) == 0 || c.behavior.OrganizationDuplicateRecord {
		return c.refuseDuplicate(emails)
	}
	a := refuse(http.StatusBadRequest, "organization_invitation_not_unique", "organization invitation not unique",
		"Organizations cannot have duplicate pending invitations for an email address.", nil)
	return &a
}

// createInOrganization performs POST /organizations/{id}/invitations and its bulk form.
func (c *Clerk) createInOrganization(o *organization, ps []createParams, bulk bool, now time.Time) ([]invitation, *response) {
	if refused := c.checkBulk(len(ps)); refused != nil {
		return nil, refused
	}
	var invalid, member, full *response
	var valid []createParams
	var duplicate []string
	requested := make(map[string]bool)
	for _, p := range ps {
		email := c.stored(p.email)
		if fault := cmp.Or(p.check(), o.checkRole(p.role), o.checkAdmin(p.inviter)); fault != nil {
			invalid = cmp.Or(invalid, fault)
		} else if requested[email] || len(c.pending(o.id, email, now)) > 0 {
			duplicate = append(duplicate, email)
		} else if c.memberHolds(o, email) {
			a := refuseMember(email)
			member = cmp.Or(member, &a)
		} else if fault := c.checkSeats(o, len(valid)+1, now); fault != nil {
			full = fault
		} else {
			valid = append(valid, p)
			requested[email] = true
		}
	}
	refused := cmp.Or(invalid, c.refusePending(duplicate), member, full)
	if refused != nil && (!bulk || !c.behavior.BulkKeepsPartial) {
		return nil, refused
	}
	return c.addAll(valid, bulk, now), refused
}

// revokeInOrganization performs POST /organizations/{id}/invitations/{id}/revoke.
func (c *Clerk) revokeInOrganization(o *organization, id, requester string, now time.Time) response {
	r := c.byID[id]
	if r == nil || r.organization != o.id {
		return notFound("invitation", id)
	}
	if refused := o.checkAdmin(requester); refused != nil {
		return *refused
	}
	if r.statusAt(now) != clerkinvite.InvitationPending {
		return refuse(http.StatusNotFound, "organization_invitation_not_pending", "not pending",
			"The organization invitation is not pending.", nil)
	}
	c.end(r, now)
	return success(c.wireOrganizationInvitation(&r.invitation, now))
}

// memberParams are the parameters of POST /organizations/{id}/memberships.
type memberParams struct {
	userID, role              string
	metadata, privateMetadata json.RawMessage // as returned by object
}

// addMember performs POST /organizations/{id}/memberships.
func (c *Clerk) addMember(o *organization, p memberParams, now time.Time) response {
	if refused := o.checkRole(p.role); refused != nil {
		return *refused
	}
	r := c.userByID[p.userID]
	switch {
	case r == nil || r.deleted:
		return notFound("user", p.userID)
	case o.member(p.userID) != nil:
		return refuseMember("User " + p.userID)
	}
	if refused := c.checkSeats(o, 1, now); refused != nil {
		return *refused
	}
	m := c.join(o, membership{user: r, role: p.role, metadata: p.metadata, privateMetadata: p.privateMetadata}, now)
	return success(c.wireMembership(o, &m.membership, now))
}

// removeMember performs DELETE /organizations/{id}/memberships/{user_id}.
func (c *Clerk) removeMember(o *organization, userID string, now time.Time) response {
	m := o.member(userID)
	if m == nil {
		return refuse(http.StatusNotFound, "resource_not_found", "not found", "Resource not found", nil)
	}
	if m.role == adminRole && o.admins() == 1 {
		return refuse(http.StatusBadRequest, "organization_minimum_permissions_needed", "minimum organization permissions needed",
			"There has to be at least one organization member with the minimum required permissions", nil)
	}
	c.endMembership(o, m, now)
	return success(c.wireMembership(o, &m.membership, now))
}

// memberListParams are the parameters of GET /organizations/{id}/memberships.
type memberListParams struct {
	userIDs, roles []string
	orderBy        string
	limit, offset  int
}

// listMembers performs GET /organizations/{id}/memberships.
func (c *Clerk) listMembers(o *organization, p memberListParams, now time.Time) wireList[wireMembership] {
	var found []*membership
	for _, r := range o.members {
		m := &r.membership
		if c.behavior.Lag {
			m = r.settled
		} else if r.ended {
			continue
		}
		if m == nil || len(p.userIDs) > 0 && !slices.Contains(p.userIDs, m.user.id) || len(p.roles) > 0 && !slices.Contains(p.roles, m.role) {
			continue
		}
		found = append(found, m)
	}
	if strings.HasPrefix(p.orderBy, "-") {
		slices.Reverse(found)
	}
	list := wireList[wireMembership]{Data: []wireMembership{}, TotalCount: len(found)}
	for _, m := range cut(found, p.limit, p.offset) {
		list.Data = append(list.Data, c.wireMembership(o, m, now))
	}
	return list
}
