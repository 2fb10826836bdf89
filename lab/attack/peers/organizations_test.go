package peers_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const (
	acme  = "org_acme"
	other = "org_other"
	boss  = "user_000001" // the admin of newOrganizations
)

// newOrganizations is newBoth with two organizations, whose only member is an admin.
func newOrganizations(t *testing.T, node *peer, o clerkinvitetest.OrganizationSpec) *both {
	t.Helper()
	b := newBoth(t, node)
	b.addOrganizations(t, o)
	return b
}

// addOrganizations adds acme with options, and other with a third role.
func (b *both) addOrganizations(t *testing.T, o clerkinvitetest.OrganizationSpec) {
	t.Helper()
	require.Equal(t, boss, b.clerk.AddVerifiedUser("boss@example.com").ID)
	b.clerk.AddOrganization(acme, o)
	b.clerk.AddOrganization(other, clerkinvitetest.OrganizationSpec{Roles: []string{"org:admin", "org:member", "org:pilot"}})
	for _, organization := range []string{acme, other} {
		b.clerk.JoinOrganization(organization, boss, "org:admin")
	}
	b.clerk.Settle()
}

// orgInvitationJS is the SDK's OrganizationInvitation.
type orgInvitationJS struct {
	ID              string                       `json:"id"`
	EmailAddress    string                       `json:"emailAddress"`
	Role            string                       `json:"role"`
	RoleName        string                       `json:"roleName"`
	OrganizationID  string                       `json:"organizationId"`
	CreatedAt       int64                        `json:"createdAt"`
	UpdatedAt       int64                        `json:"updatedAt"`
	ExpiresAt       *int64                       `json:"expiresAt"`
	URL             *string                      `json:"url"`
	Status          clerkinvite.InvitationStatus `json:"status"`
	PublicMetadata  json.RawMessage              `json:"publicMetadata"`
	PrivateMetadata json.RawMessage              `json:"privateMetadata"`
	Raw             struct {
		Object    string  `json:"object"`
		InviterID *string `json:"inviter_id"`
	} `json:"_raw"`
}

// requireSameOrgInvitation compares an invitation into an organization in JavaScript with the same
// in Go.
func requireSameOrgInvitation(t *testing.T, want clerkinvite.Invitation, got orgInvitationJS, what string) {
	t.Helper()
	seen := clerkinvite.Invitation{
		ID: got.ID, Email: got.EmailAddress, Status: got.Status, OrganizationID: got.OrganizationID,
		CreatedAt: time.UnixMilli(got.CreatedAt).UTC(), PublicMetadata: want.PublicMetadata,
	}
	if got.URL != nil {
		seen.URL = clerkinvite.NewSecret(*got.URL)
	}
	if got.ExpiresAt != nil {
		at := time.UnixMilli(*got.ExpiresAt).UTC()
		seen.ExpiresAt = &at
	}
	require.Equal(t, want, seen, what)
	require.Equal(t, want.URL.Reveal(), seen.URL.Reveal(), what)
	require.JSONEq(t, string(want.PublicMetadata), string(got.PublicMetadata), what)
	require.GreaterOrEqual(t, got.UpdatedAt, got.CreatedAt, what)
	require.Equal(t, "organization_invitation", got.Raw.Object, what)
}

// requireOrgView compares JavaScript's view of an invitation with the fake's state and with the
// adapter's view.
func requireOrgView(t *testing.T, b *both, got orgInvitationJS) {
	t.Helper()
	held := b.clerk.Invitations(got.EmailAddress)
	i := slices.IndexFunc(held, func(inv clerkinvite.Invitation) bool { return inv.ID == got.ID })
	require.GreaterOrEqual(t, i, 0)
	requireSameOrgInvitation(t, held[i], got, got.ID)
	read, err := b.goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{OrganizationID: got.OrganizationID, Query: got.EmailAddress, Status: got.Status})
	require.NoError(t, err)
	require.Contains(t, read, held[i])
}

