package clerkinvitetest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// verified returns the event in a webhook as the library reads it.
func verified(t testing.TB, w clerkinvitetest.Webhook) *clerkinvite.Event {
	t.Helper()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, InstanceID: clerkinvitetest.InstanceID, Now: func() time.Time { return w.At },
	})
	require.NoError(t, err)
	e, err := v.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	return e
}

func TestAcceptSignsUp(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	inv, err := c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: ada, PublicMetadata: json.RawMessage(`{"role":"<admin>"}`)})
	require.NoError(t, err)
	k.Advance(time.Minute)
	w, err := c.Accept("Ada@example.com")
	require.NoError(t, err)
	require.Equal(t, "msg_000001", w.ID)
	require.Equal(t, start.Add(time.Minute), w.At)

	event := parse(t, string(w.Payload))
	require.Equal(t, "event", event["object"])
	require.Equal(t, "user.created", event["type"])
	require.EqualValues(t, w.At.UnixMilli(), event["timestamp"])
	require.Equal(t, clerkinvitetest.InstanceID, event["instance_id"])
	require.Contains(t, event, "event_attributes")
	user := event["data"].(map[string]any)
	require.Equal(t, map[string]any{"role": "<admin>"}, user["public_metadata"])
	require.Equal(t, []any{map[string]any{
		"object": "email_address", "id": "idn_000001", "email_address": ada, "reserved": false, "linked_to": []any{},
		"verification": map[string]any{"object": "verification_ticket", "status": "verified", "strategy": "ticket", "attempts": nil, "expire_at": nil},
		"created_at":   float64(w.At.UnixMilli()), "updated_at": float64(w.At.UnixMilli()),
	}}, user["email_addresses"])
	require.Contains(t, string(w.Payload), "<admin>", "no HTML escapes")

	users, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
	require.NoError(t, err)
	require.Equal(t, []clerkinvite.User{{
		ID: "user_000001", PrimaryEmailID: "idn_000001", CreatedAt: w.At,
		Emails: []clerkinvite.UserEmail{{ID: "idn_000001", Address: ada, Verified: true}},
	}}, users)
	e := verified(t, w)
	require.Equal(t, clerkinvite.EventUserCreated, e.Type)
	require.Equal(t, &users[0], e.User)
	require.Equal(t, w.At, e.Timestamp)
	require.Equal(t, clerkinvite.InvitationAccepted, c.Invitations(ada)[0].Status)

	_, err = c.Accept(ada)
	require.Error(t, err)
	_, err = c.AcceptInvitation(inv.ID)
	require.ErrorContains(t, err, "is accepted")
	_, err = c.AcceptInvitation("inv_x")
	require.ErrorContains(t, err, "there is no invitation")
}

// A person with an account signs in with the link, so there is no user.created.
func TestAcceptSignsIn(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]clerkinvitetest.EmailSpec{
		"verified": {Verified: true}, "unverified": {}, "reserved": {Verified: true, Reserved: true}, "null": {NullVerification: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, k := newClerk()
			e.Address = "Ada@Example.com"
			u := c.AddUser(clerkinvitetest.UserSpec{ID: "user_old", Emails: []clerkinvitetest.EmailSpec{{Address: "first@example.com"}, e}})
			require.Equal(t, e.Verified, u.Emails[1].Verified)
			r := clerkinvite.InvitationRequest{Email: ada, IgnoreExisting: true, PublicMetadata: json.RawMessage(`{"a":1}`)}
			_, err := c.CreateInvitation(t.Context(), r)
			require.NoError(t, err)
			k.Advance(time.Second)
			second, err := c.CreateInvitation(t.Context(), r)
			require.NoError(t, err)

			w, err := c.Accept(ada)
			require.NoError(t, err)
			event := verified(t, w)
			require.Equal(t, clerkinvite.EventUserUpdated, event.Type)
			require.Equal(t, "user_old", event.UserID)
			require.Equal(t, clerkinvite.UserEmail{ID: u.Emails[1].ID, Address: "Ada@Example.com", Verified: true}, event.User.Emails[1])
			require.False(t, event.User.Emails[0].Verified)
			require.Equal(t, map[string]any{"a": 1.0}, parse(t, string(w.Payload))["data"].(map[string]any)["public_metadata"])
			all := c.Invitations(ada)
			require.Equal(t, []clerkinvite.InvitationStatus{clerkinvite.InvitationPending, clerkinvite.InvitationAccepted}, []clerkinvite.InvitationStatus{all[0].Status, all[1].Status}, "the newest")
			require.Equal(t, second.ID, all[1].ID)
			_, err = c.AcceptInvitation(all[0].ID)
			require.NoError(t, err)
		})
	}
}

