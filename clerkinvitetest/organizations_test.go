package clerkinvitetest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const acme = "org_acme"

// fullAPI is what the fake and the real adapter implement.
type fullAPI interface {
	clerkinvite.ClerkAPI
	clerkinvite.OrganizationAPI
}

// bothIn is both with an organization, whose only member is the admin with the returned ID.
func bothIn(t *testing.T, o clerkinvitetest.OrganizationSpec, test func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api fullAPI, admin string)) {
	t.Helper()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		full, ok := api.(fullAPI)
		require.True(t, ok)
		test(t, c, k, full, addAcme(c, o))
	})
}

func addAcme(c *clerkinvitetest.Clerk, o clerkinvitetest.OrganizationSpec) (admin string) {
	c.AddOrganization(acme, o)
	admin = c.AddVerifiedUser("admin@example.com").ID
	c.JoinOrganization(acme, admin, "org:admin")
	c.OrganizationEvents()
	c.Settle()
	return admin
}

func into(organization, email string) clerkinvite.InvitationRequest {
	return clerkinvite.InvitationRequest{Email: email, OrganizationID: organization, Role: "org:member"}
}

func mustInvite(t testing.TB, api clerkinvite.ClerkAPI, email string) *clerkinvite.Invitation {
	t.Helper()
	inv, err := api.CreateInvitation(t.Context(), into(acme, email))
	require.NoError(t, err)
	return inv
}

// data returns the types of the events, and the data of the last one.
func data(t testing.TB, events []clerkinvitetest.Webhook) (types []string, last map[string]any) {
	t.Helper()
	for _, e := range events {
		event := parse(t, string(e.Payload))
		require.Equal(t, clerkinvitetest.InstanceID, event["instance_id"])
		types = append(types, event["type"].(string))
		last = event["data"].(map[string]any)
		require.Equal(t, types[len(types)-1], verified(t, e).Type, "signed")
	}
	return types, last
}

func TestOrganizationRules(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, admin string) {
		c.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{Roles: []string{"org:admin", "org:pilot"}})
		plain := c.AddVerifiedUser("plain@example.com").ID
		c.JoinOrganization(acme, plain, "org:member")
		stranger := c.AddVerifiedUser("stranger@example.com").ID
		unverified := c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "unverified@example.com"}}}).ID
		c.JoinOrganization(acme, unverified, "org:member")

		inv := mustInvite(t, api, "Ada@Example.com")
		require.Equal(t, "orginv_000001", inv.ID)
		require.Equal(t, acme, inv.OrganizationID)
		require.Equal(t, ada, inv.Email)
		require.Equal(t, clerkinvite.InvitationPending, inv.Status)
		require.Equal(t, []clerkinvite.Invitation{*inv}, c.OpenInvitations(ada))
		mail := c.SentMail()
		require.Equal(t, inv.ID, mail[0].InvitationID)
		require.Equal(t, "organization_invitation", mail[0].Template)

		with := func(change func(r *clerkinvite.InvitationRequest)) clerkinvite.InvitationRequest {
			r := into(acme, "new@example.com")
			change(&r)
			return r
		}
		for _, test := range []struct {
			name   string
			r      clerkinvite.InvitationRequest
			status int
			code   string
			meta   map[string]any
		}{
			{"pending", into(acme, "ADA@example.com"), 400, "organization_invitation_not_unique", nil},
			{"member", into(acme, "plain@example.com"), 400, "already_a_member_in_organization", nil},
			{"unknown organization", into("org_x", ada), 404, "resource_not_found", nil},
			{"unknown role", into("org_other", ada), 404, "resource_not_found", map[string]any{"param_name": "role"}},
			{"inviter not an admin", with(func(r *clerkinvite.InvitationRequest) { r.Inviter = plain }), 403, "not_an_admin_in_organization", nil},
			{"inviter not a member", with(func(r *clerkinvite.InvitationRequest) { r.Inviter = stranger }), 403, "not_an_admin_in_organization", nil},
			{"days", with(func(r *clerkinvite.InvitationRequest) { r.RedirectURL = "x" }), 422, "form_param_format_invalid", map[string]any{"param_name": "redirect_url"}},
			{"address", with(func(r *clerkinvite.InvitationRequest) { r.Email = "x@y" }), 422, "form_param_format_invalid", map[string]any{"param_name": "email_address"}},
		} {
			_, err := api.CreateInvitation(t.Context(), test.r)
			require.Equal(t, test.meta, requireRefused(t, err, test.status, test.code).Meta, test.name)
			fine := into(test.r.OrganizationID, "fine@example.com")
			if test.r.OrganizationID == "org_other" {
				fine.Role = "org:pilot"
			}
			_, err = api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{fine, test.r})
			require.Equal(t, test.meta, requireRefused(t, err, test.status, test.code).Meta, test.name)
		}
		require.Empty(t, c.Invitations("fine@example.com"), "all or nothing")
		require.Equal(t, 1, c.Emails())

		for _, r := range []clerkinvite.InvitationRequest{ // allowed
			{Email: ada}, // into the application
			{Email: ada, OrganizationID: "org_other", Role: "org:pilot"},
			with(func(r *clerkinvite.InvitationRequest) { r.Inviter, r.SkipEmail = admin, true }),
			into(acme, "stranger@example.com"),
			into(acme, "unverified@example.com"), // a member who has not verified it
		} {
			_, err := api.CreateInvitation(t.Context(), r)
			require.NoError(t, err, r.Email)
		}
		require.Equal(t, 5, c.Emails(), "one with notify=false")

		revoke := func(organization, id string) error {
			_, err := api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id, OrganizationID: organization})
			return err
		}
		requireRefused(t, revoke("org_other", inv.ID), 404, "resource_not_found")
		requireRefused(t, revoke("", inv.ID), 404, "resource_not_found")
		requireRefused(t, revoke(acme, "inv_000001"), 404, "resource_not_found")
		requireRefused(t, revoke("org_x", inv.ID), 404, "resource_not_found")
		require.NoError(t, revoke(acme, inv.ID))
		requireRefused(t, revoke(acme, inv.ID), 404, "organization_invitation_not_pending")
		require.Equal(t, clerkinvite.InvitationRevoked, c.Invitations(ada)[0].Status)
		types, last := data(t, c.OrganizationEvents())
		require.Equal(t, "organizationInvitation.revoked", types[len(types)-1])
		require.Equal(t, inv.ID, last["id"])
		second := mustInvite(t, api, ada) // a revoked one does not block
		c.ExpireNow(second.ID)
		requireRefused(t, revoke(acme, second.ID), 404, "organization_invitation_not_pending")
		third := mustInvite(t, api, ada)
		c.RevokeInDashboard(third.ID)
		types, last = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationInvitation.revoked"}, types)
		require.Equal(t, third.ID, last["id"])

		c.DisableOrganizations()
		_, err := api.CreateInvitation(t.Context(), into(acme, ada))
		requireRefused(t, err, 403, "organization_not_enabled_in_instance")
		_, err = api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{AllOrganizations: true})
		requireRefused(t, err, 403, "organization_not_enabled_in_instance")
		_, err = api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{admin}})
		requireRefused(t, err, 403, "organization_not_enabled_in_instance")
		mustCreate(t, api, "application@example.com")
	})
}