// membershipJS is the SDK's OrganizationMembership.
type membershipJS struct {
	ID              string          `json:"id"`
	Role            string          `json:"role"`
	Permissions     []string        `json:"permissions"`
	PublicMetadata  json.RawMessage `json:"publicMetadata"`
	PrivateMetadata json.RawMessage `json:"privateMetadata"`
	CreatedAt       int64           `json:"createdAt"`
	UpdatedAt       int64           `json:"updatedAt"`
	Organization    struct {
		ID                    string `json:"id"`
		MembersCount          int    `json:"membersCount"`
		MaxAllowedMemberships int    `json:"maxAllowedMemberships"`
	} `json:"organization"`
	PublicUserData struct {
		UserID     string `json:"userId"`
		Identifier string `json:"identifier"`
	} `json:"publicUserData"`
}

func (m membershipJS) membership() clerkinvite.Membership {
	return clerkinvite.Membership{OrganizationID: m.Organization.ID, UserID: m.PublicUserData.UserID, Role: m.Role}
}

// memberships returns what JavaScript sees as the adapter returns it.
func memberships(page pageJS[membershipJS]) []clerkinvite.Membership {
	var list []clerkinvite.Membership
	for _, m := range page.Data {
		list = append(list, m.membership())
	}
	return list
}

func withoutTimes(list []clerkinvite.Membership) []clerkinvite.Membership {
	for i := range list {
		list[i].CreatedAt = time.Time{}
	}
	return list
}

// invitationArgs returns the arguments of the SDK for an invitation into an organization.
func invitationArgs(r clerkinvite.InvitationRequest) object {
	args := object{"emailAddress": r.Email, "role": r.Role}
	for name, value := range map[string]string{"redirectUrl": r.RedirectURL, "inviterUserId": r.Inviter} {
		if value != "" {
			args[name] = value
		}
	}
	if r.PublicMetadata != nil {
		args["publicMetadata"] = r.PublicMetadata
	}
	if r.ExpiresInDays != 0 {
		args["expiresInDays"] = r.ExpiresInDays
	}
	if r.SkipEmail {
		args["notify"] = false
	}
	return args
}

func into(organization, email string) clerkinvite.InvitationRequest {
	return clerkinvite.InvitationRequest{OrganizationID: organization, Email: email, Role: "org:member"}
}

func inviting(r clerkinvite.InvitationRequest) attempt {
	args := invitationArgs(r)
	args["organizationId"] = r.OrganizationID
	return attempt{"organizations.createOrganizationInvitation", []any{args}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.CreateInvitation(t.Context(), r)
		return err
	}}
}

func invitingAll(rs ...clerkinvite.InvitationRequest) attempt {
	var items []any
	for _, r := range rs {
		items = append(items, invitationArgs(r))
	}
	return attempt{"organizations.createOrganizationInvitationBulk", []any{rs[0].OrganizationID, items}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.CreateInvitations(t.Context(), rs)
		return err
	}}
}

func revokingIn(organization, id string) attempt {
	args := object{"organizationId": organization, "invitationId": id}
	return attempt{"organizations.revokeOrganizationInvitation", []any{args}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{OrganizationID: organization, ID: id})
		return err
	}}
}

func adding(m clerkinvite.Membership) attempt {
	args := object{"organizationId": m.OrganizationID, "userId": m.UserID, "role": m.Role}
	return attempt{"organizations.createOrganizationMembership", []any{args}, func(t *testing.T, b *both) error {
		return b.goAPI.AddMember(t.Context(), m)
	}}
}

func removing(organization, userID string) attempt {
	args := object{"organizationId": organization, "userId": userID}
	return attempt{"organizations.deleteOrganizationMembership", []any{args}, func(t *testing.T, b *both) error {
		return b.goAPI.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: organization, UserID: userID})
	}}
}

