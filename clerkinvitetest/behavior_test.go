package clerkinvitetest_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// Behaviors has each switch, and sets one at a time.
func TestBehaviorsAreComplete(t *testing.T) {
	t.Parallel()
	names, flipped := map[string]bool{}, map[string]int{}
	for i, b := range clerkinvitetest.Behaviors() {
		names[b.Name] = true
		n := 0
		v := reflect.ValueOf(b.Behavior)
		for f := range v.NumField() {
			if !v.Field(f).IsZero() {
				n++
				flipped[v.Type().Field(f).Name]++
			}
		}
		require.Equal(t, min(i, 1), n, b.Name)
	}
	require.Len(t, names, len(clerkinvitetest.Behaviors()))
	require.Len(t, flipped, reflect.TypeFor[clerkinvitetest.Behavior]().NumField())
	require.Equal(t, 2, flipped["RevokeExpired"])
}

func request(email string) clerkinvite.InvitationRequest {
	return clerkinvite.InvitationRequest{Email: email}
}

func TestBehaviorOfCreates(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.AddVerifiedUser("verified@example.com")
		c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "unverified@example.com"}}})
		c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "reserved@example.com", Reserved: true}}})
		create := func(email string) error {
			_, err := api.CreateInvitation(t.Context(), request(email))
			return err
		}

		refused := requireRefused(t, create("verified@example.com"), 422, "form_identifier_exists")
		require.Equal(t, map[string]any{"param_name": "email_address"}, refused.Meta)
		requireRefused(t, create("reserved@example.com"), 422, "form_identifier_exists")
		require.NoError(t, create("unverified@example.com"))
		refused = requireRefused(t, create("unverified@example.com"), 400, "duplicate_record")
		require.Equal(t, map[string]any{"email_addresses": []any{"unverified@example.com"}}, refused.Meta)

		c.SetBehavior(clerkinvitetest.Behavior{NoErrorAddresses: true})
		require.Nil(t, requireRefused(t, create("unverified@example.com"), 400, "duplicate_record").Meta)
		c.SetBehavior(clerkinvitetest.Behavior{IdentifierExists400: true})
		requireRefused(t, create("verified@example.com"), 400, "form_identifier_exists")
		c.RevokeInDashboard(c.OpenInvitations("unverified@example.com")[0].ID)
		c.SetBehavior(clerkinvitetest.Behavior{UnverifiedBlocks: true})
		requireRefused(t, create("unverified@example.com"), 422, "form_identifier_exists")

		again := request("unverified@example.com")
		again.IgnoreExisting = true
		for range 3 {
			_, err := api.CreateInvitation(t.Context(), again)
			require.NoError(t, err)
		}
		require.Len(t, c.OpenInvitations("unverified@example.com"), 3, "the older ones remain")
		require.Equal(t, 4, c.EmailsTo("unverified@example.com"), "each was sent")
		c.SetBehavior(clerkinvitetest.Behavior{IgnoreExistingRevokes: true})
		inv, err := api.CreateInvitation(t.Context(), again)
		require.NoError(t, err)
		require.Equal(t, []clerkinvite.Invitation{*inv}, c.OpenInvitations("unverified@example.com"))
	})
}

func TestBehaviorOfBulk(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.AddVerifiedUser("user@example.com")
		bulk := func(ignore bool, emails ...string) ([]string, error) {
			var rs []clerkinvite.InvitationRequest
			for _, email := range emails {
				rs = append(rs, clerkinvite.InvitationRequest{Email: email, IgnoreExisting: ignore, PublicMetadata: json.RawMessage(`{"a":1}`)})
			}
			invs, err := api.CreateInvitations(t.Context(), rs)
			var got []string
			for _, inv := range invs {
				got = append(got, inv.Email)
			}
			return got, err
		}
		got, err := bulk(false, "1@example.com", "2@example.com")
		require.NoError(t, err)
		require.Equal(t, []string{"1@example.com", "2@example.com"}, got)

		_, err = bulk(false, "3@example.com", "1@example.com", "2@example.com")
		require.Equal(t, map[string]any{"email_addresses": []any{"1@example.com", "2@example.com"}}, requireRefused(t, err, 400, "duplicate_record").Meta)
		_, err = bulk(false, "3@example.com", "user@example.com")
		require.Equal(t, map[string]any{"param_name": "email_address", "email_addresses": []any{"user@example.com"}},
			requireRefused(t, err, 422, "form_identifier_exists").Meta)
		require.Empty(t, c.Invitations("3@example.com"), "all or nothing")

		c.SetBehavior(clerkinvitetest.Behavior{BulkKeepsPartial: true})
		_, err = bulk(false, "3@example.com", "1@example.com")
		requireRefused(t, err, 400, "duplicate_record")
		require.Equal(t, 1, c.EmailsTo("3@example.com"))
		require.Equal(t, 1, c.EmailsTo("1@example.com"))

		_, err = bulk(true, "user@example.com")
		require.NoError(t, err)
		c.SetBehavior(clerkinvitetest.Behavior{BulkRefusesUsers: true})
		_, err = bulk(true, "user@example.com")
		requireRefused(t, err, 422, "form_identifier_exists")

		c.SetBehavior(clerkinvitetest.Behavior{BulkShuffles: true})
		got, err = bulk(false, "4@example.com", "5@example.com")
		require.NoError(t, err)
		require.Equal(t, []string{"5@example.com", "4@example.com"}, got)

		c.SetBehavior(clerkinvitetest.Behavior{BulkLosesMetadata: true})
		require.JSONEq(t, `{"a":1}`, string(c.Invitations("4@example.com")[0].PublicMetadata), "the invitation has it")
		w, err := c.Accept("4@example.com")
		require.NoError(t, err)
		require.Equal(t, map[string]any{}, parse(t, string(w.Payload))["data"].(map[string]any)["public_metadata"], "the user does not")
	})
}