func TestMemberships(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api fullAPI, admin string) {
		joined := map[string]time.Time{admin: k.Now()}
		k.Advance(time.Second)
		user := c.AddVerifiedUser(ada).ID
		joined[user] = k.Now()
		find := func(ids ...string) []clerkinvite.Membership {
			t.Helper()
			found, err := api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: ids})
			require.NoError(t, err)
			for i := range found {
				require.Equal(t, joined[found[i].UserID], found[i].CreatedAt)
				found[i].CreatedAt = time.Time{}
			}
			return found
		}
		add := func(organization, userID, role string) error {
			return api.AddMember(t.Context(), clerkinvite.Membership{OrganizationID: organization, UserID: userID, Role: role})
		}
		remove := func(organization, userID string) error {
			return api.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: organization, UserID: userID})
		}
		asAdmin := clerkinvite.Membership{OrganizationID: acme, UserID: admin, Role: "org:admin"}
		asMember := clerkinvite.Membership{OrganizationID: acme, UserID: user, Role: "org:member"}
		require.Equal(t, []clerkinvite.Membership{asAdmin}, find(admin, user, "user_x"))
		require.Empty(t, find("user_x"))

		requireRefused(t, add("org_x", user, "org:member"), 404, "resource_not_found")
		require.Equal(t, map[string]any{"param_name": "role"}, requireRefused(t, add(acme, user, "org:pilot"), 404, "resource_not_found").Meta)
		require.Nil(t, requireRefused(t, add(acme, "user_x", "org:member"), 404, "resource_not_found").Meta)
		requireRefused(t, remove(acme, user), 404, "resource_not_found")
		require.NoError(t, add(acme, user, "org:member"))
		requireRefused(t, add(acme, user, "org:admin"), 400, "already_a_member_in_organization")
		require.Equal(t, []clerkinvite.Membership{asMember, asAdmin}, find(admin, user))
		require.Equal(t, []clerkinvite.Membership{asAdmin, asMember}, c.Members(acme))
		types, last := data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.created"}, types)
		require.Equal(t, "orgmem_000002", last["id"])

		requireRefused(t, remove(acme, admin), 400, "organization_minimum_permissions_needed")
		c.SetMemberRole(acme, user, "org:admin")
		types, last = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.updated"}, types)
		require.Equal(t, "org:admin", last["role"])
		require.NoError(t, remove(acme, admin))
		types, last = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.deleted"}, types)
		require.Equal(t, admin, last["public_user_data"].(map[string]any)["user_id"])
		require.Empty(t, find(admin))

		c.LeaveOrganization(acme, user)
		types, _ = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.deleted"}, types)
		require.Empty(t, c.Members(acme))
		require.Zero(t, c.Emails())
		require.Equal(t, [2]int{5, 3}, pair(c.Requests()[clerkinvitetest.CallAddMember], c.Requests()[clerkinvitetest.CallRemoveMember]))
	})
}

