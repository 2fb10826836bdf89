package contract_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// content returns how Clerk describes the payload of an event, and its example.
func content(doc *openapi3.T, event string) *openapi3.MediaType {
	hook := doc.Paths.Value(event)
	if hook == nil {
		return nil
	}
	return hook.Post.RequestBody.Value.Content["application/json"]
}

// payloadFaults returns the violations in a payload.
func payloadFaults(doc *openapi3.T, payload []byte) []string {
	payloads.Add(1)
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal(payload, &envelope); err != nil {
		return []string{"no JSON object: " + err.Error()}
	}
	var event string
	if err := json.Unmarshal(envelope["type"], &event); err != nil {
		return []string{"/type: no string"}
	}
	described := content(doc, event)
	if described == nil {
		return []string{fmt.Sprintf("/type: there is no event %q", event)}
	}
	faults := schemaFaults(described.Schema.Value, payload, openapi3.VisitAsRequest())
	// The envelope's schema is open, because each event adds its data to it.
	for name := range envelope {
		known := false
		for _, part := range described.Schema.Value.AllOf {
			known = known || part.Value.Properties[name] != nil
		}
		if !known {
			faults = append(faults, "/"+name+": not described")
		}
	}
	return faults
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	doc := webhooks(t)
	eachBehavior(t, func(t *testing.T, b *bundle) {
		types := map[string]bool{}
		check := func(w clerkinvitetest.Webhook) {
			t.Helper()
			require.Empty(t, payloadFaults(doc, w.Payload), "%s", w.Payload)
			event, err := clerkinvite.ParseEvent(w.Payload)
			require.NoError(t, err)
			types[event.Type] = true
		}
		for _, spec := range variants() {
			id := b.clerk.AddUser(spec).ID
			check(b.clerk.UserCreated(id))
			check(b.clerk.UserUpdated(id))
			check(b.clerk.AddEmail(id, clerkinvitetest.EmailSpec{Address: id + "@example.com"}))
			check(b.clerk.VerifyEmail(id, id+"@example.com"))
			check(b.clerk.BanUser(id))
			check(b.clerk.DeprovisionUser(id))
			check(b.clerk.LockUser(id, time.Minute))
			check(b.clerk.LockUser(id, 0))
			check(b.clerk.DeleteUser(id))
		}
		check(b.clerk.SignUp("new@example.com", true))
		check(b.clerk.SignUp("other@example.com", false))
		check(b.clerk.SignUp("new@example.com", true)) // who signs in

		accept := func(email string) {
			t.Helper()
			w, err := b.clerk.Accept(email)
			require.NoError(t, err)
			check(w)
		}
		b.clerk.CreateForeign("ada@example.com", map[string]any{"a": map[string]any{"b": nil}})
		accept("ada@example.com") // signs up
		b.clerk.CreateForeign("ada@example.com", nil)
		accept("ada@example.com") // signs in
		b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "grace@example.com", NullVerification: true}}})
		b.clerk.CreateForeign("grace@example.com", nil)
		accept("grace@example.com")
		w, err := b.clerk.AcceptInvitation(b.clerk.CreateForeign("joan@example.com", nil).ID)
		require.NoError(t, err)
		check(w)
		require.Equal(t, map[string]bool{"user.created": true, "user.updated": true, "user.deleted": true}, types)
	})
}