// The fake stores and the adapter reads what JavaScript invites into an organization, with every
// option.
func TestTheSDKInvitesIntoOrganizations(t *testing.T) {
	t.Parallel()
	b := newOrganizations(t, startPeer(t, "sdk.mjs"), clerkinvitetest.OrganizationSpec{})
	metadata := object{"tenantId": "t1", "nested_Key": object{"aB": []any{nil, 1.5, "ü😀\u2028<>&"}}, "clerkinvite": object{"id": "x", "send": 1}}
	wantMetadata, err := json.Marshal(metadata)
	require.NoError(t, err)

	plain := call[orgInvitationJS](t, b, "organizations.createOrganizationInvitation", object{"organizationId": acme, "emailAddress": ada, "role": "org:member"})
	requireOrgView(t, b, plain)
	require.Equal(t, []string{acme, "pending", "org:member", "Member"}, []string{plain.OrganizationID, string(plain.Status), plain.Role, plain.RoleName})
	require.JSONEq(t, `{}`, string(plain.PublicMetadata))
	require.Equal(t, start.AddDate(0, 0, 30).UnixMilli(), *plain.ExpiresAt)
	require.Nil(t, plain.Raw.InviterID)

	b.clock.Advance(1234 * time.Millisecond)
	all := call[orgInvitationJS](t, b, "organizations.createOrganizationInvitation", object{
		"organizationId": other, "emailAddress": "Ada@Example.com", "role": "org:pilot", "inviterUserId": boss, "redirectUrl": site,
		"publicMetadata": metadata, "privateMetadata": object{"a_B": 1}, "notify": false, "expiresInDays": 7,
	})
	requireOrgView(t, b, all)
	require.Equal(t, []string{other, "org:pilot", boss}, []string{all.OrganizationID, all.Role, *all.Raw.InviterID})
	require.JSONEq(t, string(wantMetadata), string(all.PublicMetadata), "keys stay as they are")
	require.JSONEq(t, `{"a_B":1}`, string(all.PrivateMetadata))
	require.Equal(t, start.Add(1234*time.Millisecond).AddDate(0, 0, 7).UnixMilli(), *all.ExpiresAt)
	require.Equal(t, 1, b.clerk.EmailsTo(ada), "the second is without an email")

	bulk := call[pageJS[orgInvitationJS]](t, b, "organizations.createOrganizationInvitationBulk", acme, []any{
		object{"emailAddress": "b1@example.com", "role": "org:admin", "publicMetadata": metadata, "expiresInDays": 365, "redirectUrl": site},
		object{"emailAddress": "b2@example.com", "role": "org:member", "notify": false},
	})
	require.Equal(t, 2, bulk.TotalCount)
	for i, want := range []string{"b1@example.com", "b2@example.com"} {
		require.Equal(t, want, bulk.Data[i].EmailAddress)
		requireOrgView(t, b, bulk.Data[i])
	}
	require.JSONEq(t, string(wantMetadata), string(bulk.Data[0].PublicMetadata))
	require.Equal(t, 0, b.clerk.EmailsTo("b2@example.com"))

	// Pages and filters.
	for i := range 25 {
		require.NoError(t, inviting(into(acme, fmt.Sprintf("p%02d@example.com", (i*7)%25))).inGo(t, b))
		b.clock.Advance(time.Second)
	}
	list := func(args object) pageJS[orgInvitationJS] {
		args["organizationId"] = acme
		return call[pageJS[orgInvitationJS]](t, b, "organizations.getOrganizationInvitationList", args)
	}
	read, err := b.goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{OrganizationID: acme, NewestFirst: true})
	require.NoError(t, err)
	require.Len(t, read, 28)
	require.Len(t, list(object{}).Data, 10, "Clerk's default")
	for offset := 0; offset < 30; offset += 10 {
		page := list(object{"limit": 10, "offset": offset})
		require.Equal(t, len(read), page.TotalCount)
		require.Len(t, page.Data, min(10, len(read)-offset))
		for i, got := range page.Data {
			requireSameOrgInvitation(t, read[offset+i], got, got.ID)
		}
	}
	revoked := call[orgInvitationJS](t, b, "organizations.revokeOrganizationInvitation", object{"organizationId": acme, "invitationId": plain.ID, "requestingUserId": boss})
	require.Equal(t, clerkinvite.InvitationRevoked, revoked.Status)
	requireOrgView(t, b, revoked)
	for status, want := range map[string]int{"pending": 27, "revoked": 1, "accepted": 0, "expired": 0} {
		require.Equal(t, want, list(object{"status": []string{status}}).TotalCount, status)
	}
	require.Equal(t, 1, list(object{"emailAddress": "p07@example.com"}).TotalCount)
}