// Members and pending invitations together are the organization's seats.
func TestFullOrganization(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{MaxMembers: 3}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, _ string) {
		user := c.AddVerifiedUser("user@example.com").ID
		create := func(email string) error {
			_, err := api.CreateInvitation(t.Context(), into(acme, email))
			return err
		}
		add := func() error {
			return api.AddMember(t.Context(), clerkinvite.Membership{OrganizationID: acme, UserID: user, Role: "org:member"})
		}
		three := []clerkinvite.InvitationRequest{into(acme, "1@example.com"), into(acme, "2@example.com"), into(acme, "3@example.com")}
		_, err := api.CreateInvitations(t.Context(), three)
		require.Contains(t, requireRefused(t, err, 403, "organization_membership_quota_exceeded").LongMessage, "limit of 3 ")
		_, err = api.CreateInvitations(t.Context(), three[:2])
		require.NoError(t, err)
		requireRefused(t, create("3@example.com"), 403, "organization_membership_quota_exceeded")
		requireRefused(t, add(), 403, "organization_membership_quota_exceeded")
		requireRefused(t, create("1@example.com"), 400, "organization_invitation_not_unique")

		c.SetBehavior(clerkinvitetest.Behavior{OrganizationInsufficientSeats: true})
		require.Equal(t, map[string]any{"seats_quantity": 3.0}, requireRefused(t, create("3@example.com"), 402, "insufficient_seats").Meta)
		_, err = c.Accept("1@example.com") // has a seat
		require.NoError(t, err)
		requireRefused(t, create("3@example.com"), 402, "insufficient_seats")
		c.ExpireNow(c.OpenInvitations("2@example.com")[0].ID)
		require.NoError(t, add())
		requireRefused(t, create("3@example.com"), 402, "insufficient_seats")
		c.LeaveOrganization(acme, user)
		require.NoError(t, create("3@example.com"))

		c.AddOrganization("org_two", clerkinvitetest.OrganizationSpec{MaxMembers: 2})
		c.SetBehavior(clerkinvitetest.Behavior{BulkKeepsPartial: true})
		for i := range three {
			three[i].OrganizationID = "org_two"
		}
		_, err = api.CreateInvitations(t.Context(), three)
		requireRefused(t, err, 403, "organization_membership_quota_exceeded")
		require.Len(t, c.Invitations("2@example.com"), 2)
		require.Len(t, c.Invitations("3@example.com"), 1)
	})
}

func TestBehaviorOfOrganizations(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, _ string) {
		first := mustInvite(t, api, ada)
		create := func(organization string, emails ...string) error {
			var rs []clerkinvite.InvitationRequest
			for _, email := range emails {
				rs = append(rs, into(organization, email))
			}
			_, err := api.CreateInvitations(t.Context(), rs)
			return err
		}
		c.SetBehavior(clerkinvitetest.Behavior{OrganizationDuplicateRecord: true})
		require.Equal(t, map[string]any{"email_addresses": []any{ada}}, requireRefused(t, create(acme, "b@example.com", ada), 400, "duplicate_record").Meta)
		c.SetBehavior(clerkinvitetest.Behavior{OrganizationUnauthorized: true})
		requireRefused(t, create("org_x", ada), 404, "organization_not_found_or_unauthorized")
		c.RevokeInDashboard(first.ID)
		mustInvite(t, api, ada)

		list := func(q clerkinvite.InvitationQuery) int {
			t.Helper()
			page, err := api.ListInvitations(t.Context(), q)
			require.NoError(t, err)
			return len(page)
		}
		one, all := clerkinvite.InvitationQuery{OrganizationID: acme}, clerkinvite.InvitationQuery{AllOrganizations: true}
		require.Equal(t, [2]int{1, 1}, [2]int{list(one), list(all)})
		c.SetBehavior(clerkinvitetest.Behavior{OrganizationListsRevoked: true})
		require.Equal(t, [2]int{2, 2}, [2]int{list(one), list(all)})
		c.RevokeInDashboard(mustCreate(t, api, ada).ID)
		require.Zero(t, list(clerkinvite.InvitationQuery{}), "not those into the application")

		c.SetBehavior(clerkinvitetest.Behavior{BulkShuffles: true, BulkLosesMetadata: true, ListHidesMetadata: true})
		mark := json.RawMessage(`{"a":1}`)
		created, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{
			{Email: "1@example.com", OrganizationID: acme, Role: "org:member", PublicMetadata: mark}, into(acme, "2@example.com"),
		})
		require.NoError(t, err)
		require.Equal(t, "2@example.com", created[0].Email)
		require.JSONEq(t, string(mark), string(created[1].PublicMetadata))
		page, err := api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{OrganizationID: acme, Query: "1@example.com"})
		require.NoError(t, err)
		require.JSONEq(t, `{}`, string(page[0].PublicMetadata))
		_, err = c.Accept("1@example.com")
		require.NoError(t, err)
		_, last := data(t, c.OrganizationEvents())
		require.Equal(t, map[string]any{}, last["public_metadata"], "the membership has lost it")
	})
}

func TestOrganizationLag(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, admin string) {
		c.SetBehavior(clerkinvitetest.Behavior{Lag: true})
		user := c.AddVerifiedUser(ada).ID
		shown := func() (pending, members int) {
			t.Helper()
			page, err := api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{AllOrganizations: true, Status: clerkinvite.InvitationPending})
			require.NoError(t, err)
			found, err := api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{user, admin}})
			require.NoError(t, err)
			return len(page), len(found)
		}
		require.Equal(t, [2]int{0, 1}, pair(shown()))
		inv := mustInvite(t, api, ada)
		c.CreateInDashboard(acme, "dashboard@example.com", "org:member", nil)
		require.Equal(t, [2]int{1, 1}, pair(shown()), "the one of the dashboard")
		_, err := api.CreateInvitation(t.Context(), into(acme, ada))
		requireRefused(t, err, 400, "organization_invitation_not_unique")
		c.Settle()
		require.Equal(t, [2]int{2, 1}, pair(shown()))
		require.NoError(t, c.AcceptOrganization(inv.ID, user))
		require.Equal(t, [2]int{2, 1}, pair(shown()))
		c.Settle()
		require.Equal(t, [2]int{1, 2}, pair(shown()))
		require.NoError(t, api.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: acme, UserID: user}))
		require.Equal(t, [2]int{1, 2}, pair(shown()))
		require.Len(t, c.Members(acme), 1)
		c.Settle()
		require.Equal(t, [2]int{1, 1}, pair(shown()))
	})
}

