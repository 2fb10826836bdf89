package peers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// orgEventJS has the fields of an organization event that the library uses, by Clerk's names.
type orgEventJS struct {
	Type       string `json:"type"`
	InstanceID string `json:"instance_id"`
	Timestamp  int64  `json:"timestamp"`
	Data       struct {
		ID             string `json:"id"`
		UserID         string `json:"user_id"`
		OrganizationID string `json:"organization_id"`
		Organization   struct {
			ID string `json:"id"`
		} `json:"organization"`
		PublicUserData struct {
			UserID string `json:"user_id"`
		} `json:"public_user_data"`
	} `json:"data"`
}

// requireSameEvent compares the organization event that Clerk's library returned with the library's.
func requireSameEvent(t *testing.T, d *delivery, theirs json.RawMessage) *clerkinvite.Event {
	t.Helper()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: d.hidden(), InstanceID: clerkinvitetest.InstanceID, Now: func() time.Time { return d.now },
	})
	require.NoError(t, err)
	got, err := v.Verify(d.body, d.header)
	require.NoError(t, err, d)
	parsed, err := clerkinvite.ParseEvent(d.body)
	require.NoError(t, err, d)
	parsed.ID = d.first("Svix-Id")
	require.Equal(t, parsed, got)

	require.JSONEq(t, string(d.body), string(theirs))
	var want orgEventJS
	require.NoError(t, json.Unmarshal(theirs, &want))
	require.Equal(t, want.Type, got.Type)
	require.Equal(t, want.InstanceID, got.InstanceID)
	at := time.UnixMilli(want.Timestamp)
	if want.Timestamp < 1e11 { // in seconds
		at = time.Unix(want.Timestamp, 0)
	}
	require.True(t, at.Equal(got.Timestamp), "%v is not %v", got.Timestamp, at)
	require.Nil(t, got.User)

	data, ids := want.Data, []string{got.OrganizationID, got.InvitationID, got.UserID}
	switch got.Type {
	case clerkinvite.EventOrganizationInvitationAccepted:
		require.NotEmpty(t, data.UserID)
		require.Equal(t, []string{data.OrganizationID, data.ID, data.UserID}, ids)
	case clerkinvite.EventOrganizationInvitationRevoked:
		require.Empty(t, data.UserID)
		require.Equal(t, []string{data.OrganizationID, data.ID, ""}, ids)
	case clerkinvite.EventOrganizationMembershipCreated, clerkinvite.EventOrganizationMembershipUpdated, clerkinvite.EventOrganizationMembershipDeleted:
		require.NotEmpty(t, data.PublicUserData.UserID)
		require.Equal(t, []string{data.Organization.ID, "", data.PublicUserData.UserID}, ids)
	default: // the library does not use it
		require.Equal(t, "organization.deleted", got.Type)
		require.Equal(t, []string{"", "", ""}, ids)
		return got
	}
	require.NotEmpty(t, got.OrganizationID)
	return got
}

