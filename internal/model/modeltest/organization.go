package modeltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// In every other sequence, one more tenant is an organization. In some of them a second tenant is the same
// organization, and in some the organization is deleted.
const (
	organizationTenant = "initech"
	sharingTenant      = "initrode"
	organizationID     = "org_initech"
)

// isOrganization reports whether a tenant is the organization.
func isOrganization(tenant string) bool {
	return tenant == organizationTenant || tenant == sharingTenant
}

// inOrganization reports whether a member is, or will be, a member of the organization.
func inOrganization(m *clerkinvite.Member) bool { return isOrganization(m.TenantID) }

// vanished reports whether the member's organization was deleted, and its invitations with it.
func (s *sequence) vanished(m *clerkinvite.Member) bool { return s.dissolved && inOrganization(m) }

// makeOrganization adds the organization, perhaps with a member.
func (s *sequence) makeOrganization() {
	s.shared, s.dissolves, s.dissolved = s.chance(2), s.chance(3), false
	s.tenants = append(slices.Clone(tenants), organizationTenant, organizationTenant)
	if s.shared {
		s.tenants = append(slices.Clone(tenants), organizationTenant, sharingTenant)
	}
	s.sayf("two tenants are the organization: %v", s.shared)
	s.added, s.vanishedInvitations = map[string]addition{}, map[string]invitation{}
	seats := pick(s, 0, 0, 2, 4)
	s.sayf("the organization has %d seats (0: unlimited)", seats)
	s.clerk.AddOrganization(organizationID, clerkinvitetest.OrganizationSpec{MaxMembers: seats})
	if people := s.people(); len(people) > 0 && s.chance(2) {
		s.join(people[0])
	}
}

// authorize invites everyone in the organization's tenant into the organization.
func authorize(_ context.Context, p *clerkinvite.InviteParams) error {
	if isOrganization(p.TenantID) && p.Organization == nil {
		p.Organization = &clerkinvite.Organization{ID: organizationID}
	}
	return nil
}

// join makes a user a member, as an operator does.
func (s *sequence) join(p *person) {
	role := pick(s, "org:member", "org:member", "org:admin")
	s.sayf("%s joins the organization as %s", p.ID, role)
	s.clerk.JoinOrganization(organizationID, p.ID, role)
	s.membersChanged()
}

// membersChanged records who is a member of the organization, and its events.
func (s *sequence) membersChanged() {
	if !s.organization {
		return
	}
	members := s.clerk.Members(organizationID)
	for _, id := range s.order {
		p := s.users[id]
		is := slices.ContainsFunc(members, func(m clerkinvite.Membership) bool { return m.UserID == id })
		if is != p.member {
			p.member = is
			delete(s.added, id)
			p.past = append(p.past, moment{s.step, p.User, p.deleted, is})
		}
	}
	for _, hook := range s.clerk.OrganizationEvents() {
		e, err := clerkinvite.ParseEvent(hook.Payload)
		if err != nil {
			panic(err)
		}
		if e.ID = hook.ID; !s.chance(6) { // some are lost
			s.events = append(s.events, *e)
		}
	}
}