func TestAcceptIntoOrganization(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, admin string) {
		members := func() (ids []string) {
			for _, m := range c.Members(acme) {
				ids = append(ids, m.UserID)
			}
			return ids
		}
		joined := []string{"organizationInvitation.accepted", "organizationMembership.created"}

		// A person without an account.
		r := into(acme, ada)
		r.PublicMetadata, r.Role = json.RawMessage(`{"a":1}`), "org:admin"
		inv, err := api.CreateInvitation(t.Context(), r)
		require.NoError(t, err)
		w, err := c.Accept(ada)
		require.NoError(t, err)
		event := verified(t, w)
		require.Equal(t, "user.created", event.Type)
		require.Equal(t, []clerkinvite.UserEmail{{ID: event.User.Emails[0].ID, Address: ada, Verified: true}}, event.User.Emails)
		require.Equal(t, map[string]any{}, parse(t, string(w.Payload))["data"].(map[string]any)["public_metadata"])
		events := c.OrganizationEvents()
		types, last := data(t, events)
		require.Equal(t, joined, types)
		require.Equal(t, map[string]any{"a": 1.0}, last["public_metadata"], "the membership has it")
		require.Equal(t, "org:admin", last["role"])
		_, accepted := data(t, events[:1])
		require.Equal(t, []any{inv.ID, acme, event.UserID, "accepted"}, []any{accepted["id"], accepted["organization_id"], accepted["user_id"], accepted["status"]})
		require.Equal(t, []string{admin, event.UserID}, members())
		require.Equal(t, clerkinvite.InvitationAccepted, c.Invitations(ada)[0].Status)
		require.Empty(t, c.OrganizationEvents())

		// A user, in the application.
		user := c.AddVerifiedUser("user@example.com").ID
		inv = mustInvite(t, api, "User@example.com")
		require.ErrorContains(t, c.AcceptOrganization(inv.ID, admin), "not verified")
		c.BanUser(admin)
		require.ErrorContains(t, c.AcceptOrganization(inv.ID, admin), "banned")
		require.NoError(t, c.AcceptOrganization(inv.ID, user))
		require.ErrorContains(t, c.AcceptOrganization(inv.ID, user), "is accepted")
		require.ErrorContains(t, c.AcceptOrganization("orginv_x", user), "no invitation")
		require.ErrorContains(t, c.AcceptOrganization(mustCreate(t, api, "x@example.com").ID, user), "not into an organization")
		types, _ = data(t, c.OrganizationEvents())
		require.Equal(t, joined, types)
		require.Contains(t, members(), user)
		_, err = api.CreateInvitation(t.Context(), into(acme, "user@example.com"))
		requireRefused(t, err, 400, "already_a_member_in_organization")

		// A user, by the link, with an address that was not verified.
		unverified := c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "late@example.com"}}}).ID
		inv = mustInvite(t, api, "late@example.com")
		w, err = c.AcceptInvitation(inv.ID)
		require.NoError(t, err)
		require.Equal(t, "user.updated", verified(t, w).Type)
		require.Contains(t, members(), unverified)

		// A person who signs up with another address, and a member who follows the link.
		mustInvite(t, api, "work@example.com")
		_, err = c.AcceptAs("work@example.com", "private@example.com")
		require.NoError(t, err)
		require.Len(t, c.Members(acme), 5)
		inv = mustInvite(t, api, "again@example.com")
		c.OrganizationEvents()
		c.AddEmail(user, clerkinvitetest.EmailSpec{Address: "again@example.com", Verified: true})
		require.NoError(t, c.AcceptOrganization(inv.ID, user))
		types, _ = data(t, c.OrganizationEvents())
		require.Equal(t, joined[:1], types)

		// A sign-up without the link is not an acceptance, whatever the behavior.
		c.SetBehavior(clerkinvitetest.Behavior{SignUpAccepts: true})
		mustInvite(t, api, "signs-up@example.com")
		c.SignUp("signs-up@example.com", true)
		require.Len(t, c.OpenInvitations("signs-up@example.com"), 1)
		require.Len(t, c.Members(acme), 5)
	})
}