// everyOrganizationEvent returns an event of every kind that the fake has for organizations, by its cause.
func everyOrganizationEvent(t *testing.T, c *clerkinvitetest.Clerk) map[string]clerkinvitetest.Webhook {
	t.Helper()
	metadata := map[string]any{"text": "\u2028<b>\u0000é中😀", "clerkinvite": map[string]any{"id": "x", "send": 1}}
	c.AddOrganization(acme, clerkinvitetest.OrganizationSpec{})
	user := c.AddVerifiedUser("grace.hopper@example.com").ID
	steps := []struct {
		name string
		do   func() error
	}{
		{"joins", func() error { c.JoinOrganization(acme, user, "org:member"); return nil }},
		{"becomes an admin", func() error { c.SetMemberRole(acme, user, "org:admin"); return nil }},
		{"leaves", func() error { c.LeaveOrganization(acme, user); return nil }},
		{"is invited and signs up", func() error {
			_, err := c.AcceptInvitation(c.CreateInDashboard(acme, "ünï+<&>'\"@bücher.example.com", "org:member", metadata).ID)
			return err
		}},
		{"is invited and accepts", func() error {
			return c.AcceptOrganization(c.CreateInDashboard(acme, "grace.hopper@example.com", "org:admin", metadata).ID, user)
		}},
		{"invitation revoked", func() error {
			c.RevokeInDashboard(c.CreateInDashboard(acme, "alan@example.com", "org:member", nil).ID)
			return nil
		}},
		{"organization deleted", func() error { c.DeleteOrganization(acme); return nil }},
	}
	out := map[string]clerkinvitetest.Webhook{}
	for _, step := range steps {
		require.NoError(t, step.do(), step.name)
		events := c.OrganizationEvents()
		require.NotEmpty(t, events, step.name)
		for i, w := range events {
			out[fmt.Sprintf("organization: %s, %d", step.name, i)] = w
		}
	}
	return out
}