// outsideOrganization makes people do something in the organization at Clerk, without the library.
func (s *sequence) outsideOrganization() {
	if s.dissolved {
		return
	}
	if s.dissolves && s.chance(6) {
		s.sayf("the organization is deleted")
		s.dissolved = true
		for _, email := range emails {
			for _, inv := range s.invitations(email) {
				s.vanishedInvitations[inv.ID] = inv
			}
		}
		s.clerk.DeleteOrganization(organizationID)
		s.membersChanged()
		s.clerkChanged()
		return
	}
	email := pick(s, emails...)
	var open []clerkinvite.Invitation
	for _, inv := range s.clerk.OpenInvitations(email) {
		if inv.OrganizationID != "" {
			open = append(open, inv)
		}
	}
	members := s.clerk.Members(organizationID)
	holder := s.holder(email)
	switch k := s.rand.IntN(20); {
	case k < 6 && len(open) > 0 && holder != nil:
		err := s.clerk.AcceptOrganization(open[0].ID, holder.ID)
		s.sayf("%s accepts %s after signing in: %v", holder.ID, open[0].ID, outcome{err})
	case k < 9 && len(open) > 0:
		hook, err := s.clerk.AcceptInvitation(open[0].ID)
		s.sayf("%s accepts %s: %v", email, open[0].ID, outcome{err})
		if err == nil {
			s.happened(hook)
		}
	case k < 12 && len(members) > 0:
		m := pick(s, members...)
		s.sayf("%s leaves the organization", m.UserID)
		s.clerk.LeaveOrganization(organizationID, m.UserID)
	case k < 14 && holder != nil && !holder.member:
		s.join(holder)
	case k < 15 && len(members) > 0:
		m := pick(s, members...)
		role := pick(s, "org:admin", "org:member")
		s.sayf("%s becomes %s", m.UserID, role)
		s.clerk.SetMemberRole(organizationID, m.UserID, role)
	case k < 17 && len(open) == 0 && (holder == nil || !holder.member):
		inv := s.clerk.CreateInDashboard(organizationID, email, "org:member", nil)
		s.bare[inv.ID] = true
		s.sayf("an admin invites %s in the dashboard: %s", email, inv.ID)
	case k < 18:
		d := pick(s, time.Minute, 3*time.Hour, 30*time.Hour)
		full := pick(s,
			clerkinvitetest.Fault{Status: 403, Code: "organization_membership_quota_exceeded"},
			clerkinvitetest.Fault{Status: 402, Code: "insufficient_seats", Meta: map[string]any{"seats_quantity": 5}})
		s.sayf("the organization is full for %v", d)
		for _, full.Call = range []clerkinvitetest.Call{clerkinvitetest.CallOrganizationCreate, clerkinvitetest.CallOrganizationCreateBulk, clerkinvitetest.CallAddMember} {
			full.Times, full.For = -1, d
			s.clerk.Fail(full)
		}
	case k < 20 && len(open) > 0:
		s.sayf("%s is revoked by an admin", open[0].ID)
		s.clerk.RevokeInDashboard(open[0].ID)
		s.withdrawn[open[0].ID] = true
	}
	s.membersChanged()
	s.clerkChanged()
}

// organizationCalls are the organization's requests that can fail.
var organizationCalls = []clerkinvitetest.Call{
	clerkinvitetest.CallOrganizationCreate, clerkinvitetest.CallOrganizationCreateBulk, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationListAll,
	clerkinvitetest.CallOrganizationRevoke, clerkinvitetest.CallMemberships, clerkinvitetest.CallAddMember, clerkinvitetest.CallRemoveMember,
}

// refusals are Clerk's rejections of people because of the organization.
var refusals = []clerkinvitetest.Fault{
	{Status: 403, Code: "organization_membership_quota_exceeded"},
	{Status: 402, Code: "insufficient_seats"},
	{Status: 404, Code: "organization_not_found_or_unauthorized"},
	{Status: 404, Code: "resource_not_found", Meta: map[string]any{"param_name": "role"}},
	{Status: 403, Code: "not_an_admin_in_organization"},
	{Status: 422, Code: "exclusive_organization_membership"},
}

// refusesOrganization reports whether a response refuses people because of the organization.
func refusesOrganization(err error) bool {
	var api *clerkinvite.APIError
	return errors.As(err, &api) && slices.ContainsFunc(refusals, func(f clerkinvitetest.Fault) bool { return f.Code == api.Code })
}

// saysNoOrganization reports whether a response says that the organization does not exist.
func saysNoOrganization(err error) bool {
	var api *clerkinvite.APIError
	return errors.As(err, &api) && api.Code == "organization_not_found_or_unauthorized"
}