func TestOrganizationLists(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api fullAPI, _ string) {
		c.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		for i := range 4 {
			k.Advance(time.Second)
			mustInvite(t, api, fmt.Sprintf("p%d@example.com", i))
			_, err := api.CreateInvitation(t.Context(), into("org_other", fmt.Sprintf("p%d@example.com", i)))
			require.NoError(t, err)
		}
		mustCreate(t, api, "p0@example.com")
		c.RevokeInDashboard("orginv_000001")
		c.ExpireNow("orginv_000003")
		list := func(q clerkinvite.InvitationQuery) (ids []string) {
			t.Helper()
			page, err := api.ListInvitations(t.Context(), q)
			require.NoError(t, err)
			for _, inv := range page {
				ids = append(ids, strings.TrimPrefix(inv.ID, "orginv_00000"))
				require.Equal(t, strings.HasPrefix(inv.ID, "orginv_"), inv.OrganizationID != "")
			}
			return ids
		}
		require.Equal(t, []string{"inv_000001"}, list(clerkinvite.InvitationQuery{}))
		require.Equal(t, []string{"inv_000001"}, list(clerkinvite.InvitationQuery{Query: "p0@example.com"}))
		require.Empty(t, list(clerkinvite.InvitationQuery{Query: "orginv_000005"}))
		require.Equal(t, []string{"3", "5", "7"}, list(clerkinvite.InvitationQuery{OrganizationID: acme}))
		require.Equal(t, []string{"7", "5", "3"}, list(clerkinvite.InvitationQuery{OrganizationID: acme, NewestFirst: true}))
		require.Equal(t, []string{"5"}, list(clerkinvite.InvitationQuery{OrganizationID: acme, Limit: 1, Offset: 1}))
		require.Equal(t, []string{"5"}, list(clerkinvite.InvitationQuery{OrganizationID: acme, Query: "P2@example.com"}))
		require.Equal(t, []string{"1"}, list(clerkinvite.InvitationQuery{OrganizationID: acme, Status: clerkinvite.InvitationRevoked}))
		require.Equal(t, []string{"3"}, list(clerkinvite.InvitationQuery{OrganizationID: acme, Status: clerkinvite.InvitationExpired}))
		require.Equal(t, []string{"2", "3", "4", "5", "6", "7", "8"}, list(clerkinvite.InvitationQuery{AllOrganizations: true}))
		require.Equal(t, []string{"5", "6"}, list(clerkinvite.InvitationQuery{AllOrganizations: true, Query: "p2@example.com"}))
		require.Empty(t, list(clerkinvite.InvitationQuery{AllOrganizations: true, Query: "orginv_000005"}), "not by ID")
		_, err := api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{OrganizationID: "org_x"})
		requireRefused(t, err, 404, "resource_not_found")
		c.SetBehavior(clerkinvitetest.Behavior{QueryMatchesParts: true})
		require.Equal(t, []string{"5", "6"}, list(clerkinvite.InvitationQuery{AllOrganizations: true, Query: "p2@"}))
		require.Empty(t, list(clerkinvite.InvitationQuery{OrganizationID: acme, Query: "p2@"}))
		require.Equal(t, map[clerkinvitetest.Call]int{
			clerkinvitetest.CallOrganizationCreate: 8, clerkinvitetest.CallCreate: 1, clerkinvitetest.CallList: 3,
			clerkinvitetest.CallOrganizationList: 8, clerkinvitetest.CallOrganizationListAll: 4,
		}, c.Requests())
	})
}

func TestDeleteOrganization(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, admin string) {
		c.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		c.JoinOrganization("org_other", admin, "org:member")
		inv := mustInvite(t, api, ada)
		_, err := api.CreateInvitation(t.Context(), into("org_other", ada))
		require.NoError(t, err)
		c.OrganizationEvents()
		c.DeleteOrganization(acme)
		types, last := data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organization.deleted"}, types)
		require.Equal(t, map[string]any{"object": "organization", "id": acme, "slug": "org-acme", "deleted": true}, last)
		require.Nil(t, c.Members(acme))
		require.Len(t, c.Invitations(ada), 1, "of the other organization")
		_, err = api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: inv.ID, OrganizationID: acme})
		requireRefused(t, err, 404, "resource_not_found")
		page, err := api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{AllOrganizations: true})
		require.NoError(t, err)
		require.Len(t, page, 1)

		c.SetBehavior(clerkinvitetest.Behavior{DeleteEndsMemberships: true})
		user := c.AddVerifiedUser("user@example.com").ID
		c.JoinOrganization("org_other", user, "org:member")
		c.OrganizationEvents()
		c.DeleteUser(user)
		types, _ = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.deleted"}, types)
		c.DeleteOrganization("org_other")
		types, _ = data(t, c.OrganizationEvents())
		require.Equal(t, []string{"organizationMembership.deleted", "organization.deleted"}, types)

		c.SetBehavior(clerkinvitetest.Behavior{})
		c.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		c.JoinOrganization("org_other", admin, "org:member")
		c.OrganizationEvents()
		c.DeleteUser(admin)
		require.Empty(t, c.OrganizationEvents())
		require.Empty(t, c.Members("org_other"))
	})
}

func TestOrganizationLimits(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api fullAPI, _ string) {
		c.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		limits := clerkinvitetest.DocumentedLimits()
		require.Equal(t, clerkinvitetest.Limit{Requests: 250, Per: time.Hour}, limits.OrganizationCreate)
		require.Equal(t, clerkinvitetest.Limit{Requests: 50, Per: time.Hour}, limits.OrganizationCreateBulk)
		limits.OrganizationCreate.Requests, limits.OrganizationCreateBulk.Requests = 2, 1
		limits.Create.Requests, limits.CreateBulk.Requests = 1, 1
		c.SetLimits(limits)
		create := func(organization string) error {
			_, err := api.CreateInvitation(t.Context(), into(organization, fmt.Sprintf("p%d@example.com", c.RequestCount())))
			return err
		}
		bulk := func() error {
			_, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{into(acme, fmt.Sprintf("p%d@example.com", c.RequestCount()))})
			return err
		}
		require.NoError(t, create(acme))
		require.NoError(t, create("org_other"))
		require.Equal(t, time.Hour, requireRefused(t, create(acme), 429, "too_many_requests").RetryAfter, "of the instance")
		require.NoError(t, bulk(), "its own")
		requireRefused(t, bulk(), 429, "too_many_requests")
		mustCreate(t, api, ada) // its own
		k.Advance(time.Hour)
		require.NoError(t, create(acme))
		c.Fail(clerkinvitetest.RateLimited(time.Minute))
		requireRefused(t, create(acme), 429, "too_many_requests")
		requireRefused(t, bulk(), 429, "too_many_requests")
	})
}