func TestOrganizationWebhooks(t *testing.T) {
	t.Parallel()
	doc := webhooks(t)
	example, err := json.Marshal(content(doc, clerkinvite.EventOrganizationInvitationAccepted).Example)
	require.NoError(t, err)
	exampleFaults := payloadFaults(doc, example)
	require.NotEmpty(t, exampleFaults)
	eachBehavior(t, func(t *testing.T, b *bundle) {
		c := b.clerk
		types := map[string]bool{}
		check := func() {
			t.Helper()
			for _, w := range c.OrganizationEvents() {
				event, err := clerkinvite.ParseEvent(w.Payload)
				require.NoError(t, err)
				types[event.Type] = true
				// The schema of an acceptance contradicts its example. The fake is like the example.
				wrong := []string{}
				if event.Type == clerkinvite.EventOrganizationInvitationAccepted {
					wrong = exampleFaults
				}
				require.Subset(t, wrong, payloadFaults(doc, w.Payload), "%s", w.Payload)
				switch event.Type {
				case clerkinvite.EventOrganizationInvitationAccepted, clerkinvite.EventOrganizationMembershipCreated,
					clerkinvite.EventOrganizationMembershipUpdated, clerkinvite.EventOrganizationMembershipDeleted:
					require.NotEmpty(t, event.UserID)
					require.NotEmpty(t, event.OrganizationID)
				case clerkinvite.EventOrganizationInvitationRevoked:
					require.NotEmpty(t, event.InvitationID)
					require.NotEmpty(t, event.OrganizationID)
				}
			}
		}
		const organization = "org_events"
		c.AddOrganization(organization, clerkinvitetest.OrganizationSpec{})
		for i, spec := range variants() {
			id := c.AddUser(spec).ID
			c.JoinOrganization(organization, id, []string{"org:admin", "org:member"}[i%2])
			c.SetMemberRole(organization, id, "org:admin")
			c.LeaveOrganization(organization, id)
			check()
		}
		for _, metadata := range []map[string]any{nil, {"a": map[string]any{"b": nil}}} {
			revoked := c.CreateInDashboard(organization, "revoked@example.com", "org:member", metadata)
			c.RevokeInDashboard(revoked.ID)
			accepted := c.CreateInDashboard(organization, "ada@example.com", "org:member", metadata)
			_, err := c.AcceptInvitation(accepted.ID)
			require.NoError(t, err)
			check()
		}
		c.DeleteOrganization(organization)
		check()
		for _, event := range []string{
			clerkinvite.EventOrganizationInvitationAccepted, clerkinvite.EventOrganizationInvitationRevoked, clerkinvite.EventOrganizationMembershipCreated,
			clerkinvite.EventOrganizationMembershipUpdated, clerkinvite.EventOrganizationMembershipDeleted, "organization.deleted",
		} {
			require.True(t, types[event], event)
		}
	})
}

// The library reads Clerk's own examples, of all events.
func TestExamplesOfWebhooks(t *testing.T) {
	t.Parallel()
	doc := webhooks(t)
	read := func(event string, example any) {
		payload, err := json.Marshal(example)
		require.NoError(t, err)
		e, err := clerkinvite.ParseEvent(payload)
		require.NoError(t, err, "%s: %s", event, payload)
		switch event {
		case clerkinvite.EventUserCreated, clerkinvite.EventUserUpdated:
			require.Empty(t, payloadFaults(doc, payload))
			require.NotEmpty(t, e.UserID)
			require.Equal(t, e.UserID, e.User.ID)
		case clerkinvite.EventUserDeleted:
			require.Empty(t, payloadFaults(doc, payload))
			require.NotEmpty(t, e.UserID)
		default:
		}
	}
	for event := range doc.Paths.Map() {
		c := content(doc, event)
		require.True(t, c.Example != nil || len(c.Examples) > 0, event)
		if c.Example != nil {
			read(event, c.Example)
		}
		for _, example := range c.Examples {
			read(event, example.Value.Value)
		}
	}
}

func TestWrongPayloadsAreCaught(t *testing.T) {
	t.Parallel()
	doc := webhooks(t)
	clerk := clerkinvitetest.NewClerk()
	user := clerk.AddVerifiedUser("ada@example.com")
	for _, test := range []struct {
		break_ func(envelope, data map[string]any)
		fault  string
	}{
		{func(envelope, _ map[string]any) { delete(envelope, "instance_id") }, `/instance_id: property "instance_id" is missing`},
		{func(envelope, _ map[string]any) { envelope["timestamp"] = "now" }, "/timestamp: value must be an integer"},
		{func(envelope, _ map[string]any) { envelope["type"] = "user.accepted" }, `/type: there is no event "user.accepted"`},
		{func(envelope, _ map[string]any) { envelope["id"] = "msg_1" }, "/id: not described"},
		{func(envelope, _ map[string]any) { delete(envelope, "data") }, `/data: property "data" is missing`},
		{func(_, data map[string]any) { delete(data, "banned") }, `/data/banned: property "banned" is missing`},
		{func(_, data map[string]any) { data["email"] = "ada@example.com" }, `/data: property "email" is unsupported`},
		{func(_, data map[string]any) { data["email_addresses"] = nil }, "/data/email_addresses: Value is not nullable"},
		{func(_, data map[string]any) {
			data["email_addresses"].([]any)[0].(map[string]any)["verification"].(map[string]any)["status"] = "proven"
		}, `/data/email_addresses/0/verification/status: value is not one of the allowed values ["unverified","verified","failed","expired"]`},
	} {
		var envelope map[string]any
		require.NoError(t, json.Unmarshal(clerk.UserCreated(user.ID).Payload, &envelope))
		test.break_(envelope, envelope["data"].(map[string]any))
		payload, err := json.Marshal(envelope)
		require.NoError(t, err)
		require.Contains(t, payloadFaults(doc, payload), test.fault)
	}
}