func TestBehaviorOfRevoke(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		inv := mustCreate(t, api, ada)
		c.ExpireNow(inv.ID)
		revoke := func() error {
			_, err := api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: inv.ID})
			return err
		}
		c.SetBehavior(clerkinvitetest.Behavior{RevokeExpired: clerkinvitetest.ExpiredIsRefused})
		requireRefused(t, revoke(), 400, "invitation_expired")
		c.SetBehavior(clerkinvitetest.Behavior{RevokeExpired: clerkinvitetest.ExpiredIsNotFound})
		requireRefused(t, revoke(), 404, "resource_not_found")
		c.SetBehavior(clerkinvitetest.Behavior{})
		require.NoError(t, revoke())
		require.Equal(t, clerkinvite.InvitationRevoked, c.Invitations(ada)[0].Status)
		requireRefused(t, revoke(), 400, "invitation_already_revoked")
	})
}

func TestBehaviorOfSignUps(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	c.SetBehavior(clerkinvitetest.Behavior{SignUpAccepts: true})
	mustCreate(t, c, ada)
	u := verified(t, c.SignUp(ada, false)).User
	require.Len(t, c.OpenInvitations(ada), 1, "not without proof")
	c.VerifyEmail(u.ID, ada)
	require.Equal(t, clerkinvite.InvitationAccepted, c.Invitations(ada)[0].Status)
}

func TestBehaviorLag(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		before := mustCreate(t, api, "before@example.com")
		c.SetBehavior(clerkinvitetest.Behavior{Lag: true})
		c.AddVerifiedUser("arranged@example.com")
		shown := func() (users, pending int) {
			us, err := api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada, "arranged@example.com"}})
			require.NoError(t, err)
			is, err := api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Status: clerkinvite.InvitationPending})
			require.NoError(t, err)
			return len(us), len(is)
		}
		require.Equal(t, [2]int{1, 1}, pair(shown()))
		mustCreate(t, api, ada)
		_, err := api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: before.ID})
		require.NoError(t, err)
		require.Equal(t, [2]int{1, 1}, pair(shown()), "still the revoked one, not yet the new one")
		_, err = api.CreateInvitation(t.Context(), request(ada))
		requireRefused(t, err, 400, "duplicate_record")
		c.Settle()
		require.Equal(t, [2]int{1, 1}, pair(shown()), "the new one")
		_, err = c.Accept(ada)
		require.NoError(t, err)
		require.Equal(t, [2]int{1, 1}, pair(shown()))
		c.Settle()
		require.Equal(t, [2]int{2, 0}, pair(shown()))
		c.SetBehavior(clerkinvitetest.Behavior{})
		mustCreate(t, api, "after@example.com")
		require.Equal(t, [2]int{2, 1}, pair(shown()))
	})
}

func pair(a, b int) [2]int { return [2]int{a, b} }

func TestBehaviorOfFields(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.SetBehavior(clerkinvitetest.Behavior{NoExpiresAt: true})
		inv := mustCreate(t, api, "a@example.com")
		require.Nil(t, inv.ExpiresAt)
		require.NotEmpty(t, inv.URL)
		c.SetBehavior(clerkinvitetest.Behavior{NoURL: true})
		inv = mustCreate(t, api, "b@example.com")
		require.NotNil(t, inv.ExpiresAt)
		require.Empty(t, inv.URL)
		require.NotEmpty(t, c.SentMail()[1].URL, "the email has it")
		c.SetBehavior(clerkinvitetest.Behavior{WebhookSeconds: true})
		w := c.SignUp(ada, true)
		require.EqualValues(t, start.Unix(), parse(t, string(w.Payload))["timestamp"])
		require.Equal(t, start, verified(t, w).Timestamp)
		require.Equal(t, start, verified(t, w).User.CreatedAt.Truncate(time.Second))
	})
}