// The adapter's errors for parameters that cannot be sent, and no request.
func TestInvalidOrganizationParams(t *testing.T) {
	t.Parallel()
	bothIn(t, clerkinvitetest.OrganizationSpec{}, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api fullAPI, admin string) {
		create := func(change func(r *clerkinvite.InvitationRequest)) error {
			r := into(acme, ada)
			change(&r)
			_, err := api.CreateInvitation(t.Context(), r)
			return err
		}
		list := func(q clerkinvite.InvitationQuery) error {
			_, err := api.ListInvitations(t.Context(), q)
			return err
		}
		find := func(organization string, ids ...string) error {
			_, err := api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: organization, UserIDs: ids})
			return err
		}
		_, mixed := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{into(acme, ada), into("org_other", "b@example.com")})
		_, revoke := api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "orginv_1", OrganizationID: "../x"})
		for i, test := range []struct {
			err   error
			field string
		}{
			{create(func(r *clerkinvite.InvitationRequest) { r.OrganizationID = "../x" }), "OrganizationID"},
			{create(func(r *clerkinvite.InvitationRequest) { r.OrganizationID = "" }), "Role"},
			{create(func(r *clerkinvite.InvitationRequest) { r.OrganizationID, r.Role, r.Inviter = "", "", admin }), "Inviter"},
			{create(func(r *clerkinvite.InvitationRequest) { r.Role = "" }), "Role"},
			{create(func(r *clerkinvite.InvitationRequest) { r.Inviter = "a/b" }), "Inviter"},
			{create(func(r *clerkinvite.InvitationRequest) { r.Template = "invitation" }), "Template"},
			{create(func(r *clerkinvite.InvitationRequest) { r.IgnoreExisting = true }), "IgnoreExisting"},
			{mixed, "OrganizationID"},
			{revoke, "OrganizationID"},
			{list(clerkinvite.InvitationQuery{OrganizationID: acme, AllOrganizations: true}), "AllOrganizations"},
			{list(clerkinvite.InvitationQuery{OrganizationID: "a b"}), "OrganizationID"},
			{list(clerkinvite.InvitationQuery{OrganizationID: acme, Query: "orginv_1"}), "Query"},
			{find("", admin), "OrganizationID"},
			{find(acme), "UserIDs"},
			{find(acme, slices.Repeat([]string{admin}, 101)...), "UserIDs"},
			{find(acme, "-"+admin), "UserIDs"},
			{api.AddMember(t.Context(), clerkinvite.Membership{OrganizationID: acme, UserID: admin}), "Role"},
			{api.AddMember(t.Context(), clerkinvite.Membership{OrganizationID: "a/b", UserID: admin, Role: "r"}), "OrganizationID"},
			{api.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: acme, UserID: "../x"}), "UserID"},
		} {
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, test.err, &invalid, i)
			require.Equal(t, test.field, invalid.Field, i)
		}
		require.Zero(t, c.RequestCount())
	})
}