// Memberships that JavaScript creates, lists and ends.
func TestTheSDKChangesMemberships(t *testing.T) {
	t.Parallel()
	b := newOrganizations(t, startPeer(t, "sdk.mjs"), clerkinvitetest.OrganizationSpec{MaxMembers: 9})
	grace := b.clerk.AddVerifiedUser("grace@example.com").ID
	b.clock.Advance(time.Minute)
	made := call[membershipJS](t, b, "organizations.createOrganizationMembership", object{
		"organizationId": acme, "userId": grace, "role": "org:member", "publicMetadata": object{"a_B": 1},
	})
	want := clerkinvite.Membership{OrganizationID: acme, UserID: grace, Role: "org:member"}
	require.Equal(t, want, made.membership())
	require.JSONEq(t, `{"a_B":1}`, string(made.PublicMetadata))
	require.Equal(t, start.Add(time.Minute).UnixMilli(), made.CreatedAt)
	require.Equal(t, "grace@example.com", made.PublicUserData.Identifier)
	require.Equal(t, []int{2, 9}, []int{made.Organization.MembersCount, made.Organization.MaxAllowedMemberships})

	list := func(args object) pageJS[membershipJS] {
		args["organizationId"] = acme
		return call[pageJS[membershipJS]](t, b, "organizations.getOrganizationMembershipList", args)
	}
	roles, err := b.goAPI.OrganizationRoles(t.Context())
	require.NoError(t, err)
	var keys []string
	for _, role := range call[pageJS[struct{ Key string }]](t, b, "organizationRoles.getOrganizationRoleList").Data {
		keys = append(keys, role.Key)
	}
	require.Equal(t, []string{"org:admin", "org:member", "org:pilot"}, roles)
	require.Equal(t, roles, keys)
	members := b.clerk.Members(acme)
	require.Equal(t, members, memberships(list(object{"orderBy": "+created_at"})))
	require.Equal(t, []clerkinvite.Membership{want}, memberships(list(object{"role": []string{"org:member"}})))
	require.Equal(t, []clerkinvite.Membership{want}, memberships(list(object{"limit": 1})), "newest first")
	found, err := b.goAPI.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{grace, boss, "user_unknown"}})
	require.NoError(t, err)
	page := list(object{"userId": []string{grace, boss, "user_unknown"}})
	require.Equal(t, withoutTimes(found), memberships(page))
	require.Equal(t, 2, page.TotalCount)

	ended := call[membershipJS](t, b, "organizations.deleteOrganizationMembership", object{"organizationId": acme, "userId": grace})
	require.Equal(t, want, ended.membership())
	require.Equal(t, members[:1], b.clerk.Members(acme))
	found, err = b.goAPI.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{grace}})
	require.NoError(t, err)
	require.Empty(t, found)
	require.Empty(t, list(object{"userId": []string{grace}}).Data)
}