// callFor returns the call for the organization or, for "", for the application.
func callFor(organization string, application, inOrganization clerkinvitetest.Call) clerkinvitetest.Call {
	if organization != "" {
		return inOrganization
	}
	return application
}

// organizations is what the processes call for memberships.
func (a wiredAPI) organizations() clerkinvite.OrganizationAPI {
	return a.api.(clerkinvite.OrganizationAPI) //nolint:forcetypeassert // the fake and its wrappers are both
}

func (a wiredAPI) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	t := taskOf(ctx)
	found, err := ask(ctx, clerkinvitetest.CallMemberships, "find memberships", func() ([]clerkinvite.Membership, error) {
		return a.organizations().FindMemberships(context.Background(), q)
	})
	if err == nil {
		for _, id := range q.UserIDs {
			t.members[id] = slices.ContainsFunc(found, func(m clerkinvite.Membership) bool { return m.UserID == id })
		}
	}
	return found, err
}

func (a wiredAPI) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	t := taskOf(ctx)
	t.adding(ctx, m)
	late := false
	_, err := ask(ctx, clerkinvitetest.CallAddMember, "add "+m.UserID, func() (struct{}, error) {
		before := len(a.clerk.Members(organizationID))
		err := a.organizations().AddMember(context.Background(), m)
		t.membersChanged()
		if len(a.clerk.Members(organizationID)) > before && !late {
			t.added[m.UserID] = addition{t, t.step, slices.DeleteFunc(slices.Clone(t.claimedRows), func(row *clerkinvite.Member) bool { return !t.mayAdd(row, m) })}
		}
		return struct{}{}, err
	})
	late = true
	return err
}

func (a wiredAPI) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	t := taskOf(ctx)
	if !slices.Contains(delivering, t.verb) && t.verb != remove && t.verb != revoke {
		t.failf("membership: %s ends that of %s", t.name, m.UserID)
	}
	_, err := ask(ctx, clerkinvitetest.CallRemoveMember, "end the membership of "+m.UserID, func() (struct{}, error) {
		was := t.users[m.UserID].member
		err := a.organizations().RemoveMember(context.Background(), m)
		t.membersChanged()
		if was && !t.users[m.UserID].member {
			t.endsMembership(m.UserID)
		}
		return struct{}{}, err
	})
	var api *clerkinvite.APIError
	if errors.As(err, &api) && api.Code == "organization_minimum_permissions_needed" {
		t.lastAdmin = true
		delete(t.added, m.UserID) // the membership stays
	}
	return err
}

// endsMembership checks that a call other than Remove has not ended a membership by which a member is active. The call knew that:
// the member was active when it began, or when it last read the store.
func (t *task) endsMembership(user string) {
	for _, m := range slices.Concat(t.before, t.seen) {
		now := t.row(m.ID)
		if t.verb != remove && inOrganization(m) && m.Status == clerkinvite.StatusActive && m.ClerkUserID == user && now != nil && now.Version == m.Version {
			t.failf("membership: %s ends that of %s, by which %s is active", t.name, user, t.named(m))
		}
	}
}

// adding checks that a user may be added to the organization without being asked.
func (t *task) adding(ctx context.Context, m clerkinvite.Membership) {
	if ctx.Err() != nil || t.process.dead {
		return // not a request
	}
	if isMember, asked := t.members[m.UserID]; !asked || isMember {
		t.failf("membership: %s adds %s; looked up: %v, a member: %v", t.name, m.UserID, asked, isMember)
	}
	if !slices.ContainsFunc(t.claimedRows, func(row *clerkinvite.Member) bool { return t.mayAdd(row, m) }) {
		t.failf("membership: %s adds %s, for whom it has claimed no member that allows it", t.name, m.UserID)
	}
}