func TestOrganizationsDirectAndHTTPAreTheSame(t *testing.T) {
	t.Parallel()
	for _, b := range clerkinvitetest.Behaviors() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			w := newTwins(t, b.Behavior)
			admin := addAcme(w.direct, clerkinvitetest.OrganizationSpec{MaxMembers: 8})
			require.Equal(t, admin, addAcme(w.behind, clerkinvitetest.OrganizationSpec{MaxMembers: 8}))
			arrange := func(do func(c *clerkinvitetest.Clerk) any) {
				t.Helper()
				w.step(t, "arrange", func(c *clerkinvitetest.Clerk, _ fullAPI) (any, error) { return do(c), nil })
			}
			create := func(r clerkinvite.InvitationRequest) {
				t.Helper()
				w.step(t, "create", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) { return api.CreateInvitation(t.Context(), r) })
			}
			bulk := func(rs ...clerkinvite.InvitationRequest) {
				t.Helper()
				w.step(t, "bulk", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) {
					return api.CreateInvitations(t.Context(), rs)
				})
			}
			list := func(q clerkinvite.InvitationQuery) {
				t.Helper()
				w.step(t, "list", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) { return api.ListInvitations(t.Context(), q) })
			}
			revoke := func(id string) {
				t.Helper()
				w.step(t, "revoke", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) {
					return api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id, OrganizationID: acme})
				})
			}
			change := func(m clerkinvite.Membership) {
				t.Helper()
				w.step(t, "add", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) { return nil, api.AddMember(t.Context(), m) })
				w.step(t, "remove", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) { return nil, api.RemoveMember(t.Context(), m) })
			}
			everything := func() {
				t.Helper()
				for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
					list(clerkinvite.InvitationQuery{Status: status})
					list(clerkinvite.InvitationQuery{Status: status, OrganizationID: acme, NewestFirst: true})
					list(clerkinvite.InvitationQuery{Status: status, AllOrganizations: true})
				}
				w.step(t, "find", func(_ *clerkinvitetest.Clerk, api fullAPI) (any, error) {
					return api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{admin, "user_000002", "user_000003", "user_x"}})
				})
				arrange(func(c *clerkinvitetest.Clerk) any {
					return []any{c.SentMail(), c.Members(acme), c.Invitations(ada), c.OrganizationEvents()}
				})
			}

			arrange(func(c *clerkinvitetest.Clerk) any { return c.AddVerifiedUser("Grace@example.com") })
			arrange(func(c *clerkinvitetest.Clerk) any {
				return c.CreateInDashboard(acme, "foreign@example.com", "org:admin", nil)
			})
			r := into(acme, "Ada@example.com")
			r.PublicMetadata, r.ExpiresInDays, r.Inviter = json.RawMessage(`{ "n": 12345678901234567890, "h": "<&>" }`), 7, admin
			create(r)
			create(r)
			create(into(acme, "foreign@example.com"))
			create(into(acme, "admin@example.com"))
			create(into("org_x", ada))
			create(clerkinvite.InvitationRequest{Email: ada, OrganizationID: acme, Role: "org:pilot"})
			create(clerkinvite.InvitationRequest{Email: ada})
			bulk(into(acme, "1@example.com"), into(acme, "grace@example.com"), into(acme, "2@example.com"))
			bulk(into(acme, "3@example.com"), into(acme, ada))
			bulk(into(acme, "3@example.com"), into(acme, "admin@example.com"))
			bulk(into(acme, "4@example.com"), into(acme, "5@example.com"), into(acme, "6@example.com"), into(acme, "7@example.com"))
			everything()
			arrange(func(c *clerkinvitetest.Clerk) any { c.Settle(); return nil })
			everything()
			arrange(func(c *clerkinvitetest.Clerk) any { w, err := c.Accept(ada); return []any{w, err} })
			arrange(func(c *clerkinvitetest.Clerk) any { w, err := c.Accept("1@example.com"); return []any{w, err} })
			arrange(func(c *clerkinvitetest.Clerk) any { return c.AcceptOrganization("orginv_000004", "user_000002") })
			list(clerkinvite.InvitationQuery{OrganizationID: acme, Query: "ADA@example.com"})
			list(clerkinvite.InvitationQuery{AllOrganizations: true, Query: "ada"})
			list(clerkinvite.InvitationQuery{OrganizationID: "org_x"})
			list(clerkinvite.InvitationQuery{OrganizationID: acme, Query: "é@example.com"})
			for _, id := range []string{"orginv_000001", "orginv_000001", "orginv_000002", "inv_000001", "orginv_x"} {
				revoke(id)
			}
			change(clerkinvite.Membership{OrganizationID: acme, UserID: "user_000002", Role: "org:admin"})
			change(clerkinvite.Membership{OrganizationID: acme, UserID: "user_x", Role: "org:member"})
			change(clerkinvite.Membership{OrganizationID: "org_x", UserID: admin, Role: "org:member"})
			change(clerkinvite.Membership{OrganizationID: acme, UserID: admin, Role: "org:member"})
			everything()
			arrange(func(c *clerkinvitetest.Clerk) any { return c.DeleteUser("user_000003") })
			arrange(func(c *clerkinvitetest.Clerk) any { c.Settle(); return nil })
			everything()
			arrange(func(c *clerkinvitetest.Clerk) any { c.DeleteOrganization(acme); return nil })
			everything()
			require.Equal(t, w.direct.Requests(), w.behind.Requests())
		})
	}
}

func TestOrganizationPanics(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	admin := addAcme(c, clerkinvitetest.OrganizationSpec{})
	user := c.AddVerifiedUser(ada).ID
	for name, do := range map[string]func(){
		"add twice":              func() { c.AddOrganization(acme, clerkinvitetest.OrganizationSpec{}) },
		"delete unknown":         func() { c.DeleteOrganization("org_x") },
		"join unknown":           func() { c.JoinOrganization("org_x", user, "org:member") },
		"join, unknown user":     func() { c.JoinOrganization(acme, "user_x", "org:member") },
		"join, unknown role":     func() { c.JoinOrganization(acme, user, "org:pilot") },
		"join twice":             func() { c.JoinOrganization(acme, admin, "org:member") },
		"leave, not a member":    func() { c.LeaveOrganization(acme, user) },
		"role of a non-member":   func() { c.SetMemberRole(acme, user, "org:member") },
		"unknown role":           func() { c.SetMemberRole(acme, admin, "org:pilot") },
		"dashboard unknown":      func() { c.CreateInDashboard("org_x", ada, "org:member", nil) },
		"dashboard unknown role": func() { c.CreateInDashboard(acme, ada, "org:pilot", nil) },
		"dashboard metadata":     func() { c.CreateInDashboard(acme, ada, "org:member", map[string]any{"f": func() {}}) },
	} {
		require.Panics(t, do, name)
	}
	inv := c.CreateInDashboard(acme, ada, "org:member", map[string]any{"a": 1})
	require.JSONEq(t, `{"a":1}`, string(inv.PublicMetadata))
	require.Zero(t, c.Emails())
	_, err := c.CreateInvitation(t.Context(), into(acme, ada))
	requireRefused(t, err, 400, "organization_invitation_not_unique")
}