// The SDK and the adapter read a refusal about an organization alike.
func TestTheSDKReadsErrorsOfOrganizations(t *testing.T) {
	t.Parallel()
	node := startPeer(t, "sdk.mjs")
	row := tally.Start(t, "refusals about organizations, as Clerk's JavaScript SDK and as our adapter read them")
	// with prepares the organizations, and ada in one of the states below.
	with := func(o clerkinvitetest.OrganizationSpec, behavior clerkinvitetest.Behavior, then ...func(b *both)) func(*both) {
		return func(b *both) {
			b.clerk.SetBehavior(behavior)
			b.addOrganizations(t, o)
			for _, f := range then {
				f(b)
			}
		}
	}
	type options = clerkinvitetest.OrganizationSpec
	type behavior = clerkinvitetest.Behavior
	const first, second = "orginv_000001", "user_000002"
	full := options{MaxMembers: 1}
	user := func(b *both) { b.clerk.AddVerifiedUser(ada) }
	member := func(b *both) {
		user(b)
		b.clerk.JoinOrganization(acme, second, "org:member")
	}
	invited := func(b *both) { b.clerk.CreateInDashboard(acme, ada, "org:member", nil) }
	revoked := func(b *both) { b.clerk.RevokeInDashboard(first) }
	expired := func(b *both) { b.clerk.ExpireNow(first) }
	accepted := func(b *both) { _, _ = b.clerk.Accept(ada) }
	disabled := func(b *both) { b.clerk.DisableOrganizations() }
	usual := with(options{}, behavior{})
	one, two := inviting(into(acme, ada)), invitingAll(into(acme, "b@example.com"), into(acme, ada))
	byStranger, noRole, noAddress, tooMuch := into(acme, ada), into(acme, ada), into(acme, "a@b"), into(acme, ada)
	byStranger.Inviter, noRole.Role = second, "org:pilot"
	tooMuch.PublicMetadata = fmt.Appendf(nil, `{"x":"%09000d"}`, 0)
	joins := adding(clerkinvite.Membership{OrganizationID: acme, UserID: second, Role: "org:member"})
	role := object{"paramName": "role"}
	const (
		unknown, notPending, isMember = "resource_not_found", "organization_invitation_not_pending", "already_a_member_in_organization"
		isFull, notEnabled            = "organization_membership_quota_exceeded", "organization_not_enabled_in_instance"
	)
	cases := []refusal{
		{"full", with(full, behavior{}), one, 403, isFull, nil},
		{"full, some of several", with(options{MaxMembers: 2}, behavior{}), two, 403, isFull, nil},
		{"full, by pending invitations", with(options{MaxMembers: 2}, behavior{}, func(b *both) {
			b.clerk.CreateInDashboard(acme, "b@example.com", "org:member", nil)
		}), one, 403, isFull, nil},
		{"full, without seats", with(full, behavior{OrganizationInsufficientSeats: true}), one, 402, "insufficient_seats", object{"seatsQuantity": 1.0}},
		{"full, for a user", with(full, behavior{}, user), joins, 403, isFull, nil},
		{"unknown organization", nil, one, 404, unknown, nil},
		{
			"unknown or unauthorized organization", func(b *both) { b.clerk.SetBehavior(behavior{OrganizationUnauthorized: true}) }, one,
			404, "organization_not_found_or_unauthorized", nil,
		},
		{"unknown organization, several", nil, two, 404, unknown, nil},
		{"unknown organization, revoke", nil, revokingIn(acme, first), 404, unknown, nil},
		{"unknown organization, member", nil, joins, 404, unknown, nil},
		{"unknown organization, remove", nil, removing(acme, second), 404, unknown, nil},
		{"no organizations", with(options{}, behavior{}, disabled), one, 403, notEnabled, nil},
		{"no organizations, member", with(options{}, behavior{}, user, disabled), joins, 403, notEnabled, nil},
		{"member already", with(options{}, behavior{}, member), one, 400, isMember, nil},
		{"members among several", with(options{}, behavior{}, member), two, 400, isMember, nil},
		{"member again", with(options{}, behavior{}, member), joins, 400, isMember, nil},
		{"invited already", with(options{}, behavior{}, invited), one, 400, "organization_invitation_not_unique", nil},
		{"invited among several", with(options{}, behavior{}, invited), two, 400, "organization_invitation_not_unique", nil},
		{
			"invited already, as for the application", with(options{}, behavior{OrganizationDuplicateRecord: true}, invited), one,
			400, "duplicate_record", object{"emailAddresses": []any{ada}},
		},
		{"last admin", usual, removing(acme, boss), 400, "organization_minimum_permissions_needed", nil},
		{"removed already", with(options{}, behavior{}, user), removing(acme, second), 404, unknown, nil},
		{"unknown user", usual, joins, 404, unknown, nil},
		{"unknown role", usual, inviting(noRole), 404, unknown, role},
		{"unknown role, several", usual, invitingAll(into(acme, "b@example.com"), noRole), 404, unknown, role},
		{
			"unknown role, member", with(options{}, behavior{}, user), adding(clerkinvite.Membership{OrganizationID: acme, UserID: second, Role: "org:pilot"}),
			404, unknown, role,
		},
		{"inviter no admin", with(options{}, behavior{}, user), inviting(byStranger), 403, "not_an_admin_in_organization", nil},
		{"no address", usual, inviting(noAddress), 422, "form_param_format_invalid", object{"paramName": "email_address"}},
		{"too much", usual, inviting(tooMuch), 422, "form_param_exceeds_allowed_size", object{"paramName": "public_metadata"}},
		{"revoked already", with(options{}, behavior{}, invited, revoked), revokingIn(acme, first), 404, notPending, nil},
		{"expired", with(options{}, behavior{}, invited, expired), revokingIn(acme, first), 404, notPending, nil},
		{"accepted already", with(options{}, behavior{}, invited, accepted), revokingIn(acme, first), 404, notPending, nil},
		{"unknown invitation", usual, revokingIn(acme, first), 404, unknown, nil},
		{"another organization's invitation", with(options{}, behavior{}, invited), revokingIn(other, first), 404, unknown, nil},
		{"too many", func(b *both) {
			usual(b)
			b.clerk.SetLimits(clerkinvitetest.Limits{OrganizationCreate: clerkinvitetest.Limit{Requests: 1, Per: time.Hour}})
			_, err := b.clerk.CreateInvitation(t.Context(), into(acme, "first@example.com"))
			require.NoError(t, err)
		}, one, 429, "too_many_requests", nil},
	}
	requireRefusals(t, node, cases, map[string]time.Duration{"too many": time.Hour})
	row.Done(fmt.Sprintf("%d ways to be refused", len(cases)), "0 fields that differ")
}