// mayAdd reports whether a member allows to add the user who has verified its address.
func (t *task) mayAdd(row *clerkinvite.Member, m clerkinvite.Membership) bool {
	o, p := row.Organization(), t.users[m.UserID]
	return o != nil && o.AddExisting && o.Role == m.Role && p != nil && t.proven(t, p, row.Email)
}

// wasMember reports whether the user was a member of the organization at some moment since the task began or, if
// Clerk's responses lag, at any moment.
func (s *sequence) wasMember(t *task, p *person) bool {
	return p.ever(s.since(t), func(at moment) bool { return at.member })
}

// wasNoMember reports the same about not being a member.
func (s *sequence) wasNoMember(t *task, p *person) bool {
	return p.ever(s.since(t), func(at moment) bool { return !at.member })
}

// replaces reports whether a member waits for a new invitation into the organization, which needs the
// older one to be revoked first.
func replaces(m *clerkinvite.Member) bool { return inOrganization(m) && m.Sent < m.Send }

// replaced reports whether a member that replaces its invitation waits for this one.
func (s *sequence) replaced(id string) bool {
	return slices.ContainsFunc(s.rows, func(m *clerkinvite.Member) bool { return replaces(m) && m.InvitationID == id })
}

// resending reports whether a resend into the organization replaces the invitation, which may be another tenant's or the
// dashboard's.
func (t *task) resending(inv *invitation) bool { // or has just been, because the row may have changed since it was claimed
	return inv.OrganizationID != "" && slices.ContainsFunc(slices.Concat(t.rows, t.claimedRows), func(m *clerkinvite.Member) bool {
		return replaces(m) && m.Status == clerkinvite.StatusPending && m.Email == inv.Email && (inv.member != m.ID || inv.send < m.Send)
	})
}

// joinable returns the user who should be active as a member, or nil.
func (s *sequence) joinable(m *clerkinvite.Member) *person {
	p := s.welcome(m.Email)
	if p != nil && inOrganization(m) && !p.member {
		return nil
	}
	return p
}

// mustLeave checks that a member of the organization has not left it. Reconcile removes those who have only
// if Clerk shows another member who has been active for some time.
func (s *sequence) mustLeave(m *clerkinvite.Member) {
	if !inOrganization(m) || s.users[m.ClerkUserID].member {
		return
	}
	if slices.ContainsFunc(s.rows, func(other *clerkinvite.Member) bool {
		return inOrganization(other) && other.Status == clerkinvite.StatusActive && s.users[other.ClerkUserID].member &&
			other.SettledAt.Before(s.now().Add(-time.Hour))
	}) {
		s.failf("end: %v is active, but has left the organization", state{m})
	}
}

// organizationOf returns the organization of a member, or "".
func organizationOf(m *clerkinvite.Member) string {
	if inOrganization(m) {
		return organizationID
	}
	return ""
}

// refuses reports whether Clerk has refused the member in a response to the task.
func (t *task) refuses(m *clerkinvite.Member) bool {
	return t.refused[organizationOf(m)+"/"+m.Email] || t.noMembers && inOrganization(m)
}

// askedMember reports whether the task has asked whether a user is a member of the organization.
func (t *task) askedMember(user string) bool {
	_, asked := t.members[user]
	return asked
}

// adoptedInto reports whether another member of the organization waits for an invitation.
func (s *sequence) adoptedInto(inv *invitation) bool {
	return inv.OrganizationID != "" && s.waitedFor(s.rows, inv.ID)
}

// addition is a membership that an attempt has added in time.
type addition struct {
	by   *task
	step int
	rows []*clerkinvite.Member // the members that it may have been for
}

// cleared checks that a member who was withdrawn is not left in the organization by an attempt that has added them.
func (s *sequence) cleared(m *clerkinvite.Member) {
	p := s.holder(m.Email)
	if !inOrganization(m) || m.Status == clerkinvite.StatusActive || m.Status == clerkinvite.StatusPending || p == nil {
		return
	}
	added, is := s.added[p.ID]
	if !is || byID(added.rows, m.ID) == nil || s.notCleared(m, added) {
		return
	}
	if !slices.ContainsFunc(s.rows, func(other *clerkinvite.Member) bool { return inOrganization(other) && other.ClerkUserID == p.ID }) {
		s.failf("end: %v is a member of the organization, to which an attempt has added %s", state{m}, p.ID)
	}
}