func TestAcceptByBarredUser(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	u := c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: ada}}})
	mustCreate(t, c, ada)
	refused := func(why string) {
		t.Helper()
		_, err := c.Accept(ada)
		require.ErrorContains(t, err, why)
		require.Len(t, c.OpenInvitations(ada), 1)
	}
	shown := func() clerkinvite.User {
		t.Helper()
		u, err := c.GetUser(t.Context(), u.ID)
		require.NoError(t, err)
		return *u
	}

	locked := verified(t, c.LockUser(u.ID, time.Minute)).User
	require.True(t, locked.Locked)
	require.Equal(t, time.Minute, locked.LockEndsIn)
	refused("locked")
	k.Advance(time.Minute - time.Millisecond)
	require.Equal(t, time.Second, shown().LockEndsIn)
	refused("locked")
	k.Advance(time.Millisecond)
	require.False(t, shown().Locked)
	require.Zero(t, shown().LockEndsIn)

	require.True(t, verified(t, c.LockUser(u.ID, 0)).User.Locked)
	k.Advance(24 * time.Hour)
	require.Zero(t, shown().LockEndsIn)
	require.True(t, shown().Locked)
	require.False(t, verified(t, c.UnlockUser(u.ID)).User.Locked)

	require.True(t, verified(t, c.DeprovisionUser(u.ID)).User.Deprovisioned)
	refused("deprovisioned")
	require.True(t, verified(t, c.BanUser(u.ID)).User.Banned)
	refused("banned")
}

func TestUsersWithoutInvitations(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	mustCreate(t, c, ada)
	e := verified(t, c.SignUp(ada, false))
	require.Equal(t, clerkinvite.EventUserCreated, e.Type)
	require.False(t, e.User.Emails[0].Verified)
	require.Len(t, c.OpenInvitations(ada), 1, "signing up another way does not accept it")
	squatter := e.UserID

	e = verified(t, c.SignUp(ada, true)) // an unverified address belongs to no user
	require.Equal(t, clerkinvite.EventUserCreated, e.Type)
	require.True(t, e.User.Emails[0].Verified)
	owner := e.UserID
	require.NotEqual(t, squatter, owner)
	require.Equal(t, owner, verified(t, c.SignUp(ada, true)).UserID, "a verified one does")

	e = verified(t, c.AddEmail(owner, clerkinvitetest.EmailSpec{Address: "second@example.com"}))
	require.Equal(t, clerkinvite.EventUserUpdated, e.Type)
	require.Len(t, e.User.Emails, 2)
	require.Equal(t, e.User.Emails[0].ID, e.User.PrimaryEmailID)
	k.Advance(time.Hour)
	w := c.VerifyEmail(owner, "Second@example.com")
	require.True(t, verified(t, w).User.Emails[1].Verified)
	require.Contains(t, string(w.Payload), "verification_otp")

	require.Equal(t, clerkinvite.EventUserCreated, verified(t, c.UserCreated(owner)).Type)
	again := c.UserUpdated(owner)
	require.NotEqual(t, w.ID, again.ID)
	require.Equal(t, owner, verified(t, again).UserID)

	e = verified(t, c.DeleteUser(owner))
	require.Equal(t, clerkinvite.EventUserDeleted, e.Type)
	require.Equal(t, owner, e.UserID)
	require.Nil(t, e.User)
	users, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"second@example.com"}, IDs: []string{owner, squatter}})
	require.NoError(t, err)
	require.Len(t, users, 1)
	require.Equal(t, squatter, users[0].ID)
	require.Equal(t, 2, c.Requests()[clerkinvitetest.CallFindUsers], "by address and by ID")
	require.NotEqual(t, owner, verified(t, c.SignUp("second@example.com", true)).UserID, "a new account has a new ID")

	require.Panics(t, func() { c.DeleteUser(owner) })
	require.Panics(t, func() { c.VerifyEmail(squatter, "unknown@example.com") })
	require.Panics(t, func() { c.AddUser(clerkinvitetest.UserSpec{ID: squatter}) })
	require.Panics(t, func() { c.AddUser(clerkinvitetest.UserSpec{Primary: 1}) })
	require.Equal(t, start.Add(-time.Hour), c.AddUser(clerkinvitetest.UserSpec{CreatedAt: start.Add(-time.Hour)}).CreatedAt)
	require.Equal(t, start.Add(time.Hour), c.AddVerifiedUser("x@example.com").CreatedAt)
}

func TestIDsAreUnique(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	c.AddUser(clerkinvitetest.UserSpec{ID: "user_000001"})
	require.Equal(t, "user_000002", c.AddUser(clerkinvitetest.UserSpec{}).ID)
}

// The test vector of the Standard Webhooks specification.
func TestSignWebhook(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		h := clerkinvitetest.SignWebhook(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
		require.Equal(t, http.Header{
			"Svix-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Svix-Timestamp": {"1614265330"},
			"Svix-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
		}, h)
	}
	for _, secret := range []string{"", "whsec_", "whsec_?"} {
		require.Panics(t, func() { clerkinvitetest.SignWebhook(secret, "msg_1", start, nil) })
	}
}

func TestWebhookRequest(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	w := c.SignUp(ada, true)
	got := 0
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && r.Method == http.MethodPost && r.URL.Path == "/hooks" && bytes.Equal(body, w.Payload) &&
			r.Header.Get("Svix-Signature") == w.Sign(clerkinvitetest.WebhookSecret).Get("Svix-Signature") {
			got++
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	handler.ServeHTTP(httptest.NewRecorder(), w.Request(clerkinvitetest.WebhookSecret, "/hooks"))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	resp, err := server.Client().Do(w.Request(clerkinvitetest.WebhookSecret, server.URL+"/hooks"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 2, got)
	require.Panics(t, func() { w.Request(clerkinvitetest.WebhookSecret, "http://a b/") })
}