// The same random steps on two instances, by JavaScript on the first and by the adapter on the
// second. After each step the outcomes, both instances and their events are the same, and both
// clients see the fake's state.
func TestTwoClientsChangeOrganizationsAlike(t *testing.T) {
	t.Parallel()
	node, hooks := startPeer(t, "sdk.mjs"), startPeer(t, "webhooks.mjs")
	row := tally.Start(t, "organizations of two fakes, one changed by our adapter and one by Clerk's JavaScript SDK")
	seed, n := testkit.Random(t).Uint64(), times(100)
	counts, events := map[string]int{}, 0
	const life = 50 // steps per instance
	for from := 0; from < n; from += life {
		r := rand.New(rand.NewPCG(seed, uint64(from)))
		js, inGo := newBoth(t, node), newBoth(t, node)
		pair := []*both{js, inGo}
		behavior := pick(r, clerkinvitetest.Behaviors()...)
		emails := []string{ada, "grace@example.com", "joan+x@example.com", "jean@example.com", "new@example.com"}
		var users []string
		for _, b := range pair {
			b.clerk.SetBehavior(behavior.Behavior)
			b.addOrganizations(t, clerkinvitetest.OrganizationSpec{MaxMembers: 3})
			users = []string{boss, "user_unknown"}
			for _, email := range emails[:3] {
				users = append(users, b.clerk.AddVerifiedUser(email).ID)
			}
			b.clerk.OrganizationEvents()
		}
		var signed []*delivery
		for step := range min(life, n-from) {
			pause := time.Duration(1+r.IntN(1000)) * time.Millisecond
			if r.IntN(20) == 0 {
				pause += time.Duration(r.IntN(20)) * 24 * time.Hour
			}
			settles := r.IntN(2) == 0
			for _, b := range pair {
				b.clock.Advance(pause)
				if settles {
					b.clerk.Settle()
				}
			}
			organization := pick(r, acme, acme, acme, other, other, "org_unknown")
			user, role := pick(r, users...), pick(r, "org:admin", "org:member", "org:member", "org:pilot")
			request := func(email string) clerkinvite.InvitationRequest {
				q := into(organization, email)
				q.Role, q.ExpiresInDays, q.SkipEmail = role, 1+r.IntN(30), r.IntN(2) == 0
				q.PublicMetadata = fmt.Appendf(nil, `{"step":%d}`, step)
				if r.IntN(3) == 0 {
					q.Inviter, q.RedirectURL = pick(r, boss, boss, user), site
				}
				return q
			}
			email := pick(r, emails...)
			id := "orginv_unknown"
			if held := js.clerk.Invitations(email); len(held) > 0 {
				id = pick(r, held...).ID
			}
			what := fmt.Sprintf("%s, step %d: ", behavior.Name, from+step)
			action, outcome := r.IntN(10), ""
			switch action {
			case 0, 1, 2:
				outcome = requireSameOutcome(t, pair, inviting(request(email)), what)
			case 3:
				outcome = requireSameOutcome(t, pair, invitingAll(request(email), request(fmt.Sprintf("new%d@example.com", step))), what)
			case 4:
				outcome = requireSameOutcome(t, pair, revokingIn(organization, id), what)
			case 5, 6:
				outcome = requireSameOutcome(t, pair, adding(clerkinvite.Membership{OrganizationID: organization, UserID: user, Role: role}), what)
			case 7:
				outcome = requireSameOutcome(t, pair, removing(organization, user), what)
			case 8:
				var accepted []bool
				for _, b := range pair {
					_, err := b.clerk.Accept(email)
					accepted = append(accepted, err == nil)
				}
				require.Equal(t, accepted[0], accepted[1], what)
				outcome = fmt.Sprint(accepted[0])
			case 9:
				if members := js.clerk.Members(acme); len(members) > 0 {
					member, role := pick(r, members...).UserID, pick(r, "org:admin", "org:admin", "org:member")
					for _, b := range pair {
						b.clerk.SetMemberRole(acme, member, role)
					}
				}
			}
			counts[fmt.Sprintf("%d %s", action, outcome)]++
			what += fmt.Sprint(action, " ", outcome)

			for _, organization := range []string{acme, other} {
				requireSameInvitations(t, pair, organization, "", what)
				requireSameMemberships(t, pair, organization, users, what)
			}
			requireSameInvitations(t, pair, pick(r, acme, other), pick(r, clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired), what)
			sent := js.clerk.OrganizationEvents()
			require.Equal(t, inGo.clerk.OrganizationEvents(), sent, what)
			for _, w := range sent {
				signed = append(signed, &delivery{
					secrets: []string{clerkinvitetest.WebhookSecret}, body: w.Payload, header: w.Sign(clerkinvitetest.WebhookSecret), now: w.At,
				})
			}
		}
		require.Equal(t, inGo.clerk.SentMail(), js.clerk.SentMail())
		events += len(signed)
		for i, theirs := range hooks.verify(t, signed) {
			require.True(t, theirs[0].Clerk.Accepted, theirs[0].Clerk.Error)
			requireSameEvent(t, signed[i], theirs[0].Clerk.Event)
		}
	}
	t.Logf("%v", counts)
	row.Done(fmt.Sprintf("%d steps by each client, 5 views of each instance after each", n), "0 fields that differ",
		fmt.Sprintf("%d kinds of outcome", len(counts)), fmt.Sprintf("%d events", events))
}