// randomOrganizationEvent returns an event with every field of Clerk's description, and its type.
func randomOrganizationEvent(r *rand.Rand, at time.Time) (body []byte, kind string) {
	kind = pick(r,
		clerkinvite.EventOrganizationInvitationAccepted, clerkinvite.EventOrganizationInvitationRevoked,
		clerkinvite.EventOrganizationMembershipCreated, clerkinvite.EventOrganizationMembershipUpdated, clerkinvite.EventOrganizationMembershipDeleted)
	id := func(prefix string) string { return prefix + "_" + randomText(r, base62, 27) }
	text := func() any { return pick[any](r, nil, randomText(r, "aZ09 .,\"'\\/<>&\u2028äß中א😀", r.IntN(20))) }
	metadata := func() any {
		m, _ := randomValue(r, 2).(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		if r.IntN(2) == 0 {
			m["clerkinvite"] = randomValue(r, 2)
		}
		return m
	}
	email := randomText(r, "abcüé+.-", 9) + "@example.com"
	organization := map[string]any{
		"object": "organization", "id": id("org"), "name": text(), "slug": text(), "image_url": text(), "has_image": r.IntN(2) == 0,
		"members_count": r.IntN(9), "max_allowed_memberships": r.IntN(9), "admin_delete_enabled": true, "created_by": id("user"),
		"public_metadata": metadata(), "private_metadata": metadata(), "created_at": at.UnixMilli(), "updated_at": at.UnixMilli(),
	}
	user := map[string]any{
		"user_id": id("user"), "first_name": text(), "last_name": text(), "image_url": text(), "has_image": false, "profile_image_url": nil,
		"identifier": pick[any](r, email, nil, "+15555550100"), "username": text(), "banned": false, "deprovisioned": false,
	}
	data := map[string]any{
		"role": pick(r, "org:admin", "org:member"), "role_name": text(), "public_metadata": metadata(), "private_metadata": metadata(),
		"created_at": at.UnixMilli(), "updated_at": at.UnixMilli(),
	}
	if strings.HasPrefix(kind, "organizationMembership.") {
		data["object"], data["id"], data["permissions"] = "organization_membership", id("orgmem"), []string{}
		data["organization"], data["public_user_data"] = organization, user
	} else {
		data["object"], data["id"], data["organization_id"], data["email_address"] = "organization_invitation", id("orginv"), organization["id"], email
		data["url"], data["expires_at"] = text(), pick[any](r, nil, at.UnixMilli())
		data["inviter_id"], data["public_inviter_data"] = pick[any](r, nil, user["user_id"]), pick[any](r, nil, user)
		data["status"] = strings.TrimPrefix(kind, "organizationInvitation.")
	}
	if kind == clerkinvite.EventOrganizationInvitationAccepted {
		data["user_id"], data["data"] = id("user"), map[string]any{"public_organization_data": pick[any](r, nil, organization)}
	}
	body, err := json.Marshal(map[string]any{
		"object": "event", "type": kind, "data": data, "timestamp": at.UnixMilli(), "instance_id": clerkinvitetest.InstanceID,
		"event_attributes": map[string]any{"http_request": map[string]any{"client_ip": "192.0.2.1", "user_agent": text()}},
	})
	if err != nil {
		panic(err)
	}
	return body, kind
}

// The library accepts and reads organization events that Svix's libraries sign, as Clerk's library
// does.
func TestSvixSignsOrganizationEvents(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	row := tally.Start(t, "organization events signed by Svix's libraries for Go and JavaScript, for our verifier and Clerk's")
	seed, n := testkit.Random(t).Uint64(), times(200)
	kinds := map[string]int{}
	for from := 0; from < n; from += chunk {
		r := rand.New(rand.NewPCG(seed, uint64(from)))
		now := time.UnixMilli(1.6e12 + r.Int64N(1e11))
		var messages []message
		for range min(chunk, n-from) {
			at := now.Add(time.Duration(r.IntN(598_000)-299_000) * time.Millisecond)
			body, kind := randomOrganizationEvent(r, at)
			messages = append(messages, message{randomSecret(r, 24), randomID(r), at.UnixMilli(), body})
			kinds[kind]++
		}
		var signatures [][2]string
		p.ask(t, "sign", messages, &signatures)
		require.Len(t, signatures, len(messages))
		var ds []*delivery
		for i, m := range messages {
			at := time.UnixMilli(m.At)
			inGo, err := svixWebhook(t, m.Secret).Sign(m.ID, at, m.Body)
			require.NoError(t, err)
			require.Equal(t, inGo, signatures[i][0])
			for _, signature := range []string{inGo, signatures[i][0], signatures[i][1]} {
				ds = append(ds, &delivery{secrets: []string{m.Secret}, body: m.Body, header: headersOf(m.ID, at, signature), now: now})
			}
		}
		for i, theirs := range p.verify(t, ds) {
			require.True(t, theirs[0].Clerk.Accepted, "%s: %v", theirs[0].Clerk.Error, ds[i])
			event := requireSameEvent(t, ds[i], theirs[0].Clerk.Event)
			require.Equal(t, ds[i].first("Svix-Id"), event.ID)
		}
	}
	t.Logf("%v", kinds)
	row.Done(fmt.Sprintf("%d events, signed by 3 libraries", n), "0 refused, 0 fields that differ", fmt.Sprintf("%d kinds", len(kinds)))
}

// JavaScript changes the organization. The members of a service follow by webhooks alone, signed by
// Svix's library in JavaScript.
func TestTheServiceFollowsTheSDKByWebhooks(t *testing.T) {
	t.Parallel()
	hooks := startPeer(t, "webhooks.mjs")
	b := newOrganizations(t, startPeer(t, "sdk.mjs"), clerkinvitetest.OrganizationSpec{})
	svc, err := clerkinvite.New(clerkinvite.Config{API: b.goAPI, Organizations: b.goAPI, Store: clerkinvitetest.NewMemoryStore(), Now: b.clock.Now})
	require.NoError(t, err)
	secret := clerkinvitetest.WebhookSecret
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}, InstanceID: clerkinvitetest.InstanceID, Now: b.clock.Now,
	})
	require.NoError(t, err)
	handler := svc.WebhookHandler(verifier)
	// deliver delivers the events since the last call, and returns their types.
	deliver := func() (types []string) {
		for _, w := range b.clerk.OrganizationEvents() {
			var signatures [][2]string
			hooks.ask(t, "sign", []message{{secret, w.ID, w.At.UnixMilli(), w.Payload}}, &signatures)
			request := w.Request(secret, "http://127.0.0.1/")
			maps.Copy(request.Header, headersOf(w.ID, w.At, signatures[0][0]))
			response := httptest.NewRecorder()
			handler.ServeHTTP(response, request)
			require.Equal(t, http.StatusNoContent, response.Code)
			event, err := clerkinvite.ParseEvent(w.Payload)
			require.NoError(t, err)
			types = append(types, event.Type)
		}
		return types
	}
	deliver()
	invite := func(email string) *clerkinvite.Member {
		m, err := svc.Invite(t.Context(), clerkinvite.InviteParams{
			TenantID: "t1", Email: email, Organization: &clerkinvite.Organization{ID: acme}, PublicMetadata: object{"Plan": "ü"},
		})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		return m
	}
	requireMember := func(email string, status clerkinvite.Status, reason string) {
		t.Helper()
		m, err := svc.Get(t.Context(), clerkinvite.Ref{TenantID: "t1", Email: email})
		require.NoError(t, err)
		require.Equal(t, []string{string(status), reason}, []string{string(m.Status), m.Reason})
	}
	list := func(email string) []orgInvitationJS {
		return call[pageJS[orgInvitationJS]](t, b, "organizations.getOrganizationInvitationList", object{"organizationId": acme, "emailAddress": email}).Data
	}

	// JavaScript revokes an invitation.
	m := invite(ada)
	seen := list(ada)
	require.Len(t, seen, 1)
	requireOrgView(t, b, seen[0])
	require.JSONEq(t, fmt.Sprintf(`{"Plan":"ü","clerkinvite":{"id":%q,"send":1}}`, m.ID), string(seen[0].PublicMetadata))
	call[orgInvitationJS](t, b, "organizations.revokeOrganizationInvitation", object{"organizationId": acme, "invitationId": m.InvitationID})
	require.Equal(t, []string{clerkinvite.EventOrganizationInvitationRevoked}, deliver())
	requireMember(ada, clerkinvite.StatusRevoked, clerkinvite.ReasonRevokedAtClerk)

	// The person accepts, and JavaScript ends the membership.
	const joan = "joan@example.com"
	invite(joan)
	_, err = b.clerk.Accept(joan)
	require.NoError(t, err)
	require.Equal(t, []string{clerkinvite.EventOrganizationInvitationAccepted, clerkinvite.EventOrganizationMembershipCreated}, deliver())
	requireMember(joan, clerkinvite.StatusActive, "")
	m, err = svc.Get(t.Context(), clerkinvite.Ref{TenantID: "t1", Email: joan})
	require.NoError(t, err)
	user := object{"organizationId": acme, "userId": m.ClerkUserID}
	b.clock.Advance(10 * time.Minute) // at first, an event may be older than the membership
	call[membershipJS](t, b, "organizations.deleteOrganizationMembership", user)
	require.Equal(t, []string{clerkinvite.EventOrganizationMembershipDeleted}, deliver())
	requireMember(joan, clerkinvite.StatusRemoved, clerkinvite.ReasonLeftOrganization)

	// JavaScript adds the user while the person has an invitation.
	invite(joan)
	user["role"] = "org:admin"
	call[membershipJS](t, b, "organizations.createOrganizationMembership", user)
	require.Equal(t, []string{clerkinvite.EventOrganizationMembershipCreated}, deliver())
	requireMember(joan, clerkinvite.StatusActive, "")

	// JavaScript invites first, and the service adopts the invitation.
	const jean = "jean@example.com"
	theirs := call[orgInvitationJS](t, b, "organizations.createOrganizationInvitation", object{"organizationId": acme, "emailAddress": jean, "role": "org:member"})
	require.Equal(t, theirs.ID, invite(jean).InvitationID)
	require.Equal(t, 1, b.clerk.EmailsTo(jean))
	require.Len(t, list(jean), 1)
	_, err = b.clerk.Accept(jean)
	require.NoError(t, err)
	require.Len(t, deliver(), 2)
	requireMember(jean, clerkinvite.StatusActive, "")
}