// notCleared reports whether a membership may be left over. This needs two conditions. The member was withdrawn by a call
// that began before the user was added, so it may not have seen the membership. And the attempt that added the user
// failed, or its process died, before it ended the membership. Clerk does not show who added a user, so nothing may end
// the membership later.
func (s *sequence) notCleared(m *clerkinvite.Member, added addition) bool {
	withdrawal, attempt := s.withdrawals[m.ID], added.by
	return withdrawal != nil && withdrawal.began <= added.step &&
		(attempt.process.dead || attempt.storeFailed || attempt.failed || attempt.tooLate || s.everLimited[clerkinvitetest.CallRemoveMember])
}

// endedMembership checks that the user of a member whom the task has removed is not left in the organization. If the member
// was not active, this is the user who has verified the address, unless another member is active by the membership, or waits
// for this user and could not be written.
func (t *task) endedMembership(there, m *clerkinvite.Member) {
	unchanged := there != nil && there.Status == clerkinvite.StatusRemoved && there.Version == m.Version
	if there == nil || !inOrganization(m) || t.verb != remove || t.withdrawals[m.ID] != t && !unchanged {
		return
	}
	p, since := t.users[there.ClerkUserID], t.began
	if there.Status != clerkinvite.StatusActive {
		p, since = t.holder(m.Email), t.since(t)
		if p == nil || p.ever(since, func(at moment) bool { return !holds(at.User, m.Email) }) ||
			slices.ContainsFunc(slices.Concat(t.before, t.rows), func(other *clerkinvite.Member) bool {
				unresolved := t.storeFailed && other.ID != m.ID && other.Status.Waits() && holds(p.User, other.Email)
				return inOrganization(other) && (other.ClerkUserID == p.ID || unresolved)
			}) {
			return
		}
	}
	if !p.ever(since, func(at moment) bool { return !at.member }) {
		t.failf("membership: %s has left %s in the organization", t.name, p.ID)
	}
}

// quiet checks that an event of the organization costs no request if no member was in it since the event was received.
func (t *task) quiet(e clerkinvite.Event) {
	for _, gone := range t.purged {
		if isOrganization(gone.ref.TenantID) && gone.done >= t.began {
			return
		}
	}
	if e.OrganizationID != "" && t.requests > 0 && !slices.ContainsFunc(slices.Concat(t.before, t.rows), inOrganization) {
		t.failf("event: %s of an organization without members here makes %d requests", e.Type, t.requests)
	}
}

// adminsInvitation returns the ID of an invitation that an admin created for an address in the dashboard. It may be new, it
// may have ended, or Clerk may not know it.
func (t *task) adminsInvitation(email string) string {
	var unmarked []string
	open := false
	for _, inv := range t.invitations(email) {
		if inv.OrganizationID == "" {
			continue
		}
		open = open || inv.Status == clerkinvite.InvitationPending
		if inv.member == "" {
			unmarked = append(unmarked, inv.ID)
		}
	}
	holder := t.holder(email)
	switch {
	case len(unmarked) > 0 && !t.chance(4):
		return pick(t.sequence, unmarked...)
	case t.dissolved || open || holder != nil && holder.member || t.chance(4):
		t.foreign++
		return fmt.Sprint("orginv_unknown", t.foreign)
	}
	inv := t.clerk.CreateInDashboard(organizationID, email, "org:member", nil)
	t.sayf("an admin has invited %s: %s", email, inv.ID)
	t.bare[inv.ID] = true
	t.membersChanged()
	t.clerkChanged()
	return inv.ID
}