// requireSameOutcome makes an attempt in JavaScript on the first instance and in Go on the second.
// It returns the code with which both are refused, or "".
func requireSameOutcome(t *testing.T, pair []*both, a attempt, what string) string {
	t.Helper()
	_, failure := pair[0].try(t, key, a.method, a.args...)
	err := a.inGo(t, pair[1])
	if failure == nil {
		require.NoError(t, err, what)
		return ""
	}
	var want *clerkinvite.APIError
	require.ErrorAs(t, err, &want, "%s%s: %+v in JavaScript", what, a.method, failure)
	requireSameError(t, want, failure, what)
	return want.Code
}

// requireSameInvitations compares what both clients see of an organization's invitations, on both
// instances.
func requireSameInvitations(t *testing.T, pair []*both, organization string, status clerkinvite.InvitationStatus, what string) {
	t.Helper()
	args := object{"organizationId": organization, "limit": 500, "orderBy": "+created_at"}
	if status != "" {
		args["status"] = []clerkinvite.InvitationStatus{status}
	}
	seen := sameInBoth[pageJS[orgInvitationJS]](t, pair, "organizations.getOrganizationInvitationList", args, what)
	read, err := pair[1].goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{OrganizationID: organization, Status: status})
	require.NoError(t, err, what)
	require.Equal(t, len(read), seen.TotalCount, what)
	require.Len(t, seen.Data, len(read), what)
	for i, got := range seen.Data {
		requireSameOrgInvitation(t, read[i], got, what)
	}
}

// requireSameMemberships compares what both clients see of the users' memberships, on both instances.
func requireSameMemberships(t *testing.T, pair []*both, organization string, users []string, what string) {
	t.Helper()
	args := object{"organizationId": organization, "limit": 500, "userId": users}
	seen := sameInBoth[pageJS[membershipJS]](t, pair, "organizations.getOrganizationMembershipList", args, what)
	found, err := pair[1].goAPI.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: organization, UserIDs: users})
	require.NoError(t, err, what)
	require.Equal(t, withoutTimes(found), memberships(seen), what)
	require.Equal(t, pair[0].clerk.Members(organization), pair[1].clerk.Members(organization), what)
}

// sameInBoth calls a method of the SDK on both instances, which must return the same.
func sameInBoth[T any](t *testing.T, pair []*both, method string, args object, what string) (value T) {
	t.Helper()
	want := call[json.RawMessage](t, pair[0], method, args)
	got := call[json.RawMessage](t, pair[1], method, args)
	require.JSONEq(t, string(want), string(got), what)
	require.NoError(t, json.Unmarshal(got, &value), what)
	return value
}