const organizationInvitationJSON = `{"object":"organization_invitation","id":"orginv_000001","email_address":"ada@example.com","role":"org:member","role_name":"Member",
	"organization_id":"org_acme","inviter_id":"user_000001","status":"pending","public_metadata":{"a":1},"private_metadata":{"b":2},
	"public_inviter_data":{"user_id":"user_000001","first_name":null,"last_name":null,"image_url":"https://img.clerk.example.test/user_000001","has_image":false,"identifier":"admin@example.com"},
	"url":"https://clerk.example.test/v1/tickets/accept?ticket=ticket_of_orginv_000001",
	"expires_at":1772960400000,"created_at":1772355600000,"updated_at":1772355600000}`

const membershipJSON = `{"object":"organization_membership","id":"orgmem_000002","role":"org:member","role_name":"Member","permissions":[],
	"public_metadata":{"a":1},"private_metadata":{},"organization":{"object":"organization","id":"org_acme","name":"org_acme","slug":"org-acme",
	"image_url":"https://img.clerk.example.test/org_acme","has_image":false,"members_count":2,"pending_invitations_count":1,"max_allowed_memberships":5,"admin_delete_enabled":true,
	"public_metadata":{},"private_metadata":{},"created_at":1772355600000,"updated_at":1772355600000},
	"public_user_data":{"user_id":"user_000002","first_name":null,"last_name":null,"image_url":"https://img.clerk.example.test/user_000002","has_image":false,
	"identifier":"user@example.com","profile_image_url":null,"banned":false,"deprovisioned":false},"created_at":1772355600000,"updated_at":1772355600000}`

func TestHandlerOrganizations(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	admin := addAcme(c, clerkinvitetest.OrganizationSpec{MaxMembers: 5})
	user := c.AddVerifiedUser("user@example.com").ID
	root := serve(t, c) + "/v1/"
	of := root + "organizations/" + acme
	send(t, "POST", of+"/invitations", `{"email_address":"Ada@example.com","role":"org:member","inviter_user_id":"`+admin+`","public_metadata":{"a":1},
		"private_metadata":{"b":2},"redirect_url":null,"expires_in_days":7,"notify":true}`).requireJSON(t, 200, organizationInvitationJSON)
	send(t, "GET", of+"/invitations", "").requireJSON(t, 200, `{"data":[`+organizationInvitationJSON+`],"total_count":1}`)
	send(t, "GET", root+"organization_invitations?query=ada@example.com&status=pending&order_by=-email_address", "").requireJSON(t, 200, `{"data":[`+
		strings.Replace(organizationInvitationJSON, `"object"`, `"public_organization_data":{"id":"org_acme","name":"org_acme","slug":"org-acme","image_url":"https://img.clerk.example.test/org_acme","has_image":false},"object"`, 1)+
		`],"total_count":1}`)
	send(t, "POST", of+"/memberships", `{"user_id":"`+user+`","role":"org:member","public_metadata":{"a":1},"private_metadata":null}`).requireJSON(t, 200, membershipJSON)
	send(t, "GET", of+"/memberships?user_id="+user+"&user_id=user_x", "").requireJSON(t, 200, `{"data":[`+membershipJSON+`],"total_count":1}`)
	send(t, "GET", of+"/memberships?role=org:member&limit=1", "").requireJSON(t, 200, `{"data":[`+membershipJSON+`],"total_count":1}`)
	require.EqualValues(t, 2, parse(t, send(t, "GET", of+"/memberships?order_by=created_at", "").body)["total_count"])
	deleted := strings.Replace(membershipJSON, `"members_count":2`, `"members_count":1`, 1)
	send(t, "DELETE", of+"/memberships/"+user, "").requireJSON(t, 200, deleted)

	r := send(t, "POST", of+"/invitations/bulk", `[{"email_address":"b@example.com","role":"org:member","notify":false,"public_metadata":null,"inviter_user_id":null}]`)
	require.Equal(t, 200, r.status)
	bulk := parse(t, r.body)
	require.EqualValues(t, 1, bulk["total_count"])
	item := bulk["data"].([]any)[0].(map[string]any)
	require.Equal(t, []any{nil, nil, map[string]any{}}, []any{item["inviter_id"], item["public_inviter_data"], item["public_metadata"]})
	require.Equal(t, 1, c.Emails())

	revoke := of + "/invitations/orginv_000001/revoke"
	r = send(t, "POST", revoke, `{"requesting_user_id":"`+user+`"}`)
	require.Equal(t, 403, r.status)
	require.Contains(t, r.body, "not_an_admin_in_organization")
	send(t, "POST", revoke, `{"requesting_user_id":"`+admin+`"}`).requireJSON(t, 200, strings.Replace(organizationInvitationJSON, "pending", "revoked", 1))
	for _, body := range []string{"", "null", "{}"} {
		require.Equal(t, 200, send(t, "POST", of+"/invitations/"+mustInvite(t, c, ada).ID+"/revoke", body).status)
	}

	c.SetBehavior(clerkinvitetest.Behavior{NoURL: true, NoExpiresAt: true})
	r = send(t, "POST", of+"/invitations", `{"email_address":"c@example.com","role":"org:admin"}`)
	require.Equal(t, []any{nil, nil, "Admin"}, []any{parse(t, r.body)["url"], parse(t, r.body)["expires_at"], parse(t, r.body)["role_name"]})
}
